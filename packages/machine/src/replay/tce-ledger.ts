/** Who mapped which TCE, and what happened to it since: QEMU's log and the guest's trace together. */
import { hex, type TraceEvent } from '@pinhole/base';
import { DmaDirection } from '@pinhole/memory';
import type { GuestOperation } from './guest-operations.js';
import type { Entries } from './guest-replay.js';
import { isMapping, type LoggedCall, log2, TCE_PAGE_SHIFT } from './tce-call.js';

/** A line in each of the two files; undefined where one has none. */
export interface Evidence {
  readonly qemuLine?: number;
  readonly guestLine?: number;
  readonly text: string;
}

/** Something that happened, how often, and where first. */
export interface Tally {
  count: number;
  /** TCEs. */
  tces: number;
  first: Evidence | undefined;
}

/** What a ledger counts. */
const TALLIES = [
  'leak',
  'staleAccess',
  'fault',
  'doubleMap',
  'wider',
  'failedCall',
  'failedMap',
  'outside',
] as const;
export type TallyName = (typeof TALLIES)[number];

interface Mapping {
  readonly line: number;
  readonly tce: bigint;
  readonly guestLine: number | undefined;
  /** The bytes of the buffer on the bus, if the guest's trace has them. */
  readonly buffer: { readonly start: bigint; readonly end: bigint } | undefined;
  /** Of the guest's trace: the driver gave it up there. */
  givenUp: number | undefined;
}

const WRITE = 2n;

/** One window's entries. */
interface Window {
  readonly busOffset: bigint;
  readonly pageShift: number;
  readonly entries: Map<number, Mapping>;
  peak: number;
}

/** Keeps each window's live entries. Memory is bounded by them. */
export class TceLedger {
  readonly tallies: Record<TallyName, Tally> = Object.fromEntries(
    TALLIES.map((name) => [name, { count: 0, tces: 0, first: undefined }]),
  ) as Record<TallyName, Tally>;
  /** Unmappings that cleared their TCEs. */
  unmapsWithCall = 0;
  readonly #windows = new Map<number, Window>();
  readonly #busOffsets: ReadonlyMap<number, bigint>;

  /** `busOffsets`: where the default windows begin that do not begin at 0, by LIOBN. */
  constructor(busOffsets: ReadonlyMap<number, bigint> = new Map()) {
    this.#busOffsets = busOffsets;
  }

  /** Entries in use now, and at most at one time. */
  usage(liobn: number): { readonly live: number; readonly peak: number } {
    const window = this.#windows.get(liobn);
    return { live: window?.entries.size ?? 0, peak: window?.peak ?? 0 };
  }

  /** Entries that are mapped although their driver gave them up. */
  get leaked(): number {
    let count = 0;
    for (const { entries } of this.#windows.values()) {
      for (const { givenUp } of entries.values()) if (givenUp !== undefined) count += 1;
    }
    return count;
  }

  /** A hypercall that happened; the operation that led to it, if that is known. */
  call(call: LoggedCall, operation: GuestOperation | undefined): void {
    if (call.ret !== 0n) {
      this.#tally('failedCall', call.npages, {
        qemuLine: call.line,
        ...(operation === undefined ? {} : { guestLine: operation.line }),
        text: `returned ${call.ret}`,
      });
      return;
    }
    const window = this.#window(call.liobn);
    const first = Number((call.ioba - window.busOffset) >> BigInt(window.pageShift));
    if (!isMapping(call)) {
      if (operation?.kind === 'unmap') this.unmapsWithCall += 1;
      if (call.tce === 0n)
        for (let i = 0; i < call.npages; i += 1) window.entries.delete(first + i);
      return;
    }
    if (operation?.direction === DmaDirection.TO_DEVICE && (call.tce & WRITE) !== 0n) {
      this.#tally('wider', call.npages, {
        qemuLine: call.line,
        guestLine: operation.line,
        text: 'a buffer that only goes to the device may be written by it',
      });
    }
    const mapping: Mapping = {
      line: call.line,
      tce: call.tce,
      guestLine: operation?.line,
      buffer: bufferOf(operation),
      givenUp: undefined,
    };
    for (let i = 0; i < call.npages; i += 1) {
      const before = window.entries.get(first + i);
      if (before !== undefined) {
        this.#tally('doubleMap', 1, {
          qemuLine: call.line,
          ...(operation === undefined ? {} : { guestLine: operation.line }),
          text: `the entry was mapped in line ${before.line}`,
        });
      }
      window.entries.set(first + i, mapping);
    }
    window.peak = Math.max(window.peak, window.entries.size);
  }

  /** The driver gave a mapping up; its TCEs stay. */
  givenUp({ line }: GuestOperation, { window, entry, npages }: Entries): void {
    const { entries } = this.#window(window.liobn);
    let tces = 0;
    let mapping: Mapping | undefined;
    for (let i = 0; i < npages; i += 1) {
      const live = entries.get(entry + i);
      if (live === undefined || live.givenUp !== undefined) continue;
      mapping = live;
      tces += 1;
    }
    if (mapping === undefined) return;
    mapping.givenUp = line;
    this.#tally('leak', tces, {
      qemuLine: mapping.line,
      guestLine: line,
      text: 'unmapped by the driver, still mapped in the window',
    });
  }

  /** The kernel found no room. */
  failedMap({ line, device, size }: GuestOperation, npages: number): void {
    const text = `${device}: no room for ${size} bytes (${npages} TCEs)`;
    this.#tally('failedMap', npages, { guestLine: line, text });
  }

  /** Any other event of QEMU's log. */
  event({ name, args }: TraceEvent, line: number): void {
    if (name === 'spapr_iommu_xlate') this.#access(args, line);
    else if (name === 'spapr_iommu_new_table') this.#reset(Number(args.liobn));
    else if (name === 'spapr_iommu_ddw_remove') this.#reset(Number(args.liobn));
    else if (name === 'spapr_iommu_ddw_create') {
      const pageShift = log2(args.pg_size as bigint);
      const busOffset = args.start as bigint;
      const window: Window = { busOffset, pageShift, entries: new Map(), peak: 0 };
      this.#windows.set(Number(args.liobn), window);
    }
  }

  #access(args: TraceEvent['args'], line: number): void {
    const liobn = Number(BigInt.asUintN(32, args.liobn as bigint));
    const window = this.#windows.get(liobn);
    // QEMU logs how far it is from the window's start.
    const offset = args.ioba as bigint;
    const mapping = window?.entries.get(Number(offset >> BigInt(window.pageShift)));
    if (args.perm === 0) {
      const address = hex(offset + (window?.busOffset ?? 0n));
      const text = `a device accessed ${address}, which nothing maps`;
      this.#tally('fault', 1, { qemuLine: line, text });
    } else if (mapping?.givenUp !== undefined) {
      this.#tally('staleAccess', 1, {
        qemuLine: line,
        guestLine: mapping.givenUp,
        text: `a device used a mapping that its driver gave up (mapped in line ${mapping.line})`,
      });
    } else if (window !== undefined && mapping?.buffer !== undefined) {
      const address = window.busOffset + offset;
      const { start, end } = mapping.buffer;
      if (address >= start && address < end) return;
      this.#tally('outside', 1, {
        qemuLine: line,
        ...(mapping.guestLine === undefined ? {} : { guestLine: mapping.guestLine }),
        text: `a device accessed ${hex(address)}, the buffer is ${hex(start)} to ${hex(end - 1n)}`,
      });
    }
  }

  #reset(liobn: number): void {
    this.#windows.get(liobn)?.entries.clear();
  }

  #window(liobn: number): Window {
    let window = this.#windows.get(liobn);
    if (window === undefined) {
      const busOffset = this.#busOffsets.get(liobn) ?? 0n;
      window = { busOffset, pageShift: TCE_PAGE_SHIFT, entries: new Map(), peak: 0 };
      this.#windows.set(liobn, window);
    }
    return window;
  }

  #tally(name: TallyName, tces: number, evidence: Evidence): void {
    const tally = this.tallies[name];
    tally.count += 1;
    tally.tces += tces;
    tally.first ??= evidence;
  }
}

// Of merged elements of a scatter list, nobody knows which hypercall belongs to which range.
function bufferOf(operation: GuestOperation | undefined): Mapping['buffer'] {
  if (operation === undefined || operation.kind === 'calls') return undefined;
  if (operation.isMerged === true) return undefined;
  const { dmaAddr, size } = operation;
  return { start: dmaAddr, end: dmaAddr + BigInt(size) };
}
