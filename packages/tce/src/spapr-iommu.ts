import { hex, type Ioba } from '@pinhole/base';
import { TceError } from './errors.js';
import { SPAPR_TCE_PAGE_SHIFT } from './params.js';
import { checkSaved, parseSavedIommu, type SavedIommu, type SavedTable } from './saved-state.js';
import type { SpaprPhb } from './spapr-phb.js';
import type { SpaprVioDevice } from './spapr-vio-device.js';
import type { TceTable } from './tce-table.js';

/** As a set of shifts. */
const DEFAULT_PAGE_SIZE = 1n << BigInt(SPAPR_TCE_PAGE_SHIFT);

/** Options of {@link SpaprIommu}. */
export interface SpaprIommuOptions {
  readonly phbs: readonly SpaprPhb[];
  readonly vio?: readonly SpaprVioDevice[];
}

/** All TCE tables of a machine, by LIOBN; its host bridges, by BUID; its VIO devices, by `reg`. */
export class SpaprIommu {
  readonly phbs: readonly SpaprPhb[];
  readonly #vio: SpaprVioDevice[] = [];
  readonly #tables = new Map<number, TceTable>();
  readonly #phbOf = new Map<TceTable, SpaprPhb>();

  /** @throws TceError `E_DUPLICATE_LIOBN`. */
  constructor(options: SpaprIommuOptions) {
    this.phbs = options.phbs;
    for (const phb of options.phbs) {
      for (const table of phb.tables) {
        this.#add(table);
        this.#phbOf.set(table, phb);
      }
    }
    for (const device of options.vio ?? []) this.addVio(device);
  }

  get vio(): readonly SpaprVioDevice[] {
    return this.#vio;
  }

  /** Adds a VIO device. @throws TceError `E_DUPLICATE_LIOBN`. */
  addVio(device: SpaprVioDevice): void {
    if (this.findVio(device.reg) !== undefined) throw duplicate(device.reg);
    if (device.table !== undefined) this.#add(device.table);
    this.#vio.push(device);
  }

  /**
   * The table with this number, enabled or not. A LIOBN wider than 32 bits names none.
   * [qemu v7.2 hw/ppc/spapr_iommu.c spapr_tce_find_by_liobn]
   */
  findTable(liobn: bigint): TceTable | undefined {
    return liobn > 0xffff_ffffn ? undefined : this.#tables.get(Number(liobn));
  }

  /** The same for a LIOBN of 32 bits. */
  tableAt(liobn: number): TceTable | undefined {
    return this.#tables.get(liobn);
  }

  findPhb(buid: bigint): SpaprPhb | undefined {
    return this.phbs.find((phb) => phb.buid === buid);
  }

  findVio(reg: number): SpaprVioDevice | undefined {
    return this.#vio.find((device) => device.reg === reg);
  }

  /** The host bridge that a PCI window belongs to. */
  phbOf(table: TceTable): SpaprPhb | undefined {
    return this.#phbOf.get(table);
  }

  /** As after a reset of the machine. */
  reset(): void {
    for (const phb of this.phbs) phb.reset();
    for (const device of this.#vio) device.reset();
  }

  /** All state, as plain JSON. */
  save(): SavedIommu {
    return {
      phbs: this.phbs.map((phb) => phb.save()),
      vio: this.#vio.map((device) => device.save()),
    };
  }

  /**
   * Makes this IOMMU what was saved of one that was built alike. No notifier hears of it.
   * @param value - what `save` gave, perhaps by way of a file: nothing in it is trusted.
   * @throws TceError `E_SAVED_STATE`, before anything is changed.
   */
  restore(value: unknown): void {
    const { phbs, vio } = parseSavedIommu(value);
    const alike = (found: number, path: string, expected: number): void =>
      checkSaved(found === expected, path, hex(expected), hex(found));
    const alikeTable = (
      saved: SavedTable,
      path: string,
      { liobn }: TceTable,
      starts: readonly Ioba[],
      pageSizes: bigint,
    ): void => {
      alike(saved.liobn, `${path}.liobn`, liobn);
      const { busOffset, pageShift } = saved;
      // A closed window is at 0.
      const expected = saved.nbTable === 0 ? [0n] : starts;
      const isThere = expected.includes(BigInt(busOffset));
      checkSaved(isThere, `${path}.busOffset`, expected.map(hex).join(' or '), busOffset);
      const isOffered = saved.nbTable === 0 || ((pageSizes >> BigInt(pageShift)) & 1n) === 1n;
      checkSaved(isOffered, `${path}.pageShift`, 'a page size of the machine', pageShift);
    };
    alike(phbs.length, 'phbs.length', this.phbs.length);
    alike(vio.length, 'vio.length', this.#vio.length);
    phbs.forEach((saved, i) => {
      const phb = this.phbs[i] as SpaprPhb;
      const path = `phbs[${i}]`;
      checkSaved(BigInt(saved.buid) === phb.buid, `${path}.buid`, hex(phb.buid), saved.buid);
      const isInMode = !saved.isLimited || phb.hasLimitedAddressMode;
      checkSaved(isInMode, `${path}.isLimited`, 'a bridge that has this mode', saved.isLimited);
      alike(saved.tables.length, `${path}.tables.length`, phb.tables.length);
      const pageSizes = phb.pageSizeMask | DEFAULT_PAGE_SIZE;
      saved.tables.forEach((table, w) => {
        const at = `${path}.tables[${w}]`;
        alikeTable(table, at, phb.tables[w] as TceTable, phb.windowAddresses, pageSizes);
      });
    });
    vio.forEach((saved, i) => {
      const { reg, table } = this.#vio[i] as SpaprVioDevice;
      const path = `vio[${i}]`;
      alike(saved.reg, `${path}.reg`, reg);
      const what = table === undefined ? 'no table' : 'a table';
      checkSaved((saved.table === null) === (table === undefined), `${path}.table`, what, 'other');
      if (saved.table !== null && table !== undefined) {
        alikeTable(saved.table, `${path}.table`, table, [0n], DEFAULT_PAGE_SIZE);
      }
    });
    phbs.forEach((saved, i) => {
      this.phbs[i]?.load(saved);
    });
    vio.forEach((saved, i) => {
      this.#vio[i]?.load(saved);
    });
  }

  #add(table: TceTable): void {
    if (this.#tables.has(table.liobn)) throw duplicate(table.liobn);
    this.#tables.set(table.liobn, table);
  }
}

function duplicate(liobn: number): TceError {
  return new TceError(
    'E_DUPLICATE_LIOBN',
    `expected one table per LIOBN, found two with ${hex(liobn)}`,
    { details: { liobn } },
  );
}
