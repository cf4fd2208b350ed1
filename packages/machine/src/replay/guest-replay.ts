/** The guest's part of a replay: every DMA address and every hypercall, predicted. */
import { hex } from '@pinhole/base';
import { HCALL_NAMES } from '@pinhole/hcall';
import {
  AllocationOrder,
  type AllocStep,
  type CallStep,
  callStep,
  isDue,
  type Step,
} from './allocation-order.js';
import type { GuestModel, GuestWindow, OperationPlan } from './guest-model.js';
import { callsOperation, DMA_MAPPING_ERROR, type GuestOperation } from './guest-operations.js';
import { LiveMappings } from './live-mappings.js';
import { describeCall, isMapping, isSameCall, type LoggedCall, type TceCall } from './tce-call.js';

/** Where the guest's trace, QEMU's log and the model disagree. */
export interface GuestMismatch {
  readonly kind: 'dma-address' | 'hcall' | 'request' | 'range';
  /** Of the guest's trace. */
  readonly guestLine: number | undefined;
  /** Of QEMU's log. */
  readonly qemuLine: number | undefined;
  readonly what: string;
  readonly recorded: string;
  readonly model: string;
}

/** Who wants to know what happened, in QEMU's order. */
interface GuestReplayListener {
  /**
   * A hypercall happened. `operation` led to it, if the guest's trace explains it; `entries` are
   * the operation's.
   */
  happened?(
    call: LoggedCall,
    operation: GuestOperation | undefined,
    entries: Entries | undefined,
  ): void;
  /** The driver unmapped, but the kernel left the TCEs as they are. Told before what came after. */
  givenUp?(operation: GuestOperation, entries: Entries): void;
  /** The kernel found no room. */
  failed?(operation: GuestOperation, npages: number): void;
}

/** Entries of a window. */
export interface Entries {
  readonly window: GuestWindow;
  readonly entry: number;
  readonly npages: number;
}

/** What the guest's part found. */
export interface GuestReplayResult {
  /** `dma_map_*` lines. */
  readonly maps: number;
  /** `dma_unmap_*` lines. */
  readonly unmaps: number;
  readonly allocs: number;
  readonly frees: number;
  /** Maps that the kernel found no room for. */
  readonly failedMaps: number;
  readonly dmaAddressMismatches: number;
  /** Hypercalls that the model predicted and the log had, or had otherwise. */
  readonly hcallsPredicted: number;
  readonly hcallMismatches: number;
  /** Of those predicted: made inside of another one, where Linux traces none. */
  readonly hcallsUntraced: number;
  /** Without `dma_*` events: hypercalls of the guest's trace found in the log, by kind. */
  readonly hcallsByKind: number;
  /** Of these, mappings whose address the allocator would have given too. */
  readonly consistentAddresses: number;
  readonly inconsistentAddresses: number;
  /** Orders of several CPUs that were searched for and found. */
  readonly ordersFound: number;
  /** Requests of a device whose buffers are the mappings of the guest's trace. */
  readonly requestsJoined: number;
  readonly requestMismatches: number;
  /** `map` and `unmap` that QEMU's log has as commands to its emulated IOMMU. */
  readonly rangesPaired: number;
  readonly rangeMismatches: number;
  readonly mismatches: readonly GuestMismatch[];
}

/** Options of {@link GuestReplay}. */
export interface GuestReplayOptions {
  readonly model: GuestModel;
  /** The trace has hypercalls. */
  readonly hasCallEvents: boolean;
  readonly listener?: GuestReplayListener;
  /** How many mismatches are kept; all are counted. */
  readonly keep: number;
}

/** Something without a hypercall: it is told before the next hypercall of the same CPU. */
interface Untold {
  readonly line: number;
  readonly tell: () => void;
}

/** Steps that wait before hypercalls happen: what several CPUs do at once is in there. */
const LOOKAHEAD = 256;
/** Steps that wait at most for the one that explains a hypercall. */
const MAX_LOOKAHEAD = 8192;
/** Hypercalls of the log that wait: to see what follows one that does not fit. */
const CALLS_AHEAD = 8;

/**
 * Joins the guest's trace and QEMU's log: hypercalls happen in QEMU's order, what the guest did
 * around them in an order that both logs allow. Says by `wants` which of the two it needs next.
 */
export class GuestReplay {
  readonly #model: GuestModel;
  readonly #options: GuestReplayOptions;
  readonly #order = new AllocationOrder();
  readonly #plans = new Map<GuestOperation, OperationPlan>();
  readonly #held = new LiveMappings();
  /** By CPU, in the order of the trace: what the listener is not told yet. */
  readonly #untold = new Map<number, Untold[]>();
  readonly #mismatches: GuestMismatch[] = [];
  readonly #counts = {
    maps: 0,
    unmaps: 0,
    allocs: 0,
    frees: 0,
    failedMaps: 0,
    dmaAddressMismatches: 0,
    hcallsPredicted: 0,
    hcallMismatches: 0,
    hcallsUntraced: 0,
    hcallsByKind: 0,
    consistentAddresses: 0,
    inconsistentAddresses: 0,
  };
  /** Hypercalls of the trace before a mapping that are not its own: its event is not there. */
  readonly #extra = new WeakSet<GuestOperation>();
  #hasAllCalls = false;
  #hasAllOperations = false;
  /** The last hypercall without a reason: a mapping of several goes on where it ended. */
  #lastUnexplained: LoggedCall | undefined;

  constructor(options: GuestReplayOptions) {
    this.#options = options;
    this.#model = options.model;
  }

  /** What it needs to go on; undefined: nothing more. */
  get wants(): 'calls' | 'operations' | undefined {
    if (!this.#hasAllCalls && this.#order.callsWaiting < CALLS_AHEAD) return 'calls';
    if (!this.#hasAllOperations) return 'operations';
    return this.#hasAllCalls ? undefined : 'calls';
  }

  /** Takes the next hypercall of QEMU's log. */
  call(call: LoggedCall): void {
    this.#order.pushCall(call);
    this.#pump();
  }

  /** Takes the next operation of the guest's trace. */
  operation(operation: GuestOperation): void {
    const plan = this.#model.plan(operation);
    this.#checkExits(operation);
    this.#note(operation, plan);
    const steps = this.#withTraced(operation, plan);
    if (plan.entries !== undefined && steps.length > 0) this.#plans.set(operation, plan);
    if (steps.length > 0) this.#order.pushSteps(operation.thread, steps);
    this.#pump();
  }

  endCalls(): void {
    this.#hasAllCalls = true;
    this.#pump();
  }

  endOperations(): void {
    this.#hasAllOperations = true;
    this.#pump();
  }

  result(): GuestReplayResult {
    return {
      ...this.#counts,
      ordersFound: this.#order.searches.found,
      requestsJoined: 0,
      requestMismatches: 0,
      rangesPaired: 0,
      rangeMismatches: 0,
      mismatches: this.#mismatches,
    };
  }

  // Lets hypercalls happen as long as it is known what led to them.
  #pump(): void {
    for (;;) {
      const call = this.#order.peekCall();
      if (call === undefined) break;
      if (!this.#hasAllCalls && this.#order.callsWaiting < CALLS_AHEAD) return;
      if (!this.#hasAllOperations && this.#order.waiting < LOOKAHEAD) return;
      const thread = this.#threadOf(call);
      if (thread !== undefined) this.#happen(thread, call);
      else if (!this.#hasAllOperations && this.#order.waiting < MAX_LOOKAHEAD) return;
      else this.#unmatched(call);
    }
    if (this.#hasAllCalls && this.#hasAllOperations) this.#finish();
  }

  // The thread whose next hypercall this is; one known by its opcode only if no other fits.
  #threadOf(call: LoggedCall): string | undefined {
    let best: { thread: string; line: number; rank: number } | undefined;
    for (const { thread, step } of this.#order.pendingCalls()) {
      if (step.call === undefined ? step.opcode !== call.opcode : !isSameCall(step.call, call)) {
        continue;
      }
      // Of two that would do the same (an entry is cleared, mapped, cleared again), the earlier.
      const line = step.operation.startLine;
      const rank = step.call === undefined ? 2 : isDue(step) ? 0 : 1;
      if (best === undefined || rank < best.rank || (rank === best.rank && line < best.line)) {
        best = { thread, line, rank };
      }
    }
    return best?.thread;
  }

  #happen(thread: string, call: LoggedCall): void {
    const step = this.#nextCall(thread) as CallStep;
    for (;;) {
      const wrong = this.#order.happen(thread);
      if (wrong === undefined) break;
      this.#wrongAddress(thread, wrong, call);
    }
    this.#explained(step, call);
  }

  #explained(step: CallStep, call: LoggedCall): void {
    const { operation } = step;
    if (step.call === undefined) this.#byKind(operation, call);
    else this.#counts.hcallsPredicted += 1;
    if (step.ret !== undefined && step.ret !== call.ret) {
      this.#hcallMismatch(operation, call, 'return code', `${step.ret}`, `${call.ret} (QEMU)`);
    }
    this.#tell(operation);
    const plan = this.#plans.get(operation);
    const isKnown = operation.kind !== 'calls';
    this.#options.listener?.happened?.(call, isKnown ? operation : undefined, plan?.entries);
    if (plan?.steps.findLast(({ kind }) => kind === 'call') === step) this.#plans.delete(operation);
  }

  // What a CPU did before this operation began, it did before what follows.
  #tell({ cpu, startLine }: GuestOperation): void {
    const untold = this.#untold.get(cpu);
    while (untold !== undefined && (untold[0]?.line ?? startLine) < startLine) {
      untold.shift()?.tell();
    }
  }

  // The log agrees with the guest's address, the allocator does not, in any order.
  #wrongAddress(thread: string, step: AllocStep, call: LoggedCall | undefined): void {
    const { operation, table, npages, alignOrder, handle } = step;
    const window = this.#plans.get(operation)?.entries?.window;
    const entry = this.#model.allocDry(table, npages, alignOrder, operation.cpu, handle);
    const address =
      window === undefined ? 'room' : hex(this.#model.addressOf(operation, window, entry));
    this.#addressMismatch(operation, call, 'address', address);
    if (step.entry >= 0 && table.isFree(step.entry, npages)) table.observe(step.entry, npages);
    this.#order.skip(thread);
  }

  // No thread makes this hypercall next.
  #unmatched(call: LoggedCall): void {
    const pending = [...this.#order.pendingCalls()].sort(
      (a, b) => a.step.operation.startLine - b.step.operation.startLine,
    );
    if (pending.length === 0) {
      // After the guest's trace ended, nothing is known of the guest.
      if (!this.#hasAllOperations) this.#hcallMismatch(undefined, call, 'hypercall', '', 'none');
      this.#unexplained(call);
      return;
    }
    const first = pending.find(({ step }) => step.opcode === call.opcode) ?? pending[0];
    const { thread, step } = first as (typeof pending)[number];
    if (this.#isAhead(step)) {
      this.#hcallMismatch(undefined, call, 'hypercall', describeCall(call), 'none');
      this.#unexplained(call);
      return;
    }
    if (pending.some((other) => this.#comesLater(other.thread, call))) {
      const { operation } = step;
      this.#hcallMismatch(operation, undefined, 'hypercall', 'missing in the log', describe(step));
      this.#counts.hcallsPredicted += 1;
      this.#skipTo(thread, step);
      return;
    }
    if (this.#correctAddress(thread, step, call)) return;
    this.#hcallMismatch(step.operation, call, 'hypercall', describeCall(call), describe(step));
    this.#counts.hcallsPredicted += 1;
    this.#skipTo(thread, step);
    this.#order.skipCall();
    this.#lastUnexplained = undefined;
    this.#options.listener?.happened?.(call, undefined, undefined);
  }

  // Whether one of the log's next hypercalls is this one.
  #isAhead(step: CallStep): boolean {
    for (let ahead = 1; ahead < CALLS_AHEAD; ahead += 1) {
      const call = this.#order.peekCall(ahead);
      if (call !== undefined && step.call !== undefined && isSameCall(step.call, call)) return true;
    }
    return false;
  }

  #comesLater(thread: string, call: LoggedCall): boolean {
    const calls = this.#order.upcoming(thread, 24).filter((step) => step.kind === 'call');
    return calls
      .slice(1, CALLS_AHEAD)
      .some((step) => step.call !== undefined && isSameCall(step.call, call));
  }

  // The guest's trace may have the wrong address: then the model's, or the log's, is the right one.
  #correctAddress(thread: string, step: CallStep, call: LoggedCall): boolean {
    const { operation } = step;
    const plan = this.#plans.get(operation);
    if (plan?.entries === undefined) return false;
    const { window, npages } = plan.entries;
    if (operation.kind === 'map' || operation.kind === 'alloc') {
      const alloc = this.#order
        .upcoming(thread, 24)
        .find(
          (other): other is AllocStep => other.kind === 'alloc' && other.operation === operation,
        );
      if (alloc === undefined) return false;
      const { table, alignOrder } = alloc;
      const entry = this.#model.allocDry(table, npages, alignOrder, operation.cpu);
      if (entry < 0) return false;
      const calls = this.#model.buildCalls(operation, window, entry);
      if (calls[0] === undefined || !isSameCall(calls[0], call)) return false;
      const address = hex(this.#model.addressOf(operation, window, entry));
      this.#addressMismatch(operation, call, 'address', address);
      alloc.entry = entry;
      this.#rewrite(plan, calls);
      return true;
    }
    const expected = step.call;
    if (expected === undefined || expected.opcode !== call.opcode) return false;
    if (expected.npages !== call.npages || expected.tce !== call.tce) return false;
    const table = this.#model.tables.get(call.liobn);
    const entry = Number((call.ioba - window.busOffset) >> BigInt(window.pageShift));
    if (table === undefined || !table.isTaken(entry, npages)) return false;
    const own = this.#model.tables.get(window.liobn);
    if (own?.isTaken(plan.entries.entry, npages) === true) return false;
    this.#addressMismatch(operation, call, 'address', hex(call.ioba));
    for (const other of plan.steps) if (other.kind === 'free') other.entry = entry;
    this.#rewrite(plan, [call]);
    return true;
  }

  #rewrite(plan: OperationPlan, calls: readonly TceCall[]): void {
    const steps = plan.steps.filter((other): other is CallStep => other.kind === 'call');
    calls.forEach((right, i) => {
      const other = steps[i];
      if (other === undefined) return;
      other.call = right;
    });
  }

  // Takes a thread's steps for done, up to and with this one.
  #skipTo(thread: string, until: Step): void {
    for (;;) {
      const step = this.#order.upcoming(thread, 1)[0];
      if (step === undefined) return;
      if (step.kind === 'alloc' && step.entry >= 0) {
        if (step.table.isFree(step.entry, step.npages)) step.table.observe(step.entry, step.npages);
      }
      if (step.kind === 'free' && step.table.isTaken(step.entry, step.npages)) {
        step.table.free(step.entry, step.npages);
      }
      this.#order.skip(thread);
      if (step === until) return;
    }
  }

  #unexplained(call: LoggedCall): void {
    this.#order.skipCall();
    this.#model.observe(call);
    this.#options.listener?.happened?.(call, undefined, undefined);
  }

  // A hypercall that the guest's trace has without a reason: would the allocator have given this?
  #byKind(operation: GuestOperation, call: LoggedCall): void {
    this.#counts.hcallsByKind += 1;
    const table = this.#model.tables.get(call.liobn);
    const isChecked = operation.isMerged !== true;
    if (table !== undefined && isChecked && isMapping(call) && call.ret === 0n) {
      const entry = Number((call.ioba - table.busOffset) >> BigInt(table.pageShift));
      if (this.#isConsistent(operation, call, table, entry)) this.#counts.consistentAddresses += 1;
      else {
        this.#counts.inconsistentAddresses += 1;
        this.#keep('dma-address', operation, call, 'address', hex(call.ioba), 'elsewhere');
      }
    }
    // On another window: what a driver does with its own, such as mapping all memory.
    if (table !== undefined && this.#extra.has(operation)) {
      this.#hcallMismatch(
        operation,
        call,
        'hypercall',
        describeCall(call),
        'no mapping of the trace',
      );
    }
    this.#lastUnexplained = call;
    this.#model.observe(call);
    this.#order.commit();
  }

  #isConsistent(
    { cpu }: GuestOperation,
    call: LoggedCall,
    table: NonNullable<ReturnType<GuestModel['tables']['get']>>,
    entry: number,
  ): boolean {
    const last = this.#lastUnexplained;
    if (last !== undefined && last.liobn === call.liobn && isMapping(last)) {
      const end = last.ioba + (BigInt(last.npages) << BigInt(table.pageShift));
      if (end === call.ioba) return true;
    }
    const orders = new Set([0, this.#model.pageOrder(table.pageShift)]);
    orders.add(Math.ceil(Math.log2(call.npages)));
    for (const order of orders) {
      if (this.#model.allocDry(table, call.npages, order, cpu) === entry) return true;
    }
    return false;
  }

  // Of each hypercall of the trace, the two lines that it has.
  #checkExits(operation: GuestOperation): void {
    for (const { opcode, exit } of operation.traced) {
      if (exit === undefined || exit === opcode) continue;
      const name = exit === 'missing' ? exit : (HCALL_NAMES.get(exit) ?? hex(exit));
      const entered = HCALL_NAMES.get(opcode) ?? hex(opcode);
      this.#hcallMismatch(operation, undefined, 'hcall_exit', name, entered);
    }
  }

  // The hypercalls that the trace shows for an operation, against those that the model makes.
  #withTraced(operation: GuestOperation, plan: OperationPlan): Step[] {
    const { steps } = plan;
    if (operation.kind === 'calls' || !this.#options.hasCallEvents) return steps;
    const calls = steps.filter((step): step is CallStep => step.kind === 'call');
    if (operation.isUntraced === true) {
      this.#counts.hcallsUntraced += calls.length;
      return steps;
    }
    const { traced, cpu, level, thread } = operation;
    const extra = traced.slice(0, Math.max(0, traced.length - calls.length));
    const own = traced.slice(extra.length);
    const before = extra.map((call) => {
      const reason = callsOperation(call, cpu, level, thread);
      if (operation.isLoose !== true && operation.isMerged !== true) this.#extra.add(reason);
      const step = callStep(reason, call.opcode);
      step.ret = call.ret;
      return step;
    });
    calls.forEach((step, i) => {
      const call = own[i];
      step.ret = call?.ret;
      if (call === undefined) {
        this.#hcallMismatch(operation, undefined, 'hypercall', 'none in the trace', describe(step));
      } else if (call.opcode !== step.opcode) {
        const name = HCALL_NAMES.get(call.opcode) ?? hex(call.opcode);
        this.#hcallMismatch(operation, undefined, 'hypercall', name, describe(step));
      }
    });
    return [...before, ...steps];
  }

  // Counts, and checks what needs no allocator.
  #note(operation: GuestOperation, plan: OperationPlan): void {
    const { kind, dmaAddr, gpa } = operation;
    if (kind === 'calls') return;
    this.#held.see(operation);
    if (operation.isContinued === true) {
      // Counted with the first element of its list.
    } else if (kind === 'map') this.#counts.maps += 1;
    else if (kind === 'unmap') this.#counts.unmaps += 1;
    else if (kind === 'alloc') this.#counts.allocs += 1;
    else this.#counts.frees += 1;
    if (kind === 'map' || kind === 'alloc') {
      if (dmaAddr === DMA_MAPPING_ERROR) {
        this.#counts.failedMaps += 1;
        this.#later(operation, () => {
          const alloc = plan.steps.find((step) => step.kind === 'alloc');
          this.#options.listener?.failed?.(operation, alloc?.npages ?? 0);
        });
        return;
      }
      if (plan.expected !== undefined && plan.expected !== dmaAddr) {
        this.#addressMismatch(operation, undefined, 'address', hex(plan.expected));
      } else if (kind === 'map' && gpa !== undefined && (dmaAddr & 0xfffn) !== BigInt(gpa % 4096)) {
        this.#addressMismatch(operation, undefined, 'offset in the page', hex(gpa % 4096));
      } else if (kind === 'alloc' && ((dmaAddr & 0xfffn) !== 0n || (gpa ?? 0) % 4096 !== 0)) {
        // Coherent memory is whole pages, on both sides.
        this.#addressMismatch(operation, undefined, 'offset in the page', '0x0');
      }
      const last = plan.steps.at(-1);
      this.#held.hold(operation, last?.kind === 'call' ? last : undefined);
    } else {
      this.#release(operation, plan);
      const { entries } = plan;
      if (plan.isGivenUp && entries !== undefined) {
        this.#later(operation, () => this.#options.listener?.givenUp?.(operation, entries));
      }
    }
  }

  #later(operation: GuestOperation, tell: () => void): void {
    if (this.#options.listener === undefined) return;
    const told = this.#untold.get(operation.cpu);
    if (told === undefined) this.#untold.set(operation.cpu, [{ line: operation.line, tell }]);
    else told.push({ line: operation.line, tell });
  }

  // Its hypercalls come after those of what it unmaps.
  #release(operation: GuestOperation, { steps }: OperationPlan): void {
    const released = this.#held.release(operation);
    if (released.isUnknown !== undefined) {
      this.#addressMismatch(operation, undefined, 'unmap', released.isUnknown);
    }
    for (const step of steps) if (step.kind === 'call') step.after = released.lastCall;
  }

  #finish(): void {
    for (const untold of this.#untold.values()) {
      for (const { tell } of untold.splice(0)) tell();
    }
    for (const { thread } of [...this.#order.tails()]) {
      for (;;) {
        const step = this.#order.upcoming(thread, 1)[0];
        if (step === undefined) break;
        if (step.kind === 'call') {
          this.#counts.hcallsPredicted += 1;
          const { operation } = step;
          this.#hcallMismatch(
            operation,
            undefined,
            'hypercall',
            'missing in the log',
            describe(step),
          );
          this.#skipTo(thread, step);
        } else if (!this.#order.happenAlone(thread)) {
          this.#wrongAddress(thread, step as AllocStep, undefined);
        }
      }
    }
  }

  #nextCall(thread: string): CallStep | undefined {
    for (const pending of this.#order.pendingCalls()) {
      if (pending.thread === thread) return pending.step;
    }
    return undefined;
  }

  #addressMismatch(
    operation: GuestOperation,
    call: LoggedCall | undefined,
    what: string,
    model: string,
  ): void {
    this.#counts.dmaAddressMismatches += 1;
    const recorded = operation.dmaAddr === DMA_MAPPING_ERROR ? 'no room' : hex(operation.dmaAddr);
    this.#keep('dma-address', operation, call, what, recorded, model);
  }

  #hcallMismatch(
    operation: GuestOperation | undefined,
    call: LoggedCall | undefined,
    what: string,
    recorded: string,
    model: string,
  ): void {
    this.#counts.hcallMismatches += 1;
    this.#keep('hcall', operation, call, what, recorded, model);
  }

  #keep(
    kind: GuestMismatch['kind'],
    operation: GuestOperation | undefined,
    call: LoggedCall | undefined,
    what: string,
    recorded: string,
    model: string,
  ): void {
    if (this.#mismatches.length >= this.#options.keep) return;
    const [guestLine, qemuLine] = [operation?.line, call?.line];
    this.#mismatches.push({ kind, guestLine, qemuLine, what, recorded, model });
  }
}

function describe({ call, opcode }: CallStep): string {
  return call === undefined ? (HCALL_NAMES.get(opcode) ?? hex(opcode)) : describeCall(call);
}
