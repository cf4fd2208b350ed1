/**
 * Finds an order of allocations and frees that both logs allow.
 *
 * On one CPU an allocation comes right before its hypercalls and a free right after them. On
 * several, other CPUs act in between, and neither log says when: the guest's trace orders what one
 * task or interrupt did, QEMU's log orders the hypercalls of all. Each thread is a list of steps
 * (allocate, hypercall, free); hypercalls happen in QEMU's order; everything else may happen
 * whenever its thread has come to it. The order is right if the kernel's allocator, run in it, gives
 * every address that the guest recorded.
 *
 * It goes forward with the likeliest order (allocate just before, free just after the hypercall).
 * Where an address does not come out, it goes back a few steps and tries others, nearest first.
 */
import type { IommuTable } from '@pinhole/guest';
import type { GuestOperation } from './guest-operations.js';
import { isSameCall, type LoggedCall, type TceCall } from './tce-call.js';

/** Entries are taken. */
interface AllocStep {
  readonly kind: 'alloc';
  readonly operation: GuestOperation;
  readonly table: IommuTable;
  readonly npages: number;
  readonly alignOrder: number;
  /** Where the element of a scatter list before this one ended. */
  readonly handle?: number | undefined;
  /** The entry that the guest recorded; -1: it found no room. */
  entry: number;
}

/** A hypercall is made. `call` is undefined where only its opcode is known. */
interface CallStep {
  readonly kind: 'call';
  readonly operation: GuestOperation;
  readonly opcode: number;
  call: TceCall | undefined;
  /** What the guest's trace says that it returned. */
  ret: bigint | undefined;
  /** Of an unmapping: the last hypercall of what it unmaps, which has to happen before. */
  after: CallStep | undefined;
  hasHappened: boolean;
}

/** Entries are given back. */
interface FreeStep {
  readonly kind: 'free';
  readonly operation: GuestOperation;
  readonly table: IommuTable;
  readonly npages: number;
  entry: number;
}

/** What a thread does next. */
export type Step = AllocStep | CallStep | FreeStep;
export type { AllocStep, CallStep };

/** Makes the step of a hypercall. */
export function callStep(operation: GuestOperation, opcode: number, call?: TceCall): CallStep {
  return {
    kind: 'call',
    operation,
    opcode,
    call,
    ret: undefined,
    after: undefined,
    hasHappened: false,
  };
}

interface Thread {
  readonly id: number;
  readonly name: string;
  readonly steps: Step[];
  /** The first step that has not happened. */
  next: number;
  /** Steps that were forgotten since they can no longer be undone. */
  dropped: number;
}

/** A step that happened, and how to undo it. */
interface Done {
  readonly thread: Thread;
  readonly step: Step;
  /** Of its table, before; undefined where it changed nothing. */
  readonly hints: readonly number[] | undefined;
}

/** A free leaves the hints as they are. */
const FREED: readonly number[] = [];
/** Steps that can be undone. */
const TRAIL = 512;
/** How far back a search goes, tried one after the other. */
const DEPTHS = [12, 48, 160, 400];
/** Nodes of one search. */
const BUDGET = 30_000;

/** How a search ended. */
export interface SearchCounts {
  /** Searches that found an order. */
  found: number;
  /** Searches that found none. */
  failed: number;
  /** Nodes visited in all. */
  nodes: number;
}

/** The steps of all threads, and the hypercalls in QEMU's order. */
export class AllocationOrder {
  readonly searches: SearchCounts = { found: 0, failed: 0, nodes: 0 };
  readonly #threads = new Map<string, Thread>();
  readonly #calls: LoggedCall[] = [];
  /** Hypercalls of QEMU's log that happened, of those in `#calls`. */
  #happened = 0;
  #trail: Done[] = [];
  #nextId = 0;
  #waiting = 0;

  /** Steps that have not happened. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Hypercalls of QEMU's log that have not happened. */
  get callsWaiting(): number {
    return this.#calls.length - this.#happened;
  }

  /** The next hypercall of QEMU's log, or one further on. */
  peekCall(ahead = 0): LoggedCall | undefined {
    return this.#calls[this.#happened + ahead];
  }

  pushCall(call: LoggedCall): void {
    this.#calls.push(call);
  }

  /** Adds what a thread did next. */
  pushSteps(name: string, steps: readonly Step[]): void {
    let thread = this.#threads.get(name);
    if (thread === undefined) {
      thread = { id: this.#nextId, name, steps: [], next: 0, dropped: 0 };
      this.#nextId += 1;
      this.#threads.set(name, thread);
    }
    thread.steps.push(...steps);
    this.#waiting += steps.length;
  }

  /** The threads' next hypercalls, each with the thread it belongs to. */
  *pendingCalls(): Generator<{ readonly thread: string; readonly step: CallStep }> {
    for (const thread of this.#threads.values()) {
      const step = nextCall(thread);
      if (step !== undefined) yield { thread: thread.name, step };
    }
  }

  /** The thread's steps from its next one on, at most `count`. */
  upcoming(name: string, count: number): readonly Step[] {
    const thread = this.#threads.get(name);
    return thread === undefined ? [] : thread.steps.slice(thread.next, thread.next + count);
  }

  /**
   * Lets the next hypercall of QEMU's log happen as this thread's next one, after what the thread
   * does before it. Returns the step for which no order was found, if any; it has not happened.
   */
  happen(name: string): AllocStep | undefined {
    const thread = this.#threads.get(name) as Thread;
    const call = nextCall(thread) as CallStep;
    this.#settle(call.operation.startLine);
    for (;;) {
      const step = thread.steps[thread.next] as Step;
      if (step === call) break;
      if (this.#try(thread)) continue;
      if (!this.#search(thread, thread.steps.indexOf(call) + 1)) return step as AllocStep;
      // A search that found an order made the call happen, too.
      break;
    }
    if (thread.steps[thread.next] === call) this.#make(thread);
    while (thread.steps[thread.next]?.kind === 'free') this.#try(thread);
    this.#forget();
    return undefined;
  }

  /** Lets a thread's next step happen that is not a hypercall; false: its address does not fit. */
  happenAlone(name: string): boolean {
    const thread = this.#threads.get(name);
    if (thread === undefined || thread.next >= thread.steps.length) return true;
    if (thread.steps[thread.next]?.kind === 'call') return true;
    return this.#try(thread);
  }

  /**
   * Takes a thread's next step for done without doing it. Nothing before it can be undone any more.
   */
  skip(name: string): void {
    const thread = this.#threads.get(name) as Thread;
    const step = thread.steps[thread.next];
    if (step?.kind === 'call') step.hasHappened = true;
    thread.next += 1;
    this.#waiting -= 1;
    this.commit();
  }

  /** Takes the next hypercall of QEMU's log for one that no thread made. */
  skipCall(): void {
    this.#happened += 1;
    this.commit();
  }

  /** What happened is not undone any more: the tables were changed by somebody else. */
  commit(): void {
    this.#trail = [];
    this.#drop();
  }

  /** Steps that wait, in no hypercall's way: what threads did after their last hypercall. */
  *tails(): Generator<{ readonly thread: string; readonly step: Step }> {
    for (const thread of this.#threads.values()) {
      const step = thread.steps[thread.next];
      if (step !== undefined) yield { thread: thread.name, step };
    }
  }

  // What the guest's trace shows before this line, in other threads, has likely happened.
  #settle(line: number): void {
    for (const thread of this.#threads.values()) {
      for (;;) {
        const step = thread.steps[thread.next];
        if (step === undefined || step.kind === 'call' || step.operation.line >= line) break;
        if (step.kind === 'alloc' && step.entry >= 0) break;
        if (!this.#try(thread)) break;
      }
    }
  }

  // The thread's next step happens, unless it is an allocation that gives another address.
  #try(thread: Thread): boolean {
    const step = thread.steps[thread.next] as AllocStep | FreeStep;
    const { table } = step;
    if (step.kind === 'alloc') {
      const { hints } = table;
      const { handle } = step;
      const options = handle === undefined ? {} : { handle };
      const got = table.alloc(step.npages, step.alignOrder, step.operation.cpu, options);
      if (got !== step.entry) {
        if (got >= 0) table.free(got, step.npages);
        table.hints = hints;
        return false;
      }
      this.#advance(thread, step, hints);
    } else if (table.isTaken(step.entry, step.npages)) {
      table.free(step.entry, step.npages);
      this.#advance(thread, step, FREED);
    } else {
      this.#advance(thread, step, undefined);
    }
    return true;
  }

  #make(thread: Thread): void {
    this.#advance(thread, thread.steps[thread.next] as Step, undefined);
    this.#happened += 1;
  }

  #advance(thread: Thread, step: Step, hints: readonly number[] | undefined): void {
    this.#trail.push({ thread, step, hints });
    if (step.kind === 'call') step.hasHappened = true;
    thread.next += 1;
    this.#waiting -= 1;
  }

  #undo(): Done {
    const done = this.#trail.pop() as Done;
    const { thread, step, hints } = done;
    thread.next -= 1;
    this.#waiting += 1;
    if (step.kind === 'call') {
      step.hasHappened = false;
      this.#happened -= 1;
    }
    if (step.kind === 'call' || hints === undefined) return done;
    if (step.kind === 'free') {
      step.table.take(step.entry, step.npages);
      return done;
    }
    if (step.entry >= 0) step.table.free(step.entry, step.npages);
    step.table.hints = hints;
    return done;
  }

  #undoTo(mark: number): void {
    while (this.#trail.length > mark) this.#undo();
  }

  // Goes back, further each time, and looks for an order up to `goal`, its thread's next hypercall.
  #search(thread: Thread, goal: number): boolean {
    const until = this.#happened;
    for (const depth of this.#threads.size > 1 ? DEPTHS : []) {
      const undone: Done[] = [];
      while (undone.length < depth && this.#trail.length > 0) undone.push(this.#undo());
      undone.reverse();
      const search = new Search(undone, thread, goal, until);
      const isFound = this.#explore(search);
      this.searches.nodes += search.nodes;
      if (isFound) {
        this.searches.found += 1;
        return true;
      }
      for (const { thread: owner, step } of undone) {
        if (step.kind === 'call') this.#make(owner);
        else this.#try(owner);
      }
      if (undone.length < depth) break;
    }
    this.searches.failed += 1;
    return false;
  }

  // Depth first. A state is the steps that happened and the allocators' hints. Leaves the trail as
  // it was unless it finds an order.
  #explore(search: Search): boolean {
    const mark = this.#trail.length;
    this.#makeCalls(search);
    if (search.isReached) return true;
    if (search.visit(this.#stateKey())) {
      for (const thread of this.#options(search)) {
        if (!this.#try(thread)) continue;
        if (this.#explore(search)) return true;
        this.#undo();
      }
    }
    this.#undoTo(mark);
    return false;
  }

  // A hypercall that is next in QEMU's log happens as soon as its thread has come to it.
  #makeCalls({ until }: Search): void {
    for (;;) {
      const call = this.#calls[this.#happened];
      if (call === undefined || this.#happened > until) return;
      // Of two that would do the same (an entry is cleared, mapped and cleared again), the earlier.
      let first: { thread: Thread; line: number } | undefined;
      for (const thread of this.#threads.values()) {
        const step = thread.steps[thread.next];
        if (step?.kind !== 'call' || !matches(step, call) || !isDue(step)) continue;
        const { startLine } = step.operation;
        if (first === undefined || startLine < first.line) first = { thread, line: startLine };
      }
      if (first === undefined) return;
      this.#make(first.thread);
    }
  }

  // Threads whose next step can happen now: as before first, then in the trace's order.
  #options(search: Search): Thread[] {
    const heads: { thread: Thread; step: Step }[] = [];
    for (const thread of this.#threads.values()) {
      const step = thread.steps[thread.next];
      if (step === undefined || step.kind === 'call' || this.#isBehind(thread, step)) continue;
      heads.push({ thread, step });
    }
    const rank = ({ step }: { step: Step }): number => search.rank(step);
    heads.sort((a, b) => rank(a) - rank(b));
    return heads.map(({ thread }) => thread);
  }

  // On one CPU, what ended before this began has happened; but an allocation of a task may have
  // come before the interrupt that the trace shows first.
  #isBehind(thread: Thread, { kind, operation }: Step): boolean {
    for (const other of this.#threads.values()) {
      if (other === thread) continue;
      const step = other.steps[other.next];
      if (step === undefined || step.operation.cpu !== operation.cpu) continue;
      if (step.operation.line >= operation.startLine) continue;
      if (kind === 'alloc' && step.operation.level >= operation.level) continue;
      return true;
    }
    return false;
  }

  #stateKey(): string {
    let key = '';
    const tables = new Set<IommuTable>();
    for (const thread of this.#threads.values()) {
      const step = thread.steps[thread.next] ?? thread.steps[thread.next - 1];
      key += `${thread.id}:${thread.dropped + thread.next} `;
      if (step !== undefined && step.kind !== 'call') tables.add(step.table);
    }
    for (const table of tables) key += ` ${table.hints.join()}`;
    return key;
  }

  #forget(): void {
    if (this.#trail.length <= 2 * TRAIL) return;
    this.#trail.splice(0, this.#trail.length - TRAIL);
    this.#drop();
  }

  // What is not on the trail can no longer be undone: its steps are forgotten.
  #drop(): void {
    const undoable = new Map<Thread, number>();
    let calls = 0;
    for (const { thread, step } of this.#trail) {
      undoable.set(thread, (undoable.get(thread) ?? 0) + 1);
      if (step.kind === 'call') calls += 1;
    }
    this.#calls.splice(0, this.#happened - calls);
    this.#happened = calls;
    for (const [name, thread] of this.#threads) {
      const dropped = thread.next - (undoable.get(thread) ?? 0);
      thread.steps.splice(0, dropped);
      thread.next -= dropped;
      thread.dropped += dropped;
      if (thread.steps.length === 0) this.#threads.delete(name);
    }
  }
}

/** One search: what it wants, and where it has been. */
class Search {
  readonly until: number;
  nodes = 0;
  readonly #thread: Thread;
  readonly #goal: number;
  readonly #ranks = new Map<Step, number>();
  readonly #visited = new Set<string>();

  /** `goal`: where the thread must come to; `until`: QEMU's hypercalls that may happen. */
  constructor(undone: readonly Done[], thread: Thread, goal: number, until: number) {
    this.#thread = thread;
    this.#goal = goal;
    this.until = until;
    for (const { step } of undone) this.#ranks.set(step, this.#ranks.size);
  }

  get isReached(): boolean {
    return this.#thread.next >= this.#goal;
  }

  /** Whether to go on from a state: a new one, and not too many yet. */
  visit(key: string): boolean {
    this.nodes += 1;
    if (this.nodes > BUDGET || this.#visited.has(key)) return false;
    this.#visited.add(key);
    return true;
  }

  /** In which order steps are tried: as they happened before, then as the trace has them. */
  rank(step: Step): number {
    return this.#ranks.get(step) ?? this.#ranks.size + step.operation.line;
  }
}

function nextCall(thread: Thread): CallStep | undefined {
  for (let i = thread.next; i < thread.steps.length; i += 1) {
    const step = thread.steps[i] as Step;
    if (step.kind === 'call') return step;
  }
  return undefined;
}

/** Whether what it undoes has happened. */
export function isDue({ after }: CallStep): boolean {
  return after === undefined || after.hasHappened;
}

function matches({ call, opcode }: CallStep, logged: LoggedCall): boolean {
  return call === undefined ? opcode === logged.opcode : isSameCall(call, logged);
}
