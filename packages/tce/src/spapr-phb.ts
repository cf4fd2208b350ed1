import {
  type Gpa,
  type Ioba,
  isSafeHi,
  joinNumber,
  joinU64,
  type Liobn,
  NO_TRACE,
  type Tracer,
} from '@pinhole/base';
import {
  bytesToHole,
  type DmaAccess,
  type DmaSpace,
  DmaStatus,
  type GuestMemory,
  type Translation,
} from '@pinhole/memory';
import { TceError } from './errors.js';
import {
  SPAPR_PCI_DMA_MAX_WINDOWS,
  SPAPR_PHB_DEFAULTS,
  SPAPR_TCE_PAGE_SHIFT,
  spaprPciLiobn,
  spaprPhbBuid,
} from './params.js';
import { type TceLookup, TceTable } from './tce-table.js';

/** Options of {@link SpaprPhb}; defaults are QEMU's. */
export interface SpaprPhbOptions {
  /** 0 for the first host bridge; determines BUID and LIOBNs. */
  readonly index?: number;
  /** Bytes, a multiple of 4 KiB. */
  readonly dmaWindowSize?: number;
  readonly dmaWindowAddress?: Ioba;
  readonly dma64WindowAddress?: Ioba;
  /** Dynamic DMA windows: without them there is one table and no second window. */
  readonly ddw?: boolean;
  /** The page sizes that a window may have, as a set of shifts (QEMU's `pgsz`). */
  readonly pageSizeMask?: bigint;
  /** What lies behind the translation, as the hypervisor sees it. */
  readonly memory: GuestMemory;
  readonly tracer?: Tracer;
}

/**
 * A PCI host bridge of the pseries machine: its DMA windows, and the address space of the devices
 * below it. There is no way to switch translation off. [qemu v7.2 hw/ppc/spapr_pci.c]
 */
export class SpaprPhb implements DmaSpace {
  readonly name: string;
  readonly isIdentity = false;
  readonly buid: bigint;
  readonly hasDdw: boolean;
  readonly pageSizeMask: bigint;
  readonly dmaWindowAddress: Ioba;
  readonly dmaWindowSize: number;
  readonly dma64WindowAddress: Ioba;
  /** One table, or two with dynamic windows; window number = index. */
  readonly tables: readonly TceTable[];
  readonly #memory: GuestMemory;
  readonly #tracer: Tracer;
  readonly #lookup: TceLookup = { hi: 0, lo: 0, perm: 0 };
  readonly #relative = { hi: 0, lo: 0 };

  /** @throws TceError `E_DMA_WINDOW` when the default window cannot be: size, alignment, room. */
  constructor(options: SpaprPhbOptions) {
    const index = options.index ?? 0;
    this.buid = spaprPhbBuid(index);
    this.name = `PCI host bridge ${index}`;
    this.hasDdw = options.ddw ?? true;
    this.pageSizeMask = options.pageSizeMask ?? SPAPR_PHB_DEFAULTS.pageSizeMask;
    this.dmaWindowAddress = options.dmaWindowAddress ?? SPAPR_PHB_DEFAULTS.dmaWindowAddress;
    this.dmaWindowSize = options.dmaWindowSize ?? SPAPR_PHB_DEFAULTS.dmaWindowSize;
    this.dma64WindowAddress = options.dma64WindowAddress ?? SPAPR_PHB_DEFAULTS.dma64WindowAddress;
    this.#memory = options.memory;
    this.#tracer = options.tracer ?? NO_TRACE;
    this.#checkDefaultWindow();
    const count = this.hasDdw ? SPAPR_PCI_DMA_MAX_WINDOWS : 1;
    this.tables = Array.from({ length: count }, (_, w) => new TceTable(spaprPciLiobn(index, w)));
    this.reset();
  }

  /** How many windows are open. */
  get activeWindows(): number {
    return this.tables.reduce((count, table) => count + (table.isEnabled ? 1 : 0), 0);
  }

  /** The first closed table's LIOBN, for a new window. */
  get freeLiobn(): Liobn | undefined {
    return this.tables.find((table) => !table.isEnabled)?.liobn;
  }

  /** How many translations the devices below asked for. */
  get translations(): number {
    return this.tables.reduce((count, table) => count + table.translations, 0);
  }

  /** Closes all windows and opens the default one, empty. [qemu v7.2 hw/ppc/spapr_pci.c spapr_phb_dma_reset] */
  reset(): void {
    for (const table of this.tables) table.disable();
    const table = this.tables[0] as TceTable;
    table.enable({
      pageShift: SPAPR_TCE_PAGE_SHIFT,
      busOffset: this.dmaWindowAddress,
      nbTable: this.dmaWindowSize / 2 ** SPAPR_TCE_PAGE_SHIFT,
    });
    table.isDefaultWindow = true;
    if (this.#tracer.on) {
      this.#tracer.event('hypervisor', 'spapr_iommu_new_table', {
        liobn: BigInt(table.liobn),
        table: '0x1',
        fd: -1,
      });
    }
  }

  translate(
    hi: number,
    lo: number,
    length: number,
    access: DmaAccess,
    out: Translation,
  ): DmaStatus {
    const table = this.#tableAt(hi, lo);
    if (table === undefined) return DmaStatus.NOTHING_THERE;
    const found = this.#lookup;
    table.lookup(this.#relative.hi, this.#relative.lo, found);
    if (this.#tracer.on) this.#traceTranslation(table, found);
    // TCE bit 0 lets a device read, bit 1 write: the values of DmaAccess.
    if ((found.perm & access) === 0) return DmaStatus.NO_PERMISSION;
    const gpa: Gpa = joinNumber(found.hi, found.lo);
    if (!isSafeHi(found.hi)) return DmaStatus.NOT_MEMORY;
    const { pageSize } = table;
    const offset = table.pageShift < 32 ? found.lo & (pageSize - 1) : gpa % pageSize;
    const inPage = Math.min(length, pageSize - offset);
    if (this.#memory.isBacked(gpa, inPage)) {
      out.gpa = gpa;
      out.length = inPage;
      return DmaStatus.OK;
    }
    // Memory can begin or end inside of a large page.
    const inMemory = bytesToHole(this.#memory, gpa);
    if (inMemory === 0) return DmaStatus.NOT_MEMORY;
    out.gpa = gpa;
    out.length = inMemory;
    return DmaStatus.OK;
  }

  covers(hi: number, lo: number, length: number): boolean {
    const table = this.#tableAt(hi, lo);
    if (table === undefined) return false;
    const end = joinU64(this.#relative.hi, this.#relative.lo) + BigInt(length);
    return end <= BigInt(table.nbTable) << BigInt(table.pageShift);
  }

  /** Visits every page that a device below can reach now: guest-physical address and bytes. */
  forEachReachable(visit: (gpa: bigint, length: number) => void): void {
    for (const table of this.tables) {
      const { pageSize } = table;
      const pageMask = BigInt(pageSize) - 1n;
      table.forEachLive((_index, tce) => visit(tce & ~pageMask, pageSize));
    }
  }

  // The window that reaches a bus address; leaves the relative address in #relative.
  #tableAt(hi: number, lo: number): TceTable | undefined {
    for (const table of this.tables) {
      if (table.reaches(hi, lo, this.#relative)) return table;
    }
    return undefined;
  }

  #traceTranslation(table: TceTable, found: TceLookup): void {
    const pageMask = (1n << BigInt(table.pageShift)) - 1n;
    this.#tracer.event('hypervisor', 'spapr_iommu_xlate', {
      liobn: BigInt(table.liobn),
      ioba: joinU64(this.#relative.hi, this.#relative.lo),
      tce: joinU64(found.hi, found.lo) & ~pageMask,
      perm: found.perm,
      pgsize: Number(pageMask & 0xffff_ffffn),
    });
  }

  #checkDefaultWindow(): void {
    const size = this.dmaWindowSize;
    const isWhole = Number.isSafeInteger(size) && size > 0 && size % 4096 === 0;
    const end = this.dmaWindowAddress + BigInt(isWhole ? size : 0);
    const isInBus = this.dmaWindowAddress >= 0n && end <= 2n ** 64n;
    if (isWhole && size / 4096 < 2 ** 32 && isInBus) {
      if (!this.hasDdw) return;
      if (end <= this.dma64WindowAddress && this.dma64WindowAddress < 2n ** 64n) return;
    }
    throw new TceError(
      'E_DMA_WINDOW',
      `expected a default DMA window of whole 4 KiB pages (fewer than 2^32) in 64 bits that ends below ` +
        `${this.hasDdw ? `the second window at 0x${this.dma64WindowAddress.toString(16)}` : '2^64'}, ` +
        `found ${size} bytes at 0x${this.dmaWindowAddress.toString(16)}`,
      { details: { dmaWindowSize: size, dmaWindowAddress: this.dmaWindowAddress } },
    );
  }
}
