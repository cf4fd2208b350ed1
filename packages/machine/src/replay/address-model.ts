/** What gives buffers their bus addresses, where no hypercall is needed for it. */
import { hex } from '@pinhole/base';
import type { GuestOperation } from './guest-operations.js';

/** Recorded and predicted are not the same. */
export interface Disagreement {
  readonly what: string;
  readonly recorded: string;
  readonly model: string;
}

/** The kernel's way from buffers to bus addresses: one object for each way. */
export interface AddressModel {
  /** A mapping or an allocation: what the kernel would have done otherwise. */
  begin(operation: GuestOperation): Disagreement | undefined;
  /** An unmapping or a freeing. */
  end(operation: GuestOperation): Disagreement | undefined;
}

/** Where the model has something else; undefined where it agrees. */
export function differs(
  what: string,
  recorded: string,
  model: string | undefined,
): Disagreement | undefined {
  return recorded === model ? undefined : { what, recorded, model: model ?? 'none' };
}

/** What is wrong with the kernel's own address of coherent memory, which is whole pages. */
export function kernelAddress(address: bigint, begins: bigint): Disagreement | undefined {
  if (address % 4096n === 0n && address >= begins) return undefined;
  return { what: 'virt_addr', recorded: hex(address), model: "a page of the kernel's" };
}
