import { hex, isSafeHi, joinNumber, type Liobn, NO_TRACE, type Tracer } from '@pinhole/base';
import {
  bytesToHole,
  type DmaAccess,
  type DmaSpace,
  DmaStatus,
  type GuestMemory,
  type Translation,
} from '@pinhole/memory';
import { TceError } from './errors.js';
import { SPAPR_TCE_PAGE_SHIFT, SPAPR_VIO_WINDOW_SIZE } from './params.js';
import { loadTable, type SavedVioDevice, saveTable } from './saved-state.js';
import { type TceLookup, TceTable } from './tce-table.js';
import { entryToMemory, traceTranslation } from './translate.js';

/** Options of {@link SpaprVioDevice}. */
export interface SpaprVioDeviceOptions {
  /** Its unit address, QEMU's `reg`: 32 bits; also the LIOBN of its window. */
  readonly reg: number;
  /** For people. Default: `vdevice`. */
  readonly name?: string;
  /** Bytes of its window at bus address 0; a multiple of 4 KiB. 0: it does no DMA. Default: 256 MiB. */
  readonly windowSize?: number;
  /** What lies behind the translation, as the hypervisor sees it. */
  readonly memory: GuestMemory;
  readonly tracer?: Tracer;
}

/**
 * A device of the virtual I/O bus (LAN, SCSI): it has a window of its own, and, unlike PCI, a
 * switch that takes the IOMMU out of its way. [qemu v7.2 hw/ppc/spapr_vio.c]
 */
export class SpaprVioDevice implements DmaSpace {
  readonly name: string;
  readonly reg: number;
  /** `undefined`: the device does no DMA. */
  readonly table: TceTable | undefined;
  readonly #memory: GuestMemory;
  readonly #tracer: Tracer;
  readonly #lookup: TceLookup = { hi: 0, lo: 0, perm: 0 };
  #isBypassed = false;

  /** @throws TceError `E_DMA_WINDOW` when the window or the unit address cannot be. */
  constructor(options: SpaprVioDeviceOptions) {
    this.reg = options.reg;
    this.name = `${options.name ?? 'vdevice'}@${options.reg.toString(16)}`;
    this.#memory = options.memory;
    this.#tracer = options.tracer ?? NO_TRACE;
    const windowSize = options.windowSize ?? SPAPR_VIO_WINDOW_SIZE;
    const isWhole = Number.isSafeInteger(windowSize) && windowSize >= 0 && windowSize % 4096 === 0;
    if (!isWhole || windowSize / 4096 >= 2 ** 32 || options.reg >>> 0 !== options.reg) {
      throw new TceError(
        'E_DMA_WINDOW',
        'expected a VIO device with a unit address of 32 bits and a window of whole 4 KiB pages ' +
          `(fewer than 2^32), found ${windowSize} bytes at unit ${hex(options.reg)}`,
        { details: { reg: options.reg, windowSize } },
      );
    }
    if (windowSize === 0) return;
    this.table = new TceTable(options.reg as Liobn);
    this.table.enable({
      pageShift: SPAPR_TCE_PAGE_SHIFT,
      busOffset: 0n,
      nbTable: windowSize / 2 ** SPAPR_TCE_PAGE_SHIFT,
    });
  }

  /** Whether a bus address is a guest-physical one now. */
  get isBypassed(): boolean {
    return this.#isBypassed;
  }

  /** The same, as devices ask it. */
  get isIdentity(): boolean {
    return this.#isBypassed;
  }

  /**
   * Takes the IOMMU out of the way, or puts it back; entries stay.
   * [qemu v7.2 hw/ppc/spapr_vio.c spapr_vio_set_bypass]
   */
  setBypass(isBypassed: boolean): void {
    this.#isBypassed = isBypassed && this.table !== undefined;
  }

  /** No entries, no bypass. [qemu v7.2 hw/ppc/spapr_vio.c spapr_vio_busdev_reset] */
  reset(): void {
    this.table?.clear();
    this.#isBypassed = false;
  }

  translate(
    hi: number,
    lo: number,
    length: number,
    access: DmaAccess,
    out: Translation,
  ): DmaStatus {
    const { table } = this;
    const address = joinNumber(hi, lo);
    // The space of the device is as large as memory, whatever its window. [spapr_vio_busdev_realize]
    const room = isSafeHi(hi) ? this.#ramSize - address : 0;
    if (table === undefined || room <= 0) return DmaStatus.NOTHING_THERE;
    const wanted = Math.min(length, room);
    if (this.#isBypassed) {
      out.gpa = address;
      out.length = wanted;
      return DmaStatus.OK;
    }
    if (!table.reaches(hi, lo, this.#lookup)) return DmaStatus.NOTHING_THERE;
    table.lookup(hi, lo, this.#lookup);
    if (this.#tracer.on) traceTranslation(this.#tracer, table, hi, lo, this.#lookup);
    return entryToMemory(table, this.#lookup, this.#memory, wanted, access, out);
  }

  covers(hi: number, lo: number, length: number): boolean {
    if (this.table === undefined || !isSafeHi(hi)) return false;
    const windowSize = this.table.nbTable * this.table.pageSize;
    const end = joinNumber(hi, lo) + length;
    return end <= this.#ramSize && (this.#isBypassed || end <= windowSize);
  }

  /** What a save must keep. */
  save(): SavedVioDevice {
    const table = this.table === undefined ? null : saveTable(this.table);
    return { reg: this.reg, bypass: this.#isBypassed, table };
  }

  /** Makes the device what was saved; `SpaprIommu.restore` has checked that it fits. */
  load(saved: SavedVioDevice): void {
    if (this.table !== undefined && saved.table !== null) loadTable(this.table, saved.table);
    this.setBypass(saved.bypass);
  }

  get #ramSize(): number {
    return bytesToHole(this.#memory, 0);
  }
}
