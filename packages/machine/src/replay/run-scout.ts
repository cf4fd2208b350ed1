/**
 * The first look at a recorded run: which kernel, which windows, and where in QEMU's log the
 * guest's trace begins.
 */
import type { TraceEvent } from '@pinhole/base';
import { H_PUT_TCE_INDIRECT, H_STUFF_TCE } from '@pinhole/hcall';
import { callsFor, type DeviceRoute, GuestModel } from './guest-model.js';
import {
  DMA_MAPPING_ERROR,
  type GuestOperation,
  GuestOperationReader,
} from './guest-operations.js';
import { callKey, type LoggedCall, loggedCall } from './tce-call.js';

const DEFAULT_ENTRIES = 0x4_0000;
/** Hypercalls of the guest's trace that are looked for in the log. */
const KEYS = 64;
/** Events of the guest's trace that are looked at. */
const MAX_EVENTS = 40_000;
const MAX_BOOTS = 4096;
/** A window's clearing has at least this many hypercalls, or begins at bus address 0. */
const MIN_CLEAR_CALLS = 16;
const DEFAULT_PAGE_SHIFT = 12;
/** Entries of one H_STUFF_TCE of Linux. [linux v6.1 arch/powerpc/platforms/pseries/iommu.c tce_freemulti_pSeriesLP] */
const TCE_CALL_MAX = 512;

const HYPERVISOR_EVENTS: readonly string[] = [
  ...['put', 'get', 'stuff', 'indirect'].flatMap((call) => [
    `spapr_iommu_${call}`,
    `spapr_iommu_pci_${call}`,
  ]),
  'spapr_iommu_new_table',
  'spapr_iommu_ddw_query',
  'spapr_iommu_ddw_create',
];

/** A window that a kernel cleared: it began to use it there. */
export interface ClearedWindow {
  readonly liobn: number;
  readonly busOffset: bigint;
  /** Entries. */
  readonly size: number;
  /** By H_STUFF_TCE rather than one H_PUT_TCE an entry. */
  readonly isStuffed: boolean;
  /** Hypercalls of the log before its end. */
  readonly endCall: number;
  readonly line: number;
}

/** A second window. */
interface CreatedWindow {
  readonly liobn: number;
  readonly start: bigint;
  readonly pageShift: number;
  /** Bytes. */
  readonly size: bigint;
  readonly line: number;
}

/** What QEMU's log says about one boot of a guest. */
export interface Boot {
  readonly windows: ClearedWindow[];
  readonly created: CreatedWindow[];
  /** Lines of ibm,query-pe-dma-window. */
  readonly queries: number[];
  /** Entries that firmware had mapped when the kernel cleared the window. */
  firmwareEntries: number;
}

/** Where the guest's trace begins in the log. */
export interface Alignment {
  /** Hypercalls of the log before the first one of the guest's trace. */
  readonly base: number;
  /** Of the `of` hypercalls that were looked for, so many are there. */
  readonly score: number;
  readonly of: number;
  /** So many of them must be there, or the files are not of one run. */
  readonly needed: number;
  /** Bytes of a guest page, if the hypercalls tell. */
  readonly pageSize: number | undefined;
  readonly usePutIndirect: boolean;
  /** Index into `boots`. */
  readonly boot: number;
}

/** What the guest's trace says about its kernel. */
export interface GuestFacts {
  readonly hasDmaEvents: boolean;
  readonly hasCallEvents: boolean;
  /** `dma_map_phys`: 7.0 or later. */
  readonly hasMapPhys: boolean;
  readonly cpus: number;
  /** From a line in trace_marker such as `MARK INIT 6.12.107 base`. */
  readonly release: string | undefined;
  /** Maps at physical address + offset, by device; and those at other addresses. */
  readonly devices: ReadonlyMap<string, { direct: Map<bigint, number>; other: number }>;
}

/** All that a first look gives. */
export interface RunFacts {
  readonly guest: GuestFacts | undefined;
  readonly boots: readonly Boot[];
  readonly calls: number;
  /** The log begins when the machine is switched on: its first event is a new table. */
  readonly hasPowerOn: boolean;
  /** Undefined: the guest's trace has no hypercall that could be looked for. */
  readonly alignment: Alignment | undefined;
  /**
   * Addresses in the second window that the guest's trace begins with, and how many of them a
   * device accessed. They tell whether the files belong together where no hypercalls do.
   */
  readonly accesses: { readonly lookedFor: number; readonly found: number };
}

interface Candidate {
  readonly pageSize: number;
  readonly usePutIndirect: boolean;
  readonly keys: string[];
  best: { score: number; base: number; boot: number };
}

/**
 * Takes the beginning of the guest's trace, then all of QEMU's log. Keeps a few hypercalls and what
 * it learns about each boot.
 */
export class RunScout {
  readonly #guest = new GuestScout();
  readonly #boots: Boot[] = [];
  readonly #pageShifts = new Map<number, number>();
  readonly #clearing = new Map<number, Clearing>();
  readonly #mapped = new Set<string>();
  #candidates: Candidate[] | undefined;
  readonly #recent: string[] = [];
  #alignedBoot: number | undefined;
  #hasPowerOn = false;
  #calls = 0;
  #addresses: Set<bigint> | undefined;
  #lookedFor = 0;

  /** The guest's trace has told enough. */
  get hasSeenEnough(): boolean {
    return this.#guest.hasSeenEnough;
  }

  /**
   * The events of QEMU's log that it looks at, once it has seen the guest's: a reader need not read
   * others.
   */
  get qemuEvents(): readonly string[] {
    const others = this.#guest.directAddresses.size > 0 ? ['spapr_iommu_xlate'] : [];
    return [...HYPERVISOR_EVENTS, ...others];
  }

  guestEvent(event: TraceEvent, line: number): void {
    this.#guest.event(event, line);
  }

  /** After the guest's events. */
  qemuEvent(event: TraceEvent, line: number): void {
    const { name, args } = event;
    if (name === 'spapr_iommu_new_table' && this.#calls === 0) this.#hasPowerOn = true;
    if (name.startsWith('spapr_iommu_ddw_')) this.#endClears();
    if (name === 'spapr_iommu_ddw_query') this.#boot.queries.push(line);
    else if (name === 'spapr_iommu_ddw_create') this.#create(args, line);
    else if (name === 'spapr_iommu_xlate') this.#access(args);
    const call = loggedCall(event, line, (liobn) => this.#pageShifts.get(liobn) ?? 12);
    if (call === undefined) return;
    this.#calls += 1;
    this.#clear(call);
    this.#align(call);
  }

  facts(): RunFacts {
    this.#endClears();
    return {
      guest: this.#guest.facts(),
      boots: this.#boots,
      calls: this.#calls,
      hasPowerOn: this.#hasPowerOn,
      alignment: this.#alignment(),
      accesses: {
        lookedFor: this.#lookedFor,
        found: this.#lookedFor - (this.#addresses?.size ?? this.#lookedFor),
      },
    };
  }

  // QEMU logs the exact address of a buffer's first access, from the start of the window.
  #access({ ioba }: TraceEvent['args']): void {
    if (this.#addresses === undefined) {
      this.#addresses = this.#guest.directAddresses;
      this.#lookedFor = this.#addresses.size;
    }
    if (this.#addresses.size > 0) this.#addresses.delete(ioba as bigint);
  }

  get #boot(): Boot {
    if (this.#boots.length === 0) this.#begin();
    return this.#boots.at(-1) as Boot;
  }

  #begin(): void {
    // What comes after so many counts for the last one.
    if (this.#boots.length >= MAX_BOOTS) return;
    this.#boots.push({
      windows: [],
      created: [],
      queries: [],
      firmwareEntries: 0,
    });
  }

  #create(args: TraceEvent['args'], line: number): void {
    const liobn = Number(args.liobn);
    // An answer without a window has no LIOBN.
    if (liobn === 0) return;
    const pageShift = (args.pg_size as bigint).toString(2).length - 1;
    this.#pageShifts.set(liobn, pageShift);
    this.#boot.created.push({
      liobn,
      start: args.start as bigint,
      pageShift,
      size: args.req_size as bigint,
      line,
    });
  }

  // A kernel begins with clearing its window from end to end.
  #clear(call: LoggedCall): void {
    const isZero = call.tce === 0n && call.ret === 0n && call.opcode !== H_PUT_TCE_INDIRECT;
    if (isZero && call.npages === 1) this.#mapped.delete(`${call.liobn} ${call.ioba}`);
    const known = this.#clearing.get(call.liobn);
    if (known !== undefined && isZero && known.next === call.ioba) {
      known.next += BigInt(call.npages) << BigInt(DEFAULT_PAGE_SHIFT);
      known.size += call.npages;
      known.calls += 1;
      known.endCall = this.#calls;
      known.line = call.line;
      return;
    }
    if (known !== undefined) this.#endClear(known);
    if (!isZero) {
      if ((call.tce & 3n) !== 0n && this.#mapped.size < 2 ** 20) {
        this.#mapped.add(`${call.liobn} ${call.ioba}`);
      }
      return;
    }
    // A clearing begins at the window's start, or with a whole list elsewhere.
    if (call.ioba !== 0n && call.npages < TCE_CALL_MAX) return;
    this.#clearing.set(call.liobn, {
      liobn: call.liobn,
      start: call.ioba,
      next: call.ioba + (BigInt(call.npages) << BigInt(DEFAULT_PAGE_SHIFT)),
      size: call.npages,
      calls: 1,
      isStuffed: call.opcode === H_STUFF_TCE,
      endCall: this.#calls,
      line: call.line,
    });
  }

  // What comes next belongs to the kernel that cleared its windows.
  #endClears(): void {
    for (const clearing of this.#clearing.values()) this.#endClear(clearing);
  }

  #endClear(clearing: Clearing): void {
    this.#clearing.delete(clearing.liobn);
    // Entry 0 is never mapped, so nothing but this clears it.
    const isWhole = clearing.start === 0n && clearing.size >= 16;
    // Firmware gives its own mappings back one by one.
    const isElsewhere = this.#hasPowerOn && clearing.isStuffed && clearing.calls >= MIN_CLEAR_CALLS;
    if (!isWhole && !isElsewhere) return;
    const { liobn, start, size, isStuffed, endCall, line } = clearing;
    const last = this.#boots.at(-1);
    if (last === undefined || last.windows.some((window) => window.liobn === liobn)) this.#begin();
    const boot = this.#boot;
    boot.firmwareEntries += [...this.#mapped].filter((key) => key.startsWith(`${liobn} `)).length;
    for (const key of this.#mapped) if (key.startsWith(`${liobn} `)) this.#mapped.delete(key);
    boot.windows.push({ liobn, busOffset: start, size, isStuffed, endCall, line });
  }

  #align(call: LoggedCall): void {
    this.#candidates ??= this.#guest.candidates();
    const boot = this.#boots.length - 1;
    // Nothing in the same boot is better than all of them.
    if (this.#alignedBoot === boot) return;
    const longest = Math.max(0, ...this.#candidates.map(({ keys }) => keys.length));
    if (longest === 0) return;
    this.#recent.push(callKey(call));
    if (this.#recent.length > longest) this.#recent.shift();
    for (const candidate of this.#candidates) {
      const { keys, best } = candidate;
      const start = this.#recent.length - keys.length;
      if (start < 0 || keys.length === 0) continue;
      let score = 0;
      for (let i = 0; i < keys.length; i += 1) {
        if (isSame(keys[i] as string, this.#recent[start + i] as string)) score += 1;
      }
      if (score > best.score || (score === best.score && boot > best.boot)) {
        candidate.best = { score, base: this.#calls - keys.length, boot };
        if (score === keys.length) this.#alignedBoot = boot;
      }
    }
  }

  #alignment(): Alignment | undefined {
    const candidates = this.#candidates ?? this.#guest.candidates();
    const [first, ...others] = candidates.filter(({ keys }) => keys.length > 0);
    if (first === undefined) return undefined;
    let best = first;
    for (const other of others) if (other.best.score > best.best.score) best = other;
    const isSure = candidates.some(({ pageSize, best: { score } }) => {
      return pageSize !== best.pageSize && score < best.best.score;
    });
    return {
      ...best.best,
      of: best.keys.length,
      needed: neededOf(best.keys),
      pageSize: isSure ? best.pageSize : undefined,
      usePutIndirect: best.usePutIndirect,
    };
  }
}

interface Clearing {
  readonly liobn: number;
  readonly start: bigint;
  readonly isStuffed: boolean;
  next: bigint;
  size: number;
  calls: number;
  endCall: number;
  line: number;
}

// Hypercalls with addresses are found by chance nowhere, opcodes alone nearly everywhere.
function neededOf(keys: readonly string[]): number {
  const bare = keys.filter((key) => !key.includes(' ')).length;
  return Math.ceil(0.5 * (keys.length - bare) + 0.9 * bare);
}

// A key that is only an opcode fits every hypercall of that kind.
function isSame(key: string, logged: string): boolean {
  return key === logged || (!key.includes(' ') && logged.startsWith(`${key} `));
}

/** What the guest's trace tells. */
class GuestScout {
  readonly #devices = new Map<string, { direct: Map<bigint, number>; other: number }>();
  readonly #cpus = new Set<number>();
  #events: { event: TraceEvent; line: number }[] = [];
  readonly #direct: bigint[] = [];
  #seen = 0;
  #hasDma = false;
  #hasCalls = false;
  #hasMapPhys = false;
  #release: string | undefined;

  get hasSeenEnough(): boolean {
    return this.#seen >= MAX_EVENTS;
  }

  event(event: TraceEvent, line: number): void {
    if (this.hasSeenEnough) return;
    this.#seen += 1;
    const { name, args } = event;
    if (name === 'hcall_entry') this.#hasCalls = true;
    else if (name.startsWith('dma_')) this.#hasDma = true;
    if (name === 'dma_map_phys') this.#hasMapPhys = true;
    if (name.startsWith('dma_map_')) this.#map(args);
    if (name === 'tracing_mark_write') this.#release ??= releaseIn(String(args.message));
    if (this.#cpus.size < 4096) this.#cpus.add(Number(args.cpu ?? 0));
    if (this.#events.length < 16 * KEYS) this.#events.push({ event, line });
  }

  /** The first addresses at physical address + offset, without the offset. */
  get directAddresses(): Set<bigint> {
    return new Set(this.#direct);
  }

  facts(): GuestFacts | undefined {
    if (this.#seen === 0) return undefined;
    return {
      hasDmaEvents: this.#hasDma,
      hasCallEvents: this.#hasCalls,
      hasMapPhys: this.#hasMapPhys,
      cpus: this.#cpus.size,
      release: this.#release,
      devices: this.#devices,
    };
  }

  /** The first hypercalls, for each way in which the kernel may make them. */
  candidates(): Candidate[] {
    const ways = [4096, 65_536].flatMap((pageSize) =>
      [true, false].map((usePutIndirect) => ({ pageSize, usePutIndirect })),
    );
    return ways.map(({ pageSize, usePutIndirect }) => ({
      pageSize,
      usePutIndirect,
      keys: this.#keys(pageSize, usePutIndirect),
      best: { score: 0, base: 0, boot: -1 },
    }));
  }

  #map({ device, dma_addr, phys_addr }: TraceEvent['args']): void {
    if (typeof dma_addr !== 'bigint' || typeof phys_addr !== 'bigint') return;
    if (dma_addr === DMA_MAPPING_ERROR) return;
    const name = String(device);
    let known = this.#devices.get(name);
    if (known === undefined) {
      if (this.#devices.size >= 4096) return;
      known = { direct: new Map(), other: 0 };
      this.#devices.set(name, known);
    }
    const offset = dma_addr - phys_addr;
    // A second window begins above all memory; without an IOMMU there is no offset.
    if (offset >= 2n ** 32n || offset === 0n) {
      if (offset > 0n && this.#direct.length < KEYS) this.#direct.push(phys_addr);
      if (known.direct.size < 16) known.direct.set(offset, (known.direct.get(offset) ?? 0) + 1);
    } else known.other += 1;
  }

  #keys(pageSize: number, usePutIndirect: boolean): string[] {
    const keys: string[] = [];
    const operations: GuestOperation[] = [];
    const reader = new GuestOperationReader({
      hasDmaEvents: this.#hasDma,
      callsFor: (kind, npages) => callsFor(kind === 'unmap' || usePutIndirect, npages),
      onOperation: (operation) => operations.push(operation),
    });
    for (const { event, line } of this.#events) reader.event(event, line);
    const liobns = new Set(operations.map(({ device }) => liobnOf(device)));
    const model = new GuestModel({
      pageSize,
      windows: [...liobns].map((liobn) => ({
        liobn,
        busOffset: 0n,
        pageShift: DEFAULT_PAGE_SHIFT,
        size: 2 ** 20,
      })),
      routeOf: (device) => this.routeOf(device),
      usePutIndirect,
      useStuff: true,
    });
    for (const operation of operations) {
      const { traced } = operation;
      const calls = model.plan(operation).steps.filter((step) => step.kind === 'call');
      const extra = Math.max(0, traced.length - calls.length);
      for (const { opcode } of traced.slice(0, extra)) keys.push(`${opcode}`);
      // A kernel that takes an unmap for a direct one makes no hypercall.
      if (this.#hasCalls && traced.length === 0) continue;
      for (const { call, opcode } of calls)
        keys.push(call === undefined ? `${opcode}` : callKey(call));
      if (keys.length >= KEYS) break;
    }
    return keys.slice(0, KEYS);
  }

  routeOf(device: string): DeviceRoute {
    return routeFrom(this.#devices.get(device), liobnOf(device));
  }
}

/** What the addresses of a device's maps say about its route. */
export function routeFrom(
  maps: { direct: ReadonlyMap<bigint, number>; other: number } | undefined,
  liobn: number,
): DeviceRoute {
  let offset = 0n;
  let count = 0;
  for (const [candidate, times] of maps?.direct ?? []) {
    if (times > count) [offset, count] = [candidate, times];
  }
  const isDirect = maps !== undefined && count > maps.other;
  return { kind: isDirect ? 'direct' : 'window', offset, liobn, isNeverUnmapped: false };
}

/**
 * The LIOBN of the default window of a device, from its name: a PCI device's domain is its host
 * bridge's index, a VIO device's name its unit address. [qemu v7.2 include/hw/ppc/spapr.h
 * SPAPR_PCI_LIOBN] [linux v6.1 arch/powerpc/kernel/pci-common.c get_phb_number]
 */
export function liobnOf(device: string): number {
  const pci = /^([0-9a-f]{4,8}):[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/.exec(device);
  if (pci !== null)
    return (0x8000_0000 | ((Number.parseInt(pci[1] as string, 16) & 0xff) << 8)) >>> 0;
  const vio = /^([0-9a-f]{1,8})$/.exec(device);
  return vio === null ? 0x8000_0000 : Number.parseInt(vio[1] as string, 16);
}

/** A default window of which the log has not seen the beginning. */
export function assumedWindow(liobn: number): Omit<ClearedWindow, 'line' | 'endCall'> {
  return { liobn, busOffset: 0n, size: DEFAULT_ENTRIES, isStuffed: true };
}

function releaseIn(message: string): string | undefined {
  return /\b(\d{1,2}\.\d{1,3}(?:\.\d{1,4})?(?:[-+.][\w.+~-]{1,64})?)\b/.exec(message)?.[1];
}
