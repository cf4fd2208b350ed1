/** Where on the bus a device's access lies. */
import type { TraceEvent } from '@pinhole/base';

/** QEMU logs an access from the start of its window; this keeps where second windows start. */
export class BusAddresses {
  readonly #starts = new Map<number, bigint>();

  /** Takes an event of QEMU's log; of an access, gives its bus address. */
  event({ name, args }: TraceEvent): bigint | undefined {
    if (name === 'spapr_iommu_xlate') {
      const start = this.#starts.get(Number(BigInt.asUintN(32, args.liobn as bigint))) ?? 0n;
      return (args.ioba as bigint) + start;
    }
    if (name === 'spapr_iommu_ddw_create') {
      this.#starts.set(Number(args.liobn), args.start as bigint);
    } else if (name === 'spapr_iommu_ddw_remove') this.#starts.delete(Number(args.liobn));
    return undefined;
  }
}
