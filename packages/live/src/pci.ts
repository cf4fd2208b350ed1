import { hex } from '@pinhole/base';
import { H_SUCCESS, type Hypercalls, RTAS_OUT_SUCCESS, type Rtas } from '@pinhole/hcall';
import { spaprPhbBuid } from '@pinhole/tce';
import type { MmioRegion, PciFunction, RegisterWidth } from '@pinhole/virtio';
import { LiveError } from './errors.js';
import {
  H_LOGICAL_CI_LOAD,
  H_LOGICAL_CI_STORE,
  PCI_IO_SIZE,
  PCI_MEM32_BASE,
  PCI_MEM32_SIZE,
  RTAS_IBM_READ_PCI_CONFIG,
  RTAS_IBM_WRITE_PCI_CONFIG,
  SPAPR_PCI_BASE,
} from './params.js';

/** Where a PCI function is. */
export interface PciAddress {
  /** The host bridge's BUID: index 0's if not given, 0x0800000020000000; index n's is n more. */
  readonly phb?: bigint;
  /** 0 if not given. */
  readonly bus?: number;
  /** 0 to 31. */
  readonly device: number;
  /** 0 to 7; 0 if not given. */
  readonly function?: number;
}

/** What PCI needs of the machine. */
export interface PciHost extends Hypercalls, Rtas {
  /** Counts the machine's starts: a reset takes BARs away. */
  readonly starts: number;
}

/** Configuration space offsets and bits. [PCI 3.0 §6.2] */
const PCI_COMMAND = 0x04;
const PCI_COMMAND_IO = 0x1;
const PCI_COMMAND_MEMORY = 0x2;
const PCI_BASE_ADDRESS_0 = 0x10;
const BARS = 6;
/** BARs are placed on pages, as a system that maps them by page would have it. */
const BAR_ALIGN = 0x1_0000;
/** The first I/O port that is handed out. */
const FIRST_PORT = 0x1000;

/** A BAR that has been given its place. */
interface PlacedBar {
  readonly index: number;
  /** In PCI memory space, or a port. */
  readonly address: number;
  readonly size: number;
  readonly is64: boolean;
  readonly isIo: boolean;
}

/** Hands out the 32-bit PCI memory window and the ports of one host bridge, from their start upwards. */
export class PciWindow {
  /** CPU address of PCI memory address 0, as it were. */
  readonly cpuOffset: bigint;
  /** CPU address of I/O port 0. */
  readonly ioOffset: bigint;
  readonly #buid: bigint;
  #next: number = PCI_MEM32_BASE;
  #nextPort = FIRST_PORT;

  constructor(buid: bigint) {
    this.#buid = buid;
    const index = buid - spaprPhbBuid(0);
    this.cpuOffset = SPAPR_PCI_BASE + index * BigInt(PCI_MEM32_SIZE);
    this.ioOffset = SPAPR_PCI_BASE + index * BigInt(PCI_IO_SIZE);
  }

  /** @throws LiveError `E_PCI_WINDOW` when it is full. */
  take(size: number): number {
    const align = Math.max(size, BAR_ALIGN);
    const address = Math.ceil(this.#next / align) * align;
    if (address + size > PCI_MEM32_BASE + PCI_MEM32_SIZE) throw this.#full(size, '32-bit');
    this.#next = address + size;
    return address;
  }

  /** @throws LiveError `E_PCI_WINDOW` when there are no ports left. */
  takePorts(size: number): number {
    const port = Math.ceil(this.#nextPort / size) * size;
    if (port + size > PCI_IO_SIZE) throw this.#full(size, 'I/O');
    this.#nextPort = port + size;
    return port;
  }

  #full(size: number, window: string): LiveError {
    return new LiveError(
      'E_PCI_WINDOW',
      `expected room for a BAR of ${size} bytes in the ${window} window of bridge ${hex(this.#buid)}, found none`,
      { details: { buid: this.#buid, size } },
    );
  }
}

/**
 * A function of a live machine: configuration space by RTAS, BARs by cache-inhibited loads and
 * stores. There is no firmware to place BARs, so this does, at the first use and again after a
 * reset, each time at the same addresses.
 */
export class LivePciFunction implements PciFunction {
  readonly name: string;
  readonly #host: PciHost;
  readonly #window: PciWindow;
  readonly #buid: bigint;
  /** `bus << 16 | device << 11 | function << 8`, as RTAS wants it. */
  readonly #config: number;
  #bars: readonly PlacedBar[] | undefined;
  #placedAt = -1;

  constructor(host: PciHost, window: PciWindow, buid: bigint, address: Required<PciAddress>) {
    const { bus, device, function: fn } = address;
    const two = (n: number): string => n.toString(16).padStart(2, '0');
    const domain = (buid - spaprPhbBuid(0)).toString(16).padStart(4, '0');
    this.name = `${domain}:${two(bus)}:${two(device)}.${fn}`;
    this.#host = host;
    this.#window = window;
    this.#buid = buid;
    this.#config = (bus << 16) | (device << 11) | (fn << 8);
  }

  configRead(offset: number, width: RegisterWidth): number {
    const args = [...this.#where(offset), width];
    const [status, value = 0] = this.#host.rtas(RTAS_IBM_READ_PCI_CONFIG, args, 2);
    return status === RTAS_OUT_SUCCESS ? value : 2 ** (8 * width) - 1;
  }

  configWrite(offset: number, width: RegisterWidth, value: number): void {
    const args = [...this.#where(offset), width, value >>> 0];
    this.#host.rtas(RTAS_IBM_WRITE_PCI_CONFIG, args, 1);
  }

  bar(index: number): MmioRegion | undefined {
    this.place();
    const bar = this.#bars?.find((bar) => bar.index === index);
    if (bar === undefined) return undefined;
    const { ioOffset, cpuOffset } = this.#window;
    return new LiveMmioRegion(this, this.#host, bar.isIo ? ioOffset : cpuOffset, bar);
  }

  /** Places the BARs, and enables them, unless that has been done since the last reset. */
  place(): void {
    if (this.#placedAt === this.#host.starts) return;
    this.#bars ??= this.#allocate();
    for (const { index, address, is64 } of this.#bars) {
      this.configWrite(barOffset(index), 4, address);
      if (is64) this.configWrite(barOffset(index + 1), 4, 0);
    }
    const command = this.configRead(PCI_COMMAND, 2);
    const enable = this.#bars.reduce(
      (bits, { isIo }) => bits | (isIo ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY),
      0,
    );
    if (enable !== 0) this.configWrite(PCI_COMMAND, 2, command | enable);
    this.#placedAt = this.#host.starts;
  }

  /** Finds the BARs by their sizes, and an address for each. [PCI 3.0 §6.2.5.1] */
  #allocate(): PlacedBar[] {
    const bars: PlacedBar[] = [];
    if (this.configRead(0, 2) === 0xffff) return bars;
    for (let index = 0; index < BARS; index += 1) {
      this.configWrite(barOffset(index), 4, 0xffff_ffff);
      const mask = this.configRead(barOffset(index), 4);
      this.configWrite(barOffset(index), 4, 0);
      if (mask === 0) continue;
      if ((mask & 1) === 1) {
        // The upper half of an I/O BAR may be hardwired to zero.
        const size = (~((mask & ~3) | 0xffff_0000) + 1) >>> 0;
        const address = this.#window.takePorts(size);
        bars.push({ index, address, size, is64: false, isIo: true });
        continue;
      }
      const is64 = (mask & 6) === 4;
      const size = (~(mask & ~0xf) + 1) >>> 0;
      // 4 GiB or more: there is no place for it.
      if (size === 0) {
        index += 1;
        continue;
      }
      bars.push({ index, address: this.#window.take(size), size, is64, isIo: false });
      // The next register is the upper half.
      if (is64) index += 1;
    }
    return bars;
  }

  /** The first three arguments of the RTAS calls. [qemu v7.2 hw/ppc/spapr_pci.c rtas_pci_cfgaddr] */
  #where(offset: number): number[] {
    const config = this.#config | ((offset & 0xf00) << 20) | (offset & 0xff);
    return [config >>> 0, Number(this.#buid >> 32n), Number(this.#buid & 0xffff_ffffn)];
  }
}

/** One BAR. The hypervisor's loads and stores are big-endian, PCI is little-endian. */
class LiveMmioRegion implements MmioRegion {
  readonly size: number;
  readonly #owner: LivePciFunction;
  readonly #host: Hypercalls;
  readonly #base: bigint;

  constructor(owner: LivePciFunction, host: Hypercalls, cpuOffset: bigint, bar: PlacedBar) {
    this.size = bar.size;
    this.#owner = owner;
    this.#host = host;
    this.#base = cpuOffset + BigInt(bar.address);
  }

  read(offset: number, width: RegisterWidth): number {
    const at = this.#at(offset, width);
    const { ret, out } = this.#host.call(H_LOGICAL_CI_LOAD, [BigInt(width), at]);
    if (ret !== H_SUCCESS) throw refused('load', at, ret);
    return swap(Number(out[0]), width);
  }

  write(offset: number, width: RegisterWidth, value: number): void {
    const at = this.#at(offset, width);
    const big = BigInt(swap(value, width));
    const { ret } = this.#host.call(H_LOGICAL_CI_STORE, [BigInt(width), at, big]);
    if (ret !== H_SUCCESS) throw refused('store', at, ret);
  }

  #at(offset: number, width: RegisterWidth): bigint {
    this.#owner.place();
    if (offset >= 0 && offset % width === 0 && offset + width <= this.size) {
      return this.#base + BigInt(offset);
    }
    throw new LiveError(
      'E_LIVE_USAGE',
      `expected an aligned access inside of a BAR of ${this.size} bytes, found ${width} bytes at ${offset}`,
      { details: { offset, width, size: this.size } },
    );
  }
}

const barOffset = (index: number): number => PCI_BASE_ADDRESS_0 + 4 * index;

/** Reverses the low `width` bytes of `value`; the others are dropped. */
function swap(value: number, width: RegisterWidth): number {
  if (width === 1) return value & 0xff;
  if (width === 2) return ((value & 0xff) << 8) | ((value >>> 8) & 0xff);
  const low = ((value & 0xff) << 24) | ((value & 0xff00) << 8);
  return (low | ((value >>> 8) & 0xff00) | (value >>> 24)) >>> 0;
}

function refused(what: string, at: bigint, ret: number): LiveError {
  return new LiveError('E_LIVE_USAGE', `QEMU refused a ${what} at ${hex(at)}: ${ret}`, {
    details: { address: at, ret },
  });
}
