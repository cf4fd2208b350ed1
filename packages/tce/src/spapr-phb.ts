import {
  hex,
  hi32,
  type Ioba,
  joinNumber,
  joinU64,
  type Liobn,
  lo32,
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
  LIMITED_ADDRESS_WINDOW,
  SPAPR_PCI_DMA_MAX_WINDOWS,
  SPAPR_PCI_MSI_WINDOW,
  SPAPR_PCI_MSI_WINDOW_SIZE,
  SPAPR_PHB_DEFAULTS,
  SPAPR_TCE_PAGE_SHIFT,
  spaprPciLiobn,
  spaprPhbBuid,
} from './params.js';
import { loadTable, type SavedPhb, type SavedTable, saveTable } from './saved-state.js';
import { type TceLookup, TceTable } from './tce-table.js';
import { entryToMemory, traceTranslation } from './translate.js';

const MSI_HI = hi32(SPAPR_PCI_MSI_WINDOW);
const MSI_LO = lo32(SPAPR_PCI_MSI_WINDOW);

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
  /**
   * The bridge has the limited-address mode of LoPAR 2.13, which QEMU does not. Default: no.
   */
  readonly limitedAddressMode?: boolean;
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
  /** Where a second window starts, but in the limited-address mode. */
  readonly dma64WindowAddress: Ioba;
  readonly hasLimitedAddressMode: boolean;
  /** Whether the bridge is in that mode now. */
  isLimited = false;
  /** One table, or two with dynamic windows; window number = index. */
  readonly tables: readonly TceTable[];
  readonly #inSearchOrder: readonly TceTable[];
  readonly #byPriority: readonly TceTable[];
  readonly #memory: GuestMemory;
  // Where the memory that begins at 0 ends: most accesses lie below.
  readonly #memoryEnd: number;
  readonly #tracer: Tracer;
  readonly #isTraced: boolean;
  #remembered = 0;
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
    this.hasLimitedAddressMode = options.limitedAddressMode ?? false;
    this.#memory = options.memory;
    this.#memoryEnd = bytesToHole(options.memory, 0);
    this.#tracer = options.tracer ?? NO_TRACE;
    this.#isTraced = this.#tracer.on;
    this.#checkDefaultWindow();
    const count = this.hasDdw ? SPAPR_PCI_DMA_MAX_WINDOWS : 1;
    this.tables = Array.from({ length: count }, (_, w) => new TceTable(spaprPciLiobn(index, w)));
    this.#byPriority = [...this.tables].reverse();
    this.#inSearchOrder = searchOrder(this.tables);
    this.reset();
  }

  /** How many windows are open. */
  get activeWindows(): number {
    return this.tables.reduce((count, table) => count + (table.isEnabled ? 1 : 0), 0);
  }

  /** The LIOBN for a new window: that of a closed table, the first that QEMU comes upon. */
  get freeLiobn(): Liobn | undefined {
    return this.#inSearchOrder.find((table) => !table.isEnabled)?.liobn;
  }

  /**
   * Where a window that is opened now starts: at the default window's place when none is open.
   * [qemu v7.2 hw/ppc/spapr_rtas_ddw.c rtas_ibm_create_pe_dma_window]
   */
  get nextWindowAddress(): Ioba {
    if (this.activeWindows === 0) return this.dmaWindowAddress;
    return this.isLimited ? LIMITED_ADDRESS_WINDOW : this.dma64WindowAddress;
  }

  /** Where windows of this bridge can start. */
  get windowAddresses(): readonly Ioba[] {
    const usual = [this.dmaWindowAddress, this.dma64WindowAddress];
    return this.hasLimitedAddressMode ? [...usual, LIMITED_ADDRESS_WINDOW] : usual;
  }

  /** How many translations the devices below asked for. */
  get translations(): number {
    return this.tables.reduce((count, table) => count + table.translations, this.#remembered);
  }

  /** A trace wants to see each translation. */
  get generation(): number | undefined {
    if (this.#isTraced) return undefined;
    // Two at most.
    const { tables } = this;
    return (
      (tables[0] as TceTable).changes + (tables.length > 1 ? (tables[1] as TceTable).changes : 0)
    );
  }

  countRemembered(): void {
    this.#remembered += 1;
  }

  /** Closes all windows and opens the default one, empty. [qemu v7.2 hw/ppc/spapr_pci.c spapr_phb_dma_reset] */
  reset(): void {
    this.isLimited = false;
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
    // A trace wants to know more than the usual case tells.
    if (!this.#isTraced) {
      const tables = this.#byPriority;
      for (let i = 0; i < tables.length; i += 1) {
        const table = tables[i] as TceTable;
        if (table.nbTable === 0) continue;
        const found = table.translateAtOnce(hi, lo, length, access, this.#memoryEnd, out);
        if (found > 0) return DmaStatus.OK;
        if (found < 0) break;
      }
    }
    return this.#translate(hi, lo, length, access, out);
  }

  covers(hi: number, lo: number, length: number): boolean {
    const table = this.#tableAt(hi, lo);
    if (table === undefined) return false;
    const relative = this.#relative;
    // Beyond 2^52 numbers are not exact; below, the size of the window may be what it likes.
    if (relative.hi < 2 ** 20) {
      return joinNumber(relative.hi, relative.lo) + length <= table.nbTable * table.pageSize;
    }
    const end = joinU64(relative.hi, relative.lo) + BigInt(length);
    return end <= BigInt(table.nbTable) << BigInt(table.pageShift);
  }

  /** The window that a bus address lies in, whatever its entries hold. */
  tableOf(hi: number, lo: number): TceTable | undefined {
    return this.#tableAt(hi, lo);
  }

  /** Visits every page that a device below can reach now: guest-physical address and bytes. */
  forEachReachable(visit: (gpa: bigint, length: number) => void): void {
    for (const table of this.tables) {
      const { pageSize } = table;
      const pageMask = BigInt(pageSize) - 1n;
      table.forEachLive((_index, tce) => visit(tce & ~pageMask, pageSize));
    }
  }

  /** What a save must keep. */
  save(): SavedPhb {
    return {
      buid: hex(this.buid),
      isLimited: this.isLimited,
      tables: this.tables.map(saveTable),
    };
  }

  /** Makes the bridge what was saved; `SpaprIommu.restore` has checked that it fits. */
  load(saved: SavedPhb): void {
    this.isLimited = saved.isLimited;
    this.tables.forEach((table, i) => {
      loadTable(table, saved.tables[i] as SavedTable);
    });
  }

  // Every case.
  #translate(
    hi: number,
    lo: number,
    length: number,
    access: DmaAccess,
    out: Translation,
  ): DmaStatus {
    const table = this.#tableAt(hi, lo);
    if (table === undefined) {
      return isMsiWindow(hi, lo) ? DmaStatus.INTERRUPT : DmaStatus.NOTHING_THERE;
    }
    const found = this.#lookup;
    const { hi: relativeHi, lo: relativeLo } = this.#relative;
    table.lookup(relativeHi, relativeLo, found);
    if (this.#tracer.on) traceTranslation(this.#tracer, table, relativeHi, relativeLo, found);
    return entryToMemory(table, found, this.#memory, length, access, out);
  }

  // The window that reaches a bus address; leaves the relative address in #relative. Where two do,
  // it is that of the higher number: all have one priority, and the table that was added last comes
  // first; the MSI window was added before them. [qemu v7.2 softmmu/memory.c
  // memory_region_update_container_subregions]
  #tableAt(hi: number, lo: number): TceTable | undefined {
    for (const table of this.#byPriority) {
      if (table.reaches(hi, lo, this.#relative)) return table;
    }
    return undefined;
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

function isMsiWindow(hi: number, lo: number): boolean {
  return hi === MSI_HI && lo >= MSI_LO && lo < MSI_LO + SPAPR_PCI_MSI_WINDOW_SIZE;
}

/**
 * QEMU looks for a closed table among the properties of the bridge, which GLib keeps in a hash
 * table. [qemu v7.2 hw/ppc/spapr_rtas_ddw.c spapr_phb_get_free_liobn] How GLib orders them was
 * inferred, not read: of the table sizes tried, only the prime 509 gives what QEMU 7.2.22 and
 * 10.0.13 answer on all 31 bridges, where the one with index 28 has its second table first.
 */
function searchOrder(tables: readonly TceTable[]): TceTable[] {
  const place = ({ liobn }: TceTable): number => {
    let hash = 5381;
    for (const character of `tce-table-${liobn.toString(16)}`) {
      hash = (Math.imul(hash, 33) + character.charCodeAt(0)) >>> 0;
    }
    return (Math.imul(hash, 11) >>> 0) % 509;
  };
  return [...tables].sort((a, b) => place(a) - place(b));
}
