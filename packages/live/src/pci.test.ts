import type { HcallResult } from '@pinhole/hcall';
import { spaprPhbBuid } from '@pinhole/tce';
import { describe, expect, test } from 'vitest';
import { H_LOGICAL_CI_LOAD, H_LOGICAL_CI_STORE, RTAS_IBM_READ_PCI_CONFIG } from './params.js';
import { LivePciFunction, type PciHost, PciWindow } from './pci.js';

/** A host with one function whose BAR registers keep the bits that a size leaves them. */
class FakeHost implements PciHost {
  starts = 1;
  readonly calls: [number, readonly bigint[]][] = [];
  readonly #config = new DataView(new ArrayBuffer(0x1000));
  readonly #masks: readonly (readonly [mask: number, flags: number])[];

  constructor(masks: readonly (readonly [number, number])[]) {
    this.#masks = masks;
    this.reset();
  }

  reset(): void {
    this.starts += 1;
    for (let i = 0; i < 0x100; i += 4) this.#config.setUint32(i, 0, true);
    this.#config.setUint32(0, 0x1042_1af4, true);
    for (let i = 0; i < 6; i += 1) this.#write(0x10 + 4 * i, 0);
  }

  rtas(token: number, [where = 0, hi, lo, width = 4, value = 0]: readonly number[]): number[] {
    if (hi !== 0x0800_0000 || lo !== 0x2000_0000 || (where & 0xff_ff00) !== 0x0800) return [-1];
    const offset = ((where >>> 20) & 0xf00) | (where & 0xff);
    if (token === RTAS_IBM_READ_PCI_CONFIG) {
      return [0, (this.#config.getUint32(offset, true) & (2 ** (8 * width) - 1)) >>> 0];
    }
    this.#write(offset, value);
    return [0];
  }

  call(opcode: number, args: readonly bigint[]): HcallResult {
    this.calls.push([opcode, args]);
    return { ret: 0, out: [0x1122_3344n] };
  }

  #write(offset: number, value: number): void {
    const [mask, flags] = this.#masks[(offset - 0x10) / 4] ?? [0xffff_ffff, 0];
    this.#config.setUint32(offset, (value & mask) | flags, true);
  }
}

// An I/O BAR, a 4 KiB one, a hole, a 128 KiB 64-bit one; another hole.
const masks = [
  [0xffff_ff80, 1],
  [0xffff_f000, 0],
  [0, 0],
  [0xfffe_0000, 0xc],
  [0xffff_ffff, 0],
  [0, 0],
] as const;
const make = (host: PciHost, device = 1): LivePciFunction =>
  new LivePciFunction(host, new PciWindow(spaprPhbBuid(0)), spaprPhbBuid(0), {
    phb: spaprPhbBuid(0),
    bus: 0,
    device,
    function: 0,
  });

describe('a PCI function', () => {
  test('its BARs are placed, each at a multiple of its size, and enabled', () => {
    const pci = make(new FakeHost(masks));
    const sizes = [0, 1, 2, 3, 4, 5].map((index) => pci.bar(index)?.size);
    expect(sizes).toEqual([0x80, 0x1000, undefined, 0x2_0000, undefined, undefined]);
    expect([pci.configRead(0x14, 4), pci.configRead(0x1c, 4), pci.configRead(0x20, 4)]).toEqual([
      0x8000_0000, 0x8002_000c, 0,
    ]);
    expect(pci.configRead(0x10, 4)).toBe(0x1001);
    expect(pci.configRead(4, 2) & 3).toBe(3);
  });

  test('a load is at the CPU address of the BAR, and its bytes are reversed', () => {
    const host = new FakeHost(masks);
    const bar = make(host).bar(3);
    expect(bar?.read(4, 4)).toBe(0x4433_2211);
    expect(bar?.read(6, 2)).toBe(0x4433);
    expect(bar?.read(7, 1)).toBe(0x44);
    expect(host.calls[0]).toEqual([H_LOGICAL_CI_LOAD, [4n, 0x2000_8002_0004n]]);
  });

  test('I/O ports have a window of their own', () => {
    const host = new FakeHost(masks);
    make(host).bar(0)?.write(0x12, 1, 7);
    expect(host.calls[0]).toEqual([H_LOGICAL_CI_STORE, [1n, 0x2000_0000_1012n, 7n]]);
  });

  test('a reset takes the places away, and the next access gives the same ones', () => {
    const host = new FakeHost(masks);
    const pci = make(host);
    const bar = pci.bar(3);
    host.reset();
    expect(pci.configRead(0x1c, 4)).toBe(0xc);
    bar?.read(0, 4);
    expect(pci.configRead(0x1c, 4)).toBe(0x8002_000c);
  });

  test('nothing there: all ones, no BARs', () => {
    const pci = make(new FakeHost(masks), 2);
    expect([1, 2, 4].map((width) => pci.configRead(0, width as 1 | 2 | 4))).toEqual([
      0xff, 0xffff, 0xffff_ffff,
    ]);
    expect(pci.bar(0)).toBeUndefined();
  });

  test.each([
    [0x1000, 1],
    [0xffe, 4],
    [-4, 4],
  ] as const)('an access at %i of %i bytes is refused', (offset, width) => {
    const bar = make(new FakeHost(masks)).bar(1);
    expect(() => bar?.read(offset, width)).toThrow(
      expect.objectContaining({ code: 'E_LIVE_USAGE' }),
    );
  });

  test('a window that is full', () => {
    const window = new PciWindow(spaprPhbBuid(0));
    expect(window.take(0x4000_0000)).toBe(0x8000_0000);
    expect(window.take(0x1000)).toBe(0xc000_0000);
    expect(() => window.take(0x4000_0000)).toThrow(
      expect.objectContaining({ code: 'E_PCI_WINDOW' }),
    );
    expect(window.takePorts(0x8000)).toBe(0x8000);
    expect(() => window.takePorts(0x20)).toThrow(expect.objectContaining({ code: 'E_PCI_WINDOW' }));
  });
});
