/**
 * The guest's trace, put together: which hypercalls belong to which mapping.
 */
import type { TraceEvent } from '@pinhole/base';
import { DmaDirection } from '@pinhole/memory';

/** The address of a mapping that failed. [linux v6.12 include/linux/dma-mapping.h DMA_MAPPING_ERROR] */
export const DMA_MAPPING_ERROR: bigint = 2n ** 64n - 1n;

/** A hypercall as the guest's trace shows it. */
export interface TracedCall {
  readonly opcode: number;
  /** Of `hcall_entry`. */
  readonly line: number;
  /** Undefined: the trace ends inside it. */
  ret: bigint | undefined;
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
  onOperation(operation: GuestOperation): void;
}

/**
 * Puts a guest's trace together. A mapping's event comes after its hypercalls, on the same CPU, by
 * the same task or interrupt.
 */
export class GuestOperationReader {
  readonly #options: GuestOperationReaderOptions;
  readonly #pending = new Map<string, TracedCall[]>();
  readonly #who = new Map<number, Who>();

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
    }
  }

  /** Says that the trace is over: hypercalls that nothing explained come out. */
  end(): void {
    for (const [thread, calls] of this.#pending) {
      if (calls.length > 0) this.#emitCalls(thread, calls);
    }
    this.#pending.clear();
  }

  #entry({ args }: TraceEvent, line: number): void {
    const { thread } = this.#whoOf(args);
    const calls = this.#pending.get(thread) ?? [];
    calls.push({ opcode: Number(args.opcode), line, ret: undefined });
    this.#pending.set(thread, calls);
    if (calls.length > MAX_PENDING) this.#emitCalls(thread, calls.splice(0));
  }

  #exit({ args }: TraceEvent, line: number): void {
    const { thread } = this.#whoOf(args);
    const calls = this.#pending.get(thread);
    const last = calls?.findLast(({ ret }) => ret === undefined);
    // The trace began inside this hypercall.
    if (calls === undefined || last === undefined) return;
    last.ret = args.retval as bigint;
    if (this.#options.hasDmaEvents) return;
    this.#pending.delete(thread);
    this.#emitCalls(thread, calls, line);
  }

  #dma(kind: GuestOperation['kind'], args: TraceEvent['args'], line: number): void {
    const { thread, cpu, level } = this.#whoOf(args);
    const traced = this.#pending.get(thread) ?? [];
    this.#pending.delete(thread);
    this.#options.onOperation({
      kind,
      line,
      startLine: traced[0]?.line ?? line,
      cpu,
      level,
      thread,
      device: String(args.device),
      direction: DmaDirection[args.dir as keyof typeof DmaDirection] ?? DmaDirection.BIDIRECTIONAL,
      size: Number(args.size),
      gpa: physicalOf(args),
      dmaAddr: args.dma_addr as bigint,
      traced,
    });
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

interface Who {
  readonly thread: string;
  readonly cpu: number;
  readonly level: number;
}

function physicalOf({ phys_addr, virt_addr }: TraceEvent['args']): number | undefined {
  if (typeof phys_addr === 'bigint') return safe(phys_addr);
  if (typeof virt_addr !== 'string' || !/^[0-9a-f]{1,16}$/.test(virt_addr)) return undefined;
  const address = BigInt(`0x${virt_addr}`);
  return address < PAGE_OFFSET ? undefined : safe(address - PAGE_OFFSET);
}

function safe(address: bigint): number | undefined {
  return address <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(address) : undefined;
}
