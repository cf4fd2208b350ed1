/** A TCE hypercall in one form, whether a log has it or the model predicts it. */
import { hex, type TraceEvent } from '@pinhole/base';
import {
  H_GET_TCE,
  H_PUT_TCE,
  H_PUT_TCE_INDIRECT,
  H_STUFF_TCE,
  HCALL_NAMES,
  type Hypercalls,
} from '@pinhole/hcall';
import { createGuestMemory, type GuestMemory } from '@pinhole/memory';

/** log2 of the page size of a default window. */
export const TCE_PAGE_SHIFT = 12;
/** Entries of one hypercall of Linux. [linux v6.1 arch/powerpc/platforms/pseries/iommu.c tce_buildmulti_pSeriesLP, tce_freemulti_pSeriesLP] */
export const TCE_CALL_MAX = 512;

/** Of a power of two. */
export function log2(size: bigint): number {
  return size.toString(2).length - 1;
}

/** One TCE hypercall. */
export interface TceCall {
  readonly opcode: number;
  readonly liobn: number;
  /** Of its first entry. */
  readonly ioba: bigint;
  readonly npages: number;
  /** The value: of a list, its last one. */
  readonly tce: bigint;
}

/** A TCE hypercall of QEMU's log. */
export interface LoggedCall extends TceCall {
  readonly line: number;
  readonly ret: bigint;
}

/** By the name of QEMU's event; `pci_` for the windows of host bridges. */
const OPCODES: ReadonlyMap<string, number> = new Map(
  ['', 'pci_'].flatMap((bus): [string, number][] => [
    [`spapr_iommu_${bus}put`, H_PUT_TCE],
    [`spapr_iommu_${bus}get`, H_GET_TCE],
    [`spapr_iommu_${bus}stuff`, H_STUFF_TCE],
    [`spapr_iommu_${bus}indirect`, H_PUT_TCE_INDIRECT],
  ]),
);

/** The hypercall that an event of QEMU's log tells of; undefined for other events. */
export function loggedCall(
  { name, args }: TraceEvent,
  line: number,
  pageShiftOf: (liobn: number) => number,
): LoggedCall | undefined {
  const opcode = OPCODES.get(name);
  if (opcode === undefined) return undefined;
  const liobn = Number(BigInt.asUintN(32, args.liobn as bigint));
  const ret = args.ret as bigint;
  const ioba = args.ioba as bigint;
  if (opcode === H_PUT_TCE_INDIRECT) {
    const npages = Number((args.iobaN as bigint) & 0xffffn) + 1;
    return { opcode, liobn, ioba, npages, tce: args.tceN as bigint, line, ret };
  }
  if (opcode === H_STUFF_TCE) {
    // QEMU prints where its loop stopped.
    const npages = Number(args.npages);
    const start = ioba - (BigInt(npages) << BigInt(pageShiftOf(liobn)));
    const first = ret === 0n ? BigInt.asUintN(64, start) : ioba;
    return { opcode, liobn, ioba: first, npages, tce: args.tcevalue as bigint, line, ret };
  }
  return { opcode, liobn, ioba, npages: 1, tce: args.tce as bigint, line, ret };
}

/** Whether two hypercalls do the same. */
export function isSameCall(a: TceCall, b: TceCall): boolean {
  return (
    a.ioba === b.ioba &&
    a.opcode === b.opcode &&
    a.tce === b.tce &&
    a.npages === b.npages &&
    a.liobn === b.liobn
  );
}

/** Two hypercalls are the same when their keys are. */
export function callKey({ opcode, liobn, ioba, npages, tce }: TceCall): string {
  return `${opcode} ${liobn} ${ioba} ${npages} ${tce}`;
}

/** For people: `H_PUT_TCE liobn 0x80000000 ioba 0x1000 tce 0x5003`. */
export function describeCall({ opcode, liobn, ioba, npages, tce }: TceCall): string {
  const name = HCALL_NAMES.get(opcode) ?? `hypercall ${hex(opcode)}`;
  const count = npages === 1 && opcode === H_PUT_TCE ? '' : ` npages ${npages}`;
  return `${name} liobn ${hex(liobn)} ioba ${hex(ioba)}${count} tce ${hex(tce)}`;
}

/** Whether it writes entries that let a device do something. */
export function isMapping({ opcode, tce }: TceCall): boolean {
  return opcode !== H_GET_TCE && (tce & 3n) !== 0n;
}

const LIST_PAGE = 0;

/** Takes down the hypercalls that the guest's kernel makes, and answers "success". */
export class CallRecorder implements Hypercalls {
  /** For the lists of indirect puts. */
  readonly memory: GuestMemory = createGuestMemory({ regions: [{ base: LIST_PAGE, size: 4096 }] });
  readonly listPage: number = LIST_PAGE;
  #calls: TceCall[] = [];

  /** What was made since the last time. */
  take(): TceCall[] {
    const calls = this.#calls;
    this.#calls = [];
    return calls;
  }

  call(opcode: number, args: readonly bigint[]): { ret: number; out: [] } {
    const [liobn = 0n, ioba = 0n, third = 0n, fourth = 1n] = args;
    const npages = opcode === H_PUT_TCE ? 1 : Number(fourth);
    const tce =
      opcode === H_PUT_TCE_INDIRECT
        ? this.memory.readU64Be(Number(third) + (npages - 1) * 8)
        : third;
    this.#calls.push({ opcode, liobn: Number(liobn), ioba, npages, tce });
    return { ret: 0, out: [] };
  }
}
