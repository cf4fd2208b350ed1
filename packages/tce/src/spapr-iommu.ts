import { hex } from '@pinhole/base';
import { TceError } from './errors.js';
import type { SpaprPhb } from './spapr-phb.js';
import type { TceTable } from './tce-table.js';

/** All TCE tables of a machine, by LIOBN, and its host bridges, by BUID. */
export class SpaprIommu {
  readonly phbs: readonly SpaprPhb[];
  readonly #tables = new Map<number, TceTable>();

  /** @throws TceError `E_DUPLICATE_LIOBN`. */
  constructor(options: { readonly phbs: readonly SpaprPhb[]; readonly vio?: readonly TceTable[] }) {
    this.phbs = options.phbs;
    for (const phb of options.phbs) for (const table of phb.tables) this.add(table);
    for (const table of options.vio ?? []) this.add(table);
  }

  /** Adds the table of a VIO device. @throws TceError `E_DUPLICATE_LIOBN`. */
  add(table: TceTable): void {
    if (this.#tables.has(table.liobn)) {
      throw new TceError(
        'E_DUPLICATE_LIOBN',
        `expected one table per LIOBN, found two with ${hex(table.liobn)}`,
        { details: { liobn: table.liobn } },
      );
    }
    this.#tables.set(table.liobn, table);
  }

  /**
   * The table with this number, enabled or not. A LIOBN wider than 32 bits names none.
   * [qemu v7.2 hw/ppc/spapr_iommu.c spapr_tce_find_by_liobn]
   */
  findTable(liobn: bigint): TceTable | undefined {
    return liobn > 0xffff_ffffn ? undefined : this.#tables.get(Number(liobn));
  }

  findPhb(buid: bigint): SpaprPhb | undefined {
    return this.phbs.find((phb) => phb.buid === buid);
  }

  /** The host bridge that a PCI window belongs to. */
  phbOf(table: TceTable): SpaprPhb | undefined {
    return this.phbs.find((phb) => phb.tables.includes(table));
  }
}
