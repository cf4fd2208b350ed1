/**
 * The first look at a recorded run: which kernel, which windows, and where in QEMU's log the
 * guest's trace begins.
 */
import type { TraceEvent } from '@pinhole/base';
import { H_PUT_TCE_INDIRECT, H_STUFF_TCE } from '@pinhole/hcall';
import { type Candidate, type GuestFacts, GuestScout } from './guest-scout.js';
import { type RequestFacts, RequestScout } from './request-scout.js';
import {
  callKey,
  type LoggedCall,
  log2,
  loggedCall,
  TCE_CALL_MAX,
  TCE_PAGE_SHIFT,
} from './tce-call.js';

const MAX_BOOTS = 4096;
/** A window's clearing has at least this many hypercalls, or begins at bus address 0. */
const MIN_CLEAR_CALLS = 16;

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
interface ClearedWindow {
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
  /** Of machines without TCE windows: which requests of the log the guest's trace begins with. */
  readonly requests: RequestFacts;
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
  readonly #requests = new RequestScout();
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
    // Where hypercalls tell, nothing else is needed.
    const requests = this.#guest.hasCalls ? [] : RequestScout.events;
    return [...HYPERVISOR_EVENTS, ...others, ...requests];
  }

  guestEvent(event: TraceEvent, line: number): void {
    this.#guest.event(event, line);
  }

  /** After the guest's events. */
  qemuEvent(event: TraceEvent, line: number): void {
    const { name, args } = event;
    if (!name.startsWith('spapr_')) {
      this.#requests.event(event);
      return;
    }
    if (name === 'spapr_iommu_new_table' && this.#calls === 0) this.#hasPowerOn = true;
    if (name.startsWith('spapr_iommu_ddw_')) this.#endClears();
    if (name === 'spapr_iommu_ddw_query') this.#boot.queries.push(line);
    else if (name === 'spapr_iommu_ddw_create') this.#create(args, line);
    else if (name === 'spapr_iommu_xlate') this.#access(args);
    const call = loggedCall(event, line, (liobn) => this.#pageShifts.get(liobn) ?? TCE_PAGE_SHIFT);
    if (call === undefined) return;
    this.#calls += 1;
    this.#clear(call);
    this.#align(call);
  }

  facts(): RunFacts {
    this.#endClears();
    const guest = this.#guest.facts();
    return {
      guest,
      requests: this.#requests.facts(guest, () => this.#guest.beginning),
      boots: this.#boots,
      calls: this.#calls,
      hasPowerOn: this.#hasPowerOn,
      // Without hypercalls on either side there is nothing to look for.
      alignment: this.#calls === 0 && !this.#guest.hasCalls ? undefined : this.#alignment(),
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
    const pageShift = log2(args.pg_size as bigint);
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
      known.next += BigInt(call.npages) << BigInt(TCE_PAGE_SHIFT);
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
      next: call.ioba + (BigInt(call.npages) << BigInt(TCE_PAGE_SHIFT)),
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
