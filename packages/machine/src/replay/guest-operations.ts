/**
 * The guest's trace, put together: which hypercalls belong to which mapping.
 */
import type { TraceEvent } from '@pinhole/base';
import { DmaDirection } from '@pinhole/memory';
import { arrayValues } from '@pinhole/trace';

/** The address of a mapping that failed. [linux v6.12 include/linux/dma-mapping.h DMA_MAPPING_ERROR] */
export const DMA_MAPPING_ERROR: bigint = 2n ** 64n - 1n;

/** A hypercall as the guest's trace shows it. */
export interface TracedCall {
  readonly opcode: number;
  /** Of `hcall_entry`. */
  readonly line: number;
  /** Undefined: the trace ends inside it. */
  ret: bigint | undefined;
  /** Of `hcall_exit`, or what happened instead: nothing. */
  exit: number | 'missing' | undefined;
}

/** A buffer for which the kernel looked for a bounce buffer: `swiotlb_bounced`. */
export interface BouncedBuffer {
  readonly line: number;
  readonly device: string;
  readonly mask: bigint;
  /** Where it would be on the bus without one. */
  readonly address: bigint;
  readonly size: number;
  /** Because the guest bounces everything, not because the device cannot reach it. */
  readonly isForced: boolean;
  readonly cpu: number;
}

/** What an IOMMU's domain mapped or unmapped: `map` and `unmap` of the guest's trace. */
export interface IommuRange {
  readonly kind: 'map' | 'unmap';
  readonly line: number;
  readonly iova: bigint;
  /** The address after it. */
  readonly end: bigint;
  readonly size: number;
  /** Of a map: physical address. */
  readonly gpa: bigint;
  /** Of an unmap: bytes that were mapped. */
  readonly unmapped: number;
  readonly cpu: number;
}

/**
 * What the guest did: mapped or unmapped a buffer, allocated or freed coherent memory, or made
 * hypercalls (`calls`) for a reason that its trace does not give.
 */
export interface GuestOperation {
  readonly kind: 'map' | 'unmap' | 'alloc' | 'free' | 'calls';
  /** Of the event that ends it. */
  readonly line: number;
  /** Of the first event that belongs to it. */
  readonly startLine: number;
  readonly cpu: number;
  /** 0 a task, 1 a softirq, 2 a hardirq: a higher one interrupts a lower one on the same CPU. */
  readonly level: number;
  /** What runs its operations one after the other. */
  readonly thread: string;
  /** As Linux names it: `0000:00:01.0`. Empty for `calls`. */
  readonly device: string;
  readonly direction: DmaDirection;
  readonly size: number;
  /** Physical address; undefined where the event does not have it. */
  readonly gpa: number | undefined;
  readonly dmaAddr: bigint;
  readonly traced: readonly TracedCall[];
  /** A further element of the scatter list of the operation before: part of the same line. */
  readonly isContinued?: boolean;
  /** Several elements that became one range: which hypercalls each had is not in the trace. */
  readonly isMerged?: boolean;
  /** Hypercalls before its own may be those of a scatter list that the trace does not have whole. */
  readonly isLoose?: boolean;
  /** Of an interrupt in the middle of a hypercall: Linux does not trace one inside another. */
  readonly isUntraced?: boolean;
  /** What its thread looked for a bounce buffer for, just before. */
  readonly bounced?: readonly BouncedBuffer[];
  /** Of coherent memory: the kernel's address. */
  readonly virtAddr?: bigint;
}

/** One range of a scatter list on the bus. */
interface Segment {
  readonly dmaAddr: bigint;
  readonly size: number;
  readonly gpa: number | undefined;
  readonly isMerged: boolean;
}

const KINDS: ReadonlyMap<string, GuestOperation['kind']> = new Map([
  ['dma_map_page', 'map'],
  ['dma_map_phys', 'map'],
  ['dma_unmap_page', 'unmap'],
  ['dma_unmap_phys', 'unmap'],
  ['dma_alloc', 'alloc'],
  ['dma_free', 'free'],
]);
const LEVELS: Readonly<Record<string, number>> = { task: 0, softirq: 1, hardirq: 2, nmi: 3 };
/** Hypercalls that wait for the event that explains them; more than any mapping makes. */
const MAX_PENDING = 65_536;
/** [linux v6.1 include/linux/threads.h PID_MAX_LIMIT] */
const PID_LIMIT = 2 ** 22;
/** Where the kernel's linear map begins. [linux v6.1 arch/powerpc/include/asm/page.h PAGE_OFFSET] */
const PAGE_OFFSET = 0xc000_0000_0000_0000n;

/** Options of {@link GuestOperationReader}. */
export interface GuestOperationReaderOptions {
  /** The trace has `dma_*` events (Linux 6.12 and later): they explain the hypercalls before them. */
  readonly hasDmaEvents: boolean;
  /** How many hypercalls the kernel makes to map or unmap as many TCEs. */
  callsFor(kind: 'map' | 'unmap', npages: number): number;
  onOperation(operation: GuestOperation): void;
  onIommuRange?(range: IommuRange): void;
}

/**
 * Puts a guest's trace together. A mapping's event comes after its hypercalls, on the same CPU, by
 * the same task or interrupt.
 */
export class GuestOperationReader {
  readonly #options: GuestOperationReaderOptions;
  readonly #pending = new Map<string, TracedCall[]>();
  readonly #who = new Map<number, Who>();
  /** Scatter lists that are mapped, by device and physical addresses. */
  readonly #lists = new Map<string, (readonly Segment[])[]>();
  /** The trace has `hcall_exit`, too. */
  #hasExits = false;
  /** Unmappings of scatter lists, by thread, until their hypercalls are all there. */
  readonly #unmapping = new Map<string, UnmappingList>();
  /** Threads with a `hcall_exit` of which the entry is missing. */
  readonly #stray = new Set<string>();
  /** Threads with hypercalls of a list that is not known. */
  readonly #loose = new Set<string>();
  /** By thread, until the mapping that they are for. */
  readonly #bounced = new Map<string, BouncedBuffer[]>();

  constructor(options: GuestOperationReaderOptions) {
    this.#options = options;
  }

  /** Takes the next event of the trace. */
  event(event: TraceEvent, line: number): void {
    const { name, args } = event;
    if (name === 'hcall_entry') this.#entry(event, line);
    else if (name === 'hcall_exit') this.#exit(event, line);
    else {
      const kind = KINDS.get(name);
      if (kind !== undefined) this.#dma(kind, args, line);
      else if (name === 'dma_map_sg') this.#mapSg(args, line);
      else if (name === 'dma_unmap_sg') this.#unmapSg(args, line);
      else if (name === 'swiotlb_bounced') this.#bounce(args, line);
      else if (name === 'map' || name === 'unmap') this.#range(name, args, line);
    }
  }

  /** Says that the trace is over: hypercalls that nothing explained come out. */
  end(): void {
    for (const thread of [...this.#unmapping.keys()]) this.#endUnmapSg(thread);
    for (const [thread, calls] of this.#pending) {
      if (calls.length > 0) this.#emitCalls(thread, calls);
    }
    this.#pending.clear();
  }

  #entry({ args }: TraceEvent, line: number): void {
    const { thread } = this.#whoOf(args);
    const calls = this.#pending.get(thread) ?? [];
    // One thread makes one hypercall at a time.
    const last = calls.at(-1);
    if (this.#hasExits && last !== undefined) last.exit ??= 'missing';
    calls.push({ opcode: Number(args.opcode), line, ret: undefined, exit: undefined });
    this.#pending.set(thread, calls);
    if (calls.length > MAX_PENDING) this.#emitCalls(thread, calls.splice(0));
  }

  #exit({ args }: TraceEvent, line: number): void {
    const { thread } = this.#whoOf(args);
    const calls = this.#pending.get(thread);
    const last = calls?.at(-1);
    // The trace began inside this hypercall.
    if (calls === undefined || last === undefined || last.exit !== undefined) {
      if (this.#hasExits) this.#stray.add(thread);
      return;
    }
    this.#hasExits = true;
    last.ret = args.retval as bigint;
    last.exit = Number(args.opcode);
    if (this.#options.hasDmaEvents) {
      const unmapping = this.#unmapping.get(thread);
      if (unmapping === undefined) return;
      unmapping.line = line;
      unmapping.calls -= 1;
      if (unmapping.calls <= 0) this.#endUnmapSg(thread);
      return;
    }
    this.#pending.delete(thread);
    this.#emitCalls(thread, calls, line);
  }

  #dma(kind: GuestOperation['kind'], args: TraceEvent['args'], line: number): void {
    const { thread, cpu, level } = this.#whoOf(args);
    this.#endUnmapSg(thread);
    const traced = this.#take(thread);
    const operation: GuestOperation = {
      kind,
      line,
      startLine: traced[0]?.line ?? line,
      cpu,
      level,
      thread,
      device: String(args.device),
      direction: directionOf(args),
      size: Number(args.size),
      gpa: physicalOf(args),
      dmaAddr: args.dma_addr as bigint,
      traced,
      isLoose: this.#loose.delete(thread),
      // [linux v6.1 arch/powerpc/platforms/pseries/lpar.c hcall_trace_depth]
      isUntraced: !this.#stray.delete(thread) && traced.length === 0 && level > 0,
    };
    // Only some have these: others are not copied.
    const hasMore = this.#bounced.size > 0 || args.virt_addr !== undefined;
    this.#options.onOperation(
      hasMore ? { ...operation, ...this.#takeBounced(thread), ...virtualOf(args) } : operation,
    );
  }

  #bounce(args: TraceEvent['args'], line: number): void {
    const { thread } = this.#whoOf(args);
    const buffers = this.#bounced.get(thread) ?? [];
    if (buffers.length >= MAX_PENDING) return;
    buffers.push({
      line,
      device: String(args.dev_name),
      mask: args.dma_mask as bigint,
      address: args.dev_addr as bigint,
      size: Number(args.size),
      isForced: args.force === 'FORCE',
      cpu: Number(args.cpu ?? 0),
    });
    this.#bounced.set(thread, buffers);
  }

  #takeBounced(thread: string): Pick<GuestOperation, 'bounced'> {
    const bounced = this.#bounced.get(thread);
    if (bounced === undefined) return {};
    this.#bounced.delete(thread);
    return { bounced };
  }

  // Older kernels do not print where a range ends.
  #range(kind: 'map' | 'unmap', args: TraceEvent['args'], line: number): void {
    const [iova, size] = [args.iova as bigint, Number(args.size)];
    this.#options.onIommuRange?.({
      kind,
      line,
      iova,
      end: typeof args.end === 'bigint' ? args.end : iova + BigInt(size),
      size,
      gpa: typeof args.paddr === 'bigint' ? args.paddr : 0n,
      unmapped: Number(args.unmapped_size ?? size),
      cpu: Number(args.cpu ?? 0),
    });
  }

  #take(thread: string): TracedCall[] {
    const traced = this.#pending.get(thread) ?? [];
    this.#pending.delete(thread);
    const last = traced.at(-1);
    if (this.#hasExits && last !== undefined) last.exit ??= 'missing';
    return traced;
  }

  // A scatter list is mapped element by element; its event comes after all of their hypercalls.
  #mapSg(args: TraceEvent['args'], line: number): void {
    const who = this.#whoOf(args);
    this.#endUnmapSg(who.thread);
    const segments = segmentsOf(args);
    if (segments === undefined) {
      this.#loose.add(who.thread);
      return;
    }
    this.#remember(args, segments);
    const calls = segments.map((segment) => this.#callsFor('map', segment));
    this.#emitList('map', args, who, segments, calls, line);
  }

  // The event of its unmapping comes first, and does not have the addresses.
  #unmapSg(args: TraceEvent['args'], line: number): void {
    const { thread } = this.#whoOf(args);
    this.#endUnmapSg(thread);
    const segments = this.#recall(args);
    if (segments === undefined) {
      this.#loose.add(thread);
      return;
    }
    const before = this.#take(thread);
    if (before.length > 0) this.#emitCalls(thread, before);
    const calls = segments.reduce((sum, segment) => sum + this.#callsFor('unmap', segment), 0);
    this.#unmapping.set(thread, { args, segments, calls, line });
  }

  #endUnmapSg(thread: string): void {
    const unmapping = this.#unmapping.get(thread);
    if (unmapping === undefined) return;
    this.#unmapping.delete(thread);
    const { args, segments, line } = unmapping;
    const calls = segments.map((segment) => this.#callsFor('unmap', segment));
    this.#emitList('unmap', args, this.#whoOf(args), segments, calls, line);
  }

  #emitList(
    kind: 'map' | 'unmap',
    args: TraceEvent['args'],
    { thread, cpu, level }: Who,
    segments: readonly Segment[],
    calls: readonly number[],
    line: number,
  ): void {
    const traced = this.#take(thread);
    const startLine = traced[0]?.line ?? line;
    const own = calls.reduce((sum, count) => sum + count, 0);
    let at = Math.max(0, traced.length - own);
    const { bounced } = this.#takeBounced(thread);
    const isEach = bounced?.length === segments.length;
    segments.forEach(({ dmaAddr, size, gpa, isMerged }, i) => {
      const first = i === 0 ? 0 : at;
      // Of a merged one, nobody knows how many there were.
      at = segments.length === 1 ? traced.length : at + (calls[i] as number);
      this.#options.onOperation({
        kind,
        line,
        startLine,
        cpu,
        level,
        thread,
        device: String(args.device),
        direction: directionOf(args),
        size,
        gpa,
        dmaAddr,
        traced: traced.slice(first, i === segments.length - 1 ? traced.length : at),
        isContinued: i > 0,
        isMerged,
        ...(bounced === undefined ? {} : { bounced: isEach ? bounced.slice(i, i + 1) : bounced }),
      });
    });
  }

  #callsFor(kind: 'map' | 'unmap', { dmaAddr, size }: Segment): number {
    return this.#options.callsFor(kind, Math.ceil((Number(dmaAddr & 0xfffn) + size) / 4096));
  }

  #remember(args: TraceEvent['args'], segments: readonly Segment[]): void {
    const key = `${args.device} ${args.phys_addrs}`;
    const known = this.#lists.get(key);
    if (known !== undefined) known.push(segments);
    else if (this.#lists.size < MAX_PENDING) this.#lists.set(key, [segments]);
  }

  #recall(args: TraceEvent['args']): readonly Segment[] | undefined {
    const key = `${args.device} ${args.phys_addrs}`;
    const known = this.#lists.get(key);
    const segments = known?.shift();
    if (known?.length === 0) this.#lists.delete(key);
    return segments;
  }

  // An interrupt runs to its end before its CPU does anything else of its kind; tasks take turns.
  #whoOf(args: TraceEvent['args']): Who {
    const cpu = Number(args.cpu ?? 0);
    const level = LEVELS[String(args.context)] ?? 0;
    const pid = level > 0 ? 0 : Number(args.pid ?? 0);
    const key = (cpu * 4 + level) * PID_LIMIT + (pid % PID_LIMIT);
    const known = this.#who.get(key);
    if (known !== undefined) return known;
    if (this.#who.size >= MAX_PENDING) this.#who.clear();
    const who = { thread: level > 0 ? `${cpu}/${level}` : `${cpu}/0/${pid}`, cpu, level };
    this.#who.set(key, who);
    return who;
  }

  #emitCalls(thread: string, traced: readonly TracedCall[], line?: number): void {
    const [cpu = '0', level = '0'] = thread.split('/');
    for (const call of traced) {
      this.#options.onOperation(callsOperation(call, Number(cpu), Number(level), thread, line));
    }
  }
}

/** Hypercalls without a reason, as an operation. */
export function callsOperation(
  call: TracedCall,
  cpu: number,
  level: number,
  thread: string,
  line: number = call.line,
): GuestOperation {
  return {
    kind: 'calls',
    line,
    startLine: call.line,
    cpu,
    level,
    thread,
    device: '',
    direction: DmaDirection.BIDIRECTIONAL,
    size: 0,
    gpa: undefined,
    dmaAddr: 0n,
    traced: [call],
  };
}

interface UnmappingList {
  readonly args: TraceEvent['args'];
  readonly segments: readonly Segment[];
  /** Hypercalls that are still to come. */
  calls: number;
  /** Of the last one. */
  line: number;
}

interface Who {
  readonly thread: string;
  readonly cpu: number;
  readonly level: number;
}

function directionOf({ dir }: TraceEvent['args']): DmaDirection {
  return DmaDirection[dir as keyof typeof DmaDirection] ?? DmaDirection.BIDIRECTIONAL;
}

// The ranges of a list; undefined where the event does not have all of them.
function segmentsOf(args: TraceEvent['args']): Segment[] | undefined {
  const [addresses, sizes, physical] = [args.dma_addrs, args.sizes, args.phys_addrs].map((text) =>
    arrayValues(String(text)),
  );
  if (addresses === undefined || sizes === undefined || physical === undefined) return undefined;
  if (addresses.length === 0 || addresses.length !== sizes.length) return undefined;
  if ('truncated' in args) return undefined;
  const isMerged = physical.length !== addresses.length;
  return addresses.map((dmaAddr, i) => ({
    dmaAddr,
    size: Number(sizes[i]),
    gpa: isMerged ? undefined : safe(physical[i] as bigint),
    isMerged,
  }));
}

function virtualOf({ virt_addr }: TraceEvent['args']): Pick<GuestOperation, 'virtAddr'> {
  if (typeof virt_addr !== 'string' || !/^[0-9a-f]{1,16}$/.test(virt_addr)) return {};
  return { virtAddr: BigInt(`0x${virt_addr}`) };
}

function physicalOf(args: TraceEvent['args']): number | undefined {
  const { phys_addr } = args;
  if (typeof phys_addr === 'bigint') return safe(phys_addr);
  const { virtAddr } = virtualOf(args);
  return virtAddr === undefined || virtAddr < PAGE_OFFSET
    ? undefined
    : safe(virtAddr - PAGE_OFFSET);
}

function safe(address: bigint): number | undefined {
  return address <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(address) : undefined;
}
