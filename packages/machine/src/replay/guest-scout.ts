/** The first look at the guest's trace: its kernel, its devices, the hypercalls that it begins with. */
import type { TraceEvent } from '@pinhole/base';
import { type DeviceMaps, liobnOf, routeFrom } from './device-route.js';
import { callsFor, type DeviceRoute, GuestModel } from './guest-model.js';
import {
  DMA_MAPPING_ERROR,
  type GuestOperation,
  GuestOperationReader,
} from './guest-operations.js';
import { callKey, TCE_PAGE_SHIFT } from './tce-call.js';

/** Hypercalls of the guest's trace that are looked for in the log. */
const KEYS = 64;
/** Events of the guest's trace that are looked at. */
const MAX_EVENTS = 40_000;

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
  readonly devices: ReadonlyMap<string, DeviceMaps>;
  /** Devices whose first event is an allocation: all of their mappings are in the trace. */
  readonly whole: ReadonlySet<string>;
  /** The trace has an IOMMU domain's `map` and `unmap`. */
  readonly hasIommuRanges: boolean;
  /** `swiotlb_bounced` of a guest that bounces everything. */
  readonly isBounceForced: boolean;
  /** Undefined: nothing is bounced. */
  readonly bounce: BounceFacts | undefined;
}

/** What the first bounced buffers tell. */
export interface BounceFacts {
  /** Of the first mapping, and which CPU made it. */
  readonly first: bigint;
  readonly cpu: number;
  readonly lowest: bigint;
  /** It is the first that there was. */
  readonly isWhole: boolean;
}

/** A way in which the kernel may make its hypercalls, and where in the log they are found. */
export interface Candidate {
  readonly pageSize: number;
  readonly usePutIndirect: boolean;
  readonly keys: string[];
  best: { score: number; base: number; boot: number };
}

/** What the guest's trace tells. */
export class GuestScout {
  readonly #devices = new Map<string, DeviceMaps>();
  readonly #cpus = new Set<number>();
  #events: { event: TraceEvent; line: number }[] = [];
  readonly #direct: bigint[] = [];
  #seen = 0;
  #hasDma = false;
  #hasCalls = false;
  #hasMapPhys = false;
  #hasIommuRanges = false;
  #isBounceForced = false;
  #bounce: BounceFacts | undefined;
  /** The thread that the last `swiotlb_bounced` was of. */
  #bouncing: unknown;
  readonly #whole = new Map<string, boolean>();
  #release: string | undefined;

  get hasSeenEnough(): boolean {
    return this.#seen >= MAX_EVENTS;
  }

  /** The trace has hypercalls. */
  get hasCalls(): boolean {
    return this.#hasCalls;
  }

  event(event: TraceEvent, line: number): void {
    if (this.hasSeenEnough) return;
    this.#seen += 1;
    const { name, args } = event;
    if (name === 'hcall_entry') this.#hasCalls = true;
    else if (name.startsWith('dma_')) this.#hasDma = true;
    if (name === 'dma_map_phys') this.#hasMapPhys = true;
    if (name.startsWith('dma_map_')) this.#map(args);
    if (name.startsWith('dma_')) this.#see(name, String(args.device));
    else if (name === 'map' || name === 'unmap') this.#hasIommuRanges = true;
    else if (name === 'swiotlb_bounced') {
      this.#bouncing = args.pid;
      if (args.force === 'FORCE') this.#isBounceForced = true;
    }
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
      whole: new Set([...this.#whole].flatMap(([device, isWhole]) => (isWhole ? [device] : []))),
      hasIommuRanges: this.#hasIommuRanges,
      isBounceForced: this.#isBounceForced,
      bounce: this.#bounce,
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

  /** What the trace begins with. */
  get beginning(): readonly GuestOperation[] {
    const operations: GuestOperation[] = [];
    const reader = new GuestOperationReader({
      hasDmaEvents: true,
      callsFor: () => 0,
      onOperation: (operation) => operations.push(operation),
    });
    for (const { event, line } of this.#events) reader.event(event, line);
    return operations;
  }

  #see(name: string, device: string): void {
    if (this.#whole.has(device) || this.#whole.size >= 4096) return;
    this.#whole.set(device, name === 'dma_alloc');
  }

  #bounced(address: bigint, { cpu, device }: TraceEvent['args']): void {
    const { first, lowest } = this.#bounce ?? { first: address, lowest: address };
    this.#bounce = {
      first,
      cpu: this.#bounce?.cpu ?? Number(cpu ?? 0),
      lowest: address < lowest ? address : lowest,
      isWhole: this.#bounce?.isWhole ?? this.#whole.get(String(device)) === true,
    };
  }

  #map(args: TraceEvent['args']): void {
    const { device, dma_addr, phys_addr, pid } = args;
    if (typeof dma_addr !== 'bigint' || typeof phys_addr !== 'bigint') return;
    if (dma_addr === DMA_MAPPING_ERROR) return;
    const isBounced = this.#bouncing !== undefined && this.#bouncing === pid;
    this.#bouncing = undefined;
    if (isBounced) this.#bounced(dma_addr, args);
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
        pageShift: TCE_PAGE_SHIFT,
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

function releaseIn(message: string): string | undefined {
  return /\b(\d{1,2}\.\d{1,3}(?:\.\d{1,4})?(?:[-+.][\w.+~-]{1,64})?)\b/.exec(message)?.[1];
}
