import { NO_TRACE, type Tracer } from '@pinhole/base';
import type { FdtNode } from '@pinhole/fdt';
import { bytesToHole, type GuestMemory } from '@pinhole/memory';
import {
  type SavedIommu,
  SpaprIommu,
  SpaprPhb,
  type SpaprPhbOptions,
  SpaprVioDevice,
  type SpaprVioDeviceOptions,
  spaprMachineDefaults,
  TceError,
} from '@pinhole/tce';
import { createDmaDeviceTree } from './device-tree.js';
import { type QemuProfile, qemuProfile } from './qemu-profiles.js';
import { createSpaprHypercalls, type SpaprHypercalls, type TceHandler } from './spapr-hcalls.js';

/** Memory that is added starts at a multiple of this. [qemu v7.2 include/hw/ppc/spapr.h SPAPR_DEVICE_MEM_ALIGN] */
const DEVICE_MEM_ALIGN = 2 ** 30;

/** One host bridge of a machine; what is left out is the machine type's. */
export type SpaprPhbConfig = Omit<SpaprPhbOptions, 'memory' | 'tracer'>;
/** One VIO device of a machine. */
export type SpaprVioConfig = Omit<SpaprVioDeviceOptions, 'memory' | 'tracer'>;

/** Options of {@link SpaprMachine}; defaults are QEMU's. */
export interface SpaprMachineOptions {
  /** Guest memory as the hypervisor sees it. */
  readonly memory: GuestMemory;
  /** `pseries`, or `pseries-2.6` and such: decides what the host bridges can do. */
  readonly machineType?: string;
  /** Which QEMU: what is published differs. Default: 7.2. */
  readonly qemu?: QemuProfile['id'];
  /** QEMU's `maxmem` in bytes: room for memory to be added. Default: none. */
  readonly maxMemory?: number;
  /** QEMU's `-smp`. Default: 1. */
  readonly cpus?: number;
  readonly tceHandler?: TceHandler;
  /** See `SpaprHypercallsOptions`. */
  readonly kvmTceVfio?: boolean;
  /** Default: one, with index 0. */
  readonly phbs?: readonly SpaprPhbConfig[];
  readonly vio?: readonly SpaprVioConfig[];
  readonly tracer?: Tracer;
}

/** What `SpaprMachine.save` gives: plain JSON. */
export interface SavedMachine {
  readonly schemaVersion: 1;
  readonly iommu: SavedIommu;
}

/** The hypervisor's side of a pseries machine, put together: windows, calls, device tree. */
export class SpaprMachine {
  readonly iommu: SpaprIommu;
  readonly hypercalls: SpaprHypercalls;
  /** Guest memory as the hypervisor sees it. */
  readonly memory: GuestMemory;
  readonly #options: SpaprMachineOptions;

  /** @throws TceError when such a machine cannot be: its type, a window, two equal LIOBNs. */
  constructor(options: SpaprMachineOptions) {
    const { memory, tceHandler, kvmTceVfio, tracer = NO_TRACE } = options;
    this.#options = options;
    this.memory = memory;
    const defaults = spaprMachineDefaults(options.machineType ?? 'pseries');
    const phbs = (options.phbs ?? [{}]).map(
      (phb) => new SpaprPhb({ ...defaults, ...phb, memory, tracer }),
    );
    const vio = (options.vio ?? []).map(
      (device) => new SpaprVioDevice({ ...device, memory, tracer }),
    );
    this.iommu = new SpaprIommu({ phbs, vio });
    this.hypercalls = createSpaprHypercalls({
      iommu: this.iommu,
      memory,
      tracer,
      ...(tceHandler === undefined ? {} : { tceHandler }),
      ...(kvmTceVfio === undefined ? {} : { kvmTceVfio }),
    });
  }

  /** As QEMU's `system_reset`: windows as at the start. Memory keeps its contents. */
  reset(): void {
    this.iommu.reset();
  }

  /** The state of the IOMMU, for `restore`. Memory is not part of it. */
  save(): SavedMachine {
    return { schemaVersion: 1, iommu: this.iommu.save() };
  }

  /**
   * Takes up a saved state.
   * @param saved - what `save` of a machine with the same options gave; nothing in it is trusted.
   * @throws TceError `E_SAVED_STATE`, before anything is changed.
   */
  restore(saved: unknown): void {
    const { schemaVersion, iommu } = (saved ?? {}) as Partial<SavedMachine>;
    if (schemaVersion !== 1) {
      const isShown = ['number', 'string', 'undefined'].includes(typeof schemaVersion);
      const found = isShown ? String(schemaVersion).slice(0, 60) : 'something else';
      throw new TceError(
        'E_SAVED_STATE',
        `saved state: schemaVersion: expected 1, found ${found}`,
        { details: { path: 'schemaVersion' } },
      );
    }
    this.iommu.restore(iommu);
  }

  /**
   * What of the machine's device tree concerns DMA: a root with `/rtas`, the host bridges, and
   * `/vdevice`. Nodes and properties are in QEMU's order and have its bytes.
   */
  deviceTree(): FdtNode {
    const { machineType = 'pseries', cpus = 1 } = this.#options;
    return createDmaDeviceTree(this.iommu, {
      machineType,
      cpus,
      lrdrMaxAddress: this.lrdrMaxAddress,
    });
  }

  /**
   * The first value of `ibm,lrdr-capacity`: where memory that is added could end. QEMU 7.2 says 0
   * where none can be; QEMU 10.0 says where memory ends. [qemu v7.2 hw/ppc/spapr.c spapr_dt_rtas]
   */
  get lrdrMaxAddress(): number {
    const { qemu, maxMemory } = this.#options;
    const size = bytesToHole(this.memory, 0);
    if (maxMemory === undefined || maxMemory === size) {
      return qemuProfile(qemu).lrdrWithoutMaxmem === 'zero' ? 0 : size;
    }
    return Math.ceil(size / DEVICE_MEM_ALIGN) * DEVICE_MEM_ALIGN + (maxMemory - size);
  }
}
