/** Who follows a replay as it goes: everything of both files in one order. */
import type { TraceEvent } from '@pinhole/base';
import type { GuestOperation } from './guest-operations.js';
import type { Entries } from './guest-replay.js';
import type { LoggedCall } from './tce-call.js';

/** A TCE hypercall of QEMU's log. */
export interface ObservedCall {
  readonly call: LoggedCall;
  /** What led to it, if the guest's trace explains it. */
  readonly operation: GuestOperation | undefined;
  /** The operation's. */
  readonly entries: Entries | undefined;
}

/**
 * Told of QEMU's events in the order of its log. What the guest did is told before the first
 * hypercall that it led to; what led to none, between the hypercalls of its CPU before and after
 * it: closer than that the two files do not say, except that a device's access to a buffer comes
 * after its mapping. `qemuLine` is the log's line that was told last.
 */
export interface RunObserver {
  /** An event of QEMU's log; `call` when it is a TCE hypercall. */
  qemuEvent?(event: TraceEvent, line: number, call: ObservedCall | undefined): void;
  /** The guest mapped, unmapped, allocated or freed something. */
  operation?(operation: GuestOperation, entries: Entries | undefined, qemuLine: number): void;
  /** The operation before was an unmap after which the TCEs stay. */
  givenUp?(operation: GuestOperation, entries: Entries, qemuLine: number): void;
  /** The operation before was a mapping that found no room. */
  failed?(operation: GuestOperation, npages: number, qemuLine: number): void;
}
