import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  H_FUNCTION,
  H_GET_TCE,
  H_PARAMETER,
  H_PUT_TCE,
  H_PUT_TCE_INDIRECT,
  H_STUFF_TCE,
  H_SUCCESS,
  RTAS_TOKENS,
} from '@pinhole/hcall';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { LiveQemu, RESERVED_MEMORY } from '../../src/index.js';
import { describeLive, QEMU } from './support/live.js';

const LIOBN = 0x8000_0000n;
const LIOBN_DDW = 0x8000_0001n;
const PHB = [0, 0x0800_0000, 0x2000_0000];
const folder = mkdtempSync(join(tmpdir(), 'pinhole-live-'));
const disk = join(folder, 'disk.img');
writeFileSync(disk, new Uint8Array(2 ** 20));
afterAll(() => rmSync(folder, { recursive: true }));

describeLive('the ports of a real QEMU', () => {
  let qemu: LiveQemu;
  const getTce = (liobn: bigint, ioba: bigint): bigint | undefined =>
    qemu.call(H_GET_TCE, [liobn, ioba]).out[0];

  beforeAll(() => {
    qemu = LiveQemu.start({
      qemu: QEMU,
      phbs: 2,
      args: [
        ...['-drive', `if=none,id=d0,file=${disk},format=raw`],
        ...['-device', 'virtio-blk-pci,drive=d0,disable-legacy=on,bus=pci.0,addr=1'],
        ...['-device', 'virtio-rng-pci,disable-legacy=on,bus=phb2.0,addr=3'],
      ],
    });
  });
  afterAll(() => qemu?.close());
  beforeEach(() => qemu.reset());

  test('version and process', () => {
    expect(qemu.version).toMatch(/^\d+\.\d+\.\d+$/);
    expect(() => process.kill(qemu.pid, 0)).not.toThrow();
  });

  test('memory is read and written, to its last byte', () => {
    const { memory } = qemu;
    const bytes = Uint8Array.from({ length: 70_001 }, (_, i) => i * 7);
    memory.write(0x10_0001, bytes);
    const back = new Uint8Array(bytes.length);
    memory.read(0x10_0001, back);
    expect(back).toEqual(bytes);
    memory.writeU64Be(0x10_0000, 0x0102_0304_0506_0708n);
    expect(memory.readU32Le(0x10_0004)).toBe(0x0807_0605);
    memory.writeU8(2 ** 28 - 1, 0x5a);
    expect(memory.readU8(2 ** 28 - 1)).toBe(0x5a);
    expect(memory.isBacked(2 ** 28 - 1, 2)).toBe(false);
    expect(() => memory.readU16Le(2 ** 28 - 1)).toThrow(
      expect.objectContaining({ code: 'E_GPA_OUT_OF_RANGE' }),
    );
  });

  test('H_PUT_TCE and H_GET_TCE', () => {
    expect(qemu.call(H_PUT_TCE, [LIOBN, 0x1000n, 0x5003n])).toEqual({ ret: H_SUCCESS, out: [] });
    expect(qemu.call(H_GET_TCE, [LIOBN, 0x1000n])).toEqual({ ret: H_SUCCESS, out: [0x5003n] });
    expect(qemu.call(H_GET_TCE, [LIOBN, 2n ** 40n])).toEqual({ ret: H_PARAMETER, out: [] });
  });

  test('H_PUT_TCE_INDIRECT takes 512 entries of a page, and no more', () => {
    const list = 0x10_0000;
    for (let i = 0; i < 512; i += 1) qemu.memory.writeU64Be(list + 8 * i, BigInt(i * 0x1000 + 3));
    const put = (at: bigint, count: bigint): number =>
      qemu.call(H_PUT_TCE_INDIRECT, [LIOBN, 0n, at, count]).ret;
    expect(put(BigInt(list), 512n)).toBe(H_SUCCESS);
    expect(getTce(LIOBN, 0x1f_f000n)).toBe(0x1f_f003n);
    expect(put(BigInt(list), 513n)).toBe(H_PARAMETER);
    expect(put(BigInt(list) + 8n, 1n)).toBe(H_PARAMETER);
  });

  test('H_STUFF_TCE', () => {
    expect(qemu.call(H_STUFF_TCE, [LIOBN, 0x2000n, 0x7003n, 3n]).ret).toBe(H_SUCCESS);
    expect([0x1000n, 0x2000n, 0x4000n, 0x5000n].map((ioba) => getTce(LIOBN, ioba))).toEqual([
      0n,
      0x7003n,
      0x7003n,
      0n,
    ]);
  });

  test('what is refused: a table that is not there, a call that is not there', () => {
    expect(qemu.call(H_PUT_TCE, [0x99n, 0n, 0n])).toEqual({ ret: H_PARAMETER, out: [] });
    expect(qemu.call(0xfff0, [])).toEqual({ ret: H_FUNCTION, out: [] });
    expect(() => qemu.call(H_PUT_TCE, new Array(8).fill(0n))).toThrow(
      expect.objectContaining({ code: 'E_LIVE_USAGE' }),
    );
  });

  test('RTAS: a second window is queried, created once, used', () => {
    const create = [...PHB, 24, 31];
    const [status, windows, largest] = qemu.rtas(RTAS_TOKENS['ibm,query-pe-dma-window'], PHB, 5);
    expect([status, windows, largest]).toEqual([0, 1, 0x8000_0000]);
    const made = qemu.rtas(RTAS_TOKENS['ibm,create-pe-dma-window'], create, 4);
    expect(made).toEqual([0, 0x8000_0001, 0x0800_0000, 0]);
    expect(qemu.rtas(RTAS_TOKENS['ibm,create-pe-dma-window'], create, 4)).toEqual([-1]);
    expect(qemu.call(H_PUT_TCE, [LIOBN_DDW, 2n ** 59n, 3n]).ret).toBe(H_SUCCESS);
    // A call that is not there.
    expect(qemu.rtas(0x20ff, [], 3)).toEqual([-3]);
  });

  test('a reset: windows and tables as at the start, memory as before', () => {
    qemu.rtas(RTAS_TOKENS['ibm,create-pe-dma-window'], [...PHB, 24, 31], 4);
    qemu.call(H_PUT_TCE, [LIOBN, 0n, 3n]);
    qemu.memory.writeU32Be(RESERVED_MEMORY.size, 0x1234_5678);
    qemu.reset();
    expect(getTce(LIOBN, 0n)).toBe(0n);
    expect(qemu.call(H_PUT_TCE, [LIOBN_DDW, 2n ** 59n, 3n]).ret).toBe(H_PARAMETER);
    expect(qemu.memory.readU32Be(RESERVED_MEMORY.size)).toBe(0x1234_5678);
  });

  test('the device tree, at the start and after each reset', () => {
    const tree = qemu.deviceTree();
    const view = new DataView(tree.buffer);
    expect(view.getUint32(0)).toBe(0xd00d_feed);
    expect(view.getUint32(4)).toBe(tree.length);
    expect(Buffer.from(tree).includes('ibm,pe-total-#msi')).toBe(true);
    qemu.memory.fill(2 ** 28 - 2 * 2 ** 20, 2 ** 20, 0);
    expect(() => qemu.deviceTree()).toThrow(expect.objectContaining({ code: 'E_DEVICE_TREE' }));
    qemu.reset();
    expect(qemu.deviceTree().length).toBe(tree.length);
  });

  test('configuration space and BARs of virtio devices, behind any bridge', () => {
    const blk = qemu.pciFunction({ device: 1 });
    expect([blk.name, blk.configRead(0, 2), blk.configRead(2, 2)]).toEqual([
      '0000:00:01.0',
      0x1af4,
      0x1042,
    ]);
    const rng = qemu.pciFunction({ phb: 0x0800_0000_2000_0002n, device: 3 });
    expect([rng.name, rng.configRead(0, 4)]).toEqual(['0002:00:03.0', 0x1044_1af4]);
    expect(qemu.pciFunction({ phb: 0x0800_0000_2000_0001n, device: 3 }).configRead(0, 4)).toBe(
      0xffff_ffff,
    );
    // virtio's common configuration is at the start of BAR 4. [VIRTIO v1.2 §4.1.4.3]
    for (const pci of [blk, rng]) {
      const common = pci.bar(4);
      expect(common?.size).toBe(0x4000);
      expect(common?.read(18, 2)).toBe(1);
      common?.write(20, 1, 1);
      expect(common?.read(20, 1)).toBe(1);
      // The upper half of the features: VIRTIO_F_VERSION_1.
      common?.write(0, 4, 1);
      expect((common?.read(4, 4) ?? 0) & 1).toBe(1);
    }
    // A reset takes the BARs' places and the driver's status away; the former come back.
    qemu.reset();
    expect(blk.bar(4)?.read(20, 1)).toBe(0);
    expect(blk.configRead(0x20, 4)).toBeGreaterThan(0x8000_0000);
  });

  test('QMP: answers, and refusals', () => {
    expect(qemu.qmp('query-status')).toMatchObject({ status: 'running' });
    expect(() => qemu.qmp('no-such-command')).toThrow(
      expect.objectContaining({ code: 'E_QMP', details: expect.objectContaining({}) }),
    );
    expect(qemu.call(H_PUT_TCE, [LIOBN, 0n, 3n]).ret).toBe(H_SUCCESS);
  });
});
