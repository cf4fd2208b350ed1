import { RTAS_TOKENS } from '@pinhole/hcall';
import { isPciLiobn } from '@pinhole/tce';
import type { HcallOp, RtasOp } from './ops.js';

/**
 * What a real QEMU does by accident and nobody should model. A campaign leaves these calls out
 * unless it is asked for them by name; `docs/CONFORMANCE.md` has the evidence.
 */
export interface Accident {
  readonly name: string;
  /** What happens, in one line. */
  readonly what: string;
  /** Whether a call provokes it. */
  readonly matches: (op: HcallOp | RtasOp) => boolean;
}

const isCreate = (op: HcallOp | RtasOp): op is RtasOp =>
  op.kind === 'rtas' && op.token === RTAS_TOKENS['ibm,create-pe-dma-window'];

/** All that are known. */
export const ACCIDENTS: readonly Accident[] = [
  {
    name: 'window-of-2^32-entries',
    what: 'its number of entries is kept in 32 bits: -1, and the next create in that table aborts QEMU',
    matches: (op) => {
      if (!isCreate(op)) return false;
      const [, , , pageShift = 0, windowShift = 0] = op.args;
      return pageShift < 64 && windowShift - pageShift >= 32;
    },
  },
  {
    name: 'window-of-2^64-bytes',
    what: 'a window of fewer entries that ends beyond 64 bits opens, but its size is kept in 64 bits: devices reach nothing in it, and hypercalls wrap around',
    matches: (op) => {
      if (!isCreate(op)) return false;
      const [, , , pageShift = 0, windowShift = 0] = op.args;
      return windowShift > 63 && windowShift - pageShift < 32;
    },
  },
  {
    name: 'page-shift-beyond-63',
    what: 'a shift that C does not define: on x86 its low six bits count',
    matches: (op) => isCreate(op) && (op.args[3] ?? 0) > 63,
  },
  {
    name: 'remove-vio-window',
    what: "ibm,remove-pe-dma-window takes a VIO device for a host bridge: -3 where QEMU was built without checks of its objects' types, an abort where it was built with them",
    matches: (op) =>
      op.kind === 'rtas' &&
      op.token === RTAS_TOKENS['ibm,remove-pe-dma-window'] &&
      !isPciLiobn(op.args[0] ?? 0),
  },
];

/** Whether a call provokes an accident other than the named ones. */
export function isLeftOut(op: HcallOp | RtasOp, included: readonly string[]): boolean {
  return ACCIDENTS.some(({ name, matches }) => !included.includes(name) && matches(op));
}
