/**
 * Makes up what several CPUs did at once: the kernel's own allocator, its steps interleaved at
 * random, and the two logs that such a run would leave. The truth, for tests of the replay.
 */
import { createRng, NO_TRACE, type Rng, type TraceEvent } from '@pinhole/base';
import { IommuTable, iommuMapping, iommuPagesTouched, TceCalls } from '@pinhole/guest';
import { DmaDirection } from '@pinhole/memory';
import { GuestModel, type GuestWindow } from '../src/replay/guest-model.js';
import { DMA_MAPPING_ERROR, GuestOperationReader } from '../src/replay/guest-operations.js';
import { GuestReplay, type GuestReplayResult } from '../src/replay/guest-replay.js';
import { CallRecorder, type LoggedCall } from '../src/replay/tce-call.js';

/** What the run is like. */
export interface ConcurrentRunOptions {
  readonly seed: number;
  readonly cpus: number;
  /** Entries of the window. */
  readonly entries: number;
  /** Maps and unmaps. */
  readonly operations: number;
  /** Interrupts and softirqs map and unmap, too, in the middle of what they interrupt. */
  readonly hasInterrupts?: boolean;
  /** Tasks on one CPU take turns in the middle of a mapping. */
  readonly isPreemptible?: boolean;
  /** Lines of different CPUs that stand next to each other may be in the wrong order. */
  readonly hasSkew?: boolean;
  /** The largest mapping, in pages. Default 8. */
  readonly maxPages?: number;
  /** Distinct pages that are mapped. Default 4096. */
  readonly pages?: number;
  /** How full the window gets, 0 to 1. Default 0.7. */
  readonly fill?: number;
}

/** Both logs, and what they hold. */
export interface ConcurrentRun {
  readonly window: GuestWindow;
  readonly guest: readonly TraceEvent[];
  readonly calls: readonly LoggedCall[];
  readonly maps: number;
  readonly unmaps: number;
  readonly failedMaps: number;
}

const PAGE = 4096;
const DEVICE = '0000:00:00.0';
const LEVELS = ['task', 'softirq', 'hardirq'] as const;
const DIRECTIONS = [
  DmaDirection.TO_DEVICE,
  DmaDirection.FROM_DEVICE,
  DmaDirection.BIDIRECTIONAL,
] as const;

interface Held {
  readonly dmaAddr: bigint;
  readonly size: number;
  readonly direction: DmaDirection;
}

/** The kernel does one thing after the other; others may act between any two. */
type Activity = Generator<undefined, void>;

interface Context {
  readonly level: number;
  readonly pid: number;
  activity: Activity | undefined;
}

class Guest {
  readonly window: GuestWindow;
  readonly guest: TraceEvent[] = [];
  readonly calls: LoggedCall[] = [];
  maps = 0;
  unmaps = 0;
  failedMaps = 0;
  readonly #options: ConcurrentRunOptions;
  readonly #rng: Rng;
  readonly #table: IommuTable;
  readonly #recorder = new CallRecorder();
  readonly #tceCalls: TceCalls;
  readonly #held: Held[] = [];
  #pages = 0;
  #tasks = 0;

  constructor(options: ConcurrentRunOptions) {
    this.#options = options;
    this.#rng = createRng(options.seed);
    this.window = { liobn: 0x8000_0000, busOffset: 0n, pageShift: 12, size: options.entries };
    this.#table = new IommuTable(this.window);
    this.#tceCalls = new TceCalls({
      hypercalls: this.#recorder,
      memory: this.#recorder.memory,
      listPage: this.#recorder.listPage,
      usePutIndirect: true,
      useStuff: true,
      tracer: NO_TRACE,
    });
  }

  run(): void {
    const { cpus, operations, hasInterrupts = false } = this.#options;
    const stacks = Array.from({ length: cpus }, (_, cpu): Context[] => [this.#task(cpu)]);
    const isOver = (): boolean => this.maps + this.unmaps >= operations;
    for (;;) {
      const busy = stacks.flatMap((stack, cpu) =>
        isOver() && stack.length === 1 && stack[0]?.activity === undefined ? [] : [cpu],
      );
      if (busy.length === 0) return;
      const cpu = busy[this.#rng.below(busy.length)] as number;
      const stack = stacks[cpu] as Context[];
      let top = stack.at(-1) as Context;
      if (hasInterrupts && !isOver() && top.level < 2 && this.#chance(0.1)) {
        const level = top.level + 1 + this.#rng.below(2 - top.level);
        top = { level, pid: top.pid, activity: undefined };
        stack.push(top);
      }
      if (top.activity === undefined && !isOver()) top.activity = this.#operation(cpu, top);
      if (top.activity?.next().done !== false) {
        top.activity = undefined;
        if (stack.length > 1) {
          if (isOver() || this.#chance(0.5)) stack.pop();
        } else if (stack[0] === top) stack[0] = this.#task(cpu);
      } else if (stack.length === 1 && this.#options.isPreemptible === true && this.#chance(0.05)) {
        // Another task goes on; this one is taken up again when that has done its operation.
        const other = { level: 0, pid: 1000 + this.#tasks, activity: undefined };
        this.#tasks += 1;
        const rest = top;
        stack[0] = {
          ...other,
          activity: chain(this.#operation(cpu, other), () => {
            stack[0] = rest;
          }),
        };
      }
    }
  }

  #task(cpu: number): Context {
    return { level: 0, pid: 100 + cpu * 10 + this.#rng.below(3), activity: undefined };
  }

  #chance(probability: number): boolean {
    return this.#rng.below(1000) < probability * 1000;
  }

  *#operation(cpu: number, context: Context): Activity {
    const { entries, fill = 0.7 } = this.#options;
    const isFull = this.#pages > fill * entries;
    const isUnmap = this.#held.length > 0 && this.#chance(isFull ? 0.9 : 0.45);
    yield* isUnmap ? this.#unmap(cpu, context) : this.#map(cpu, context);
  }

  *#map(cpu: number, context: Context): Activity {
    this.maps += 1;
    const { maxPages = 8, pages = 4096 } = this.#options;
    const size = 1 + this.#rng.below(this.#chance(0.5) ? PAGE : maxPages * PAGE);
    const offset = this.#chance(0.5) ? 0 : this.#rng.below(PAGE / 16) * 16;
    const gpa = (0x100 + this.#rng.below(pages)) * PAGE + offset;
    const direction = DIRECTIONS[this.#rng.below(3)] as DmaDirection;
    const { npages, alignOrder } = iommuMapping(gpa, size, PAGE, 12);
    yield undefined;
    const entry = this.#table.alloc(npages, alignOrder, cpu);
    let dmaAddr = DMA_MAPPING_ERROR;
    if (entry >= 0) {
      this.#tceCalls.build(this.window, entry, npages, gpa, direction);
      yield* this.#make(cpu, context);
      dmaAddr = BigInt(entry * PAGE + offset);
      this.#pages += npages;
    } else this.failedMaps += 1;
    yield undefined;
    this.#emit('dma_map_page', cpu, context, {
      device: DEVICE,
      dir: nameOf(direction),
      dma_addr: dmaAddr,
      size: BigInt(size),
      phys_addr: BigInt(gpa),
      attrs: '',
    });
    yield undefined;
    if (entry >= 0) this.#held.push({ dmaAddr, size, direction });
  }

  *#unmap(cpu: number, context: Context): Activity {
    this.unmaps += 1;
    const [held] = this.#held.splice(this.#rng.below(this.#held.length), 1);
    const { dmaAddr, size, direction } = held as Held;
    const npages = iommuPagesTouched(Number(dmaAddr & 0xfffn), size, 12);
    const entry = Number(dmaAddr >> 12n);
    yield undefined;
    this.#tceCalls.free(this.window, entry, npages);
    yield* this.#make(cpu, context);
    this.#table.free(entry, npages);
    this.#pages -= npages;
    yield undefined;
    this.#emit('dma_unmap_page', cpu, context, {
      device: DEVICE,
      dir: nameOf(direction),
      dma_addr: dmaAddr,
      size: BigInt(size),
      attrs: '',
    });
  }

  *#make(cpu: number, context: Context): Activity {
    for (const call of this.#recorder.take()) {
      yield undefined;
      this.#emit('hcall_entry', cpu, context, { opcode: BigInt(call.opcode) });
      yield undefined;
      this.calls.push({ ...call, line: this.calls.length + 1, ret: 0n });
      yield undefined;
      this.#emit('hcall_exit', cpu, context, { opcode: BigInt(call.opcode), retval: 0n });
      yield undefined;
    }
  }

  #emit(name: string, cpu: number, { level, pid }: Context, args: TraceEvent['args']): void {
    const context = LEVELS[level] as string;
    const event = { t: 0, actor: 'guest', name, args: { ...args, cpu, pid, context } };
    const last = this.guest.at(-1);
    if (
      this.#options.hasSkew === true &&
      last !== undefined &&
      last.args.cpu !== cpu &&
      last.args.dma_addr !== args.dma_addr &&
      this.#chance(0.3)
    ) {
      this.guest.splice(-1, 0, event);
    } else this.guest.push(event);
  }
}

function* chain(activity: Activity, after: () => void): Activity {
  yield* activity;
  after();
}

function nameOf(direction: DmaDirection): string {
  return Object.entries(DmaDirection).find(([, value]) => value === direction)?.[0] ?? '';
}

/** Makes up a run. */
export function makeConcurrentRun(options: ConcurrentRunOptions): ConcurrentRun {
  const run = new Guest(options);
  run.run();
  return run;
}

/** Replays the two logs, each read as far as the replay wants it. */
export function replayConcurrentRun({ window, guest, calls }: ConcurrentRun): GuestReplayResult {
  const model = new GuestModel({
    pageSize: PAGE,
    windows: [window],
    routeOf: () => ({
      kind: 'window',
      offset: 0n,
      liobn: window.liobn,
      isNeverUnmapped: false,
    }),
    usePutIndirect: true,
    useStuff: true,
  });
  const replay = new GuestReplay({ model, hasCallEvents: true, keep: 5 });
  const reader = new GuestOperationReader({
    hasDmaEvents: true,
    callsFor: (kind, npages) => model.callsFor(kind, npages),
    onOperation: (operation) => replay.operation(operation),
  });
  let nextCall = 0;
  let nextEvent = 0;
  for (let wants = replay.wants; wants !== undefined; wants = replay.wants) {
    if (wants === 'calls') {
      const call = calls[nextCall++];
      if (call === undefined) replay.endCalls();
      else replay.call(call);
    } else {
      const event = guest[nextEvent++];
      if (event === undefined) {
        reader.end();
        replay.endOperations();
      } else reader.event(event, nextEvent);
    }
  }
  return replay.result();
}
