/** The constants of the cost model: what each one is, and what of a run it is the price of. */
import type { CostCounts } from './counts.js';

/**
 * `base`: what a request costs on any path, the bypass too. `path`: what the path to memory adds.
 * Each constant is one or the other, so a ratio of times has it in one place only.
 */
export type CostRole = 'base' | 'path';

/** What is paid for. */
export interface CostItem {
  /** For people: `hypercalls that QEMU answers`. */
  readonly what: string;
  /** Of the constant: nanoseconds each, or bytes a second. */
  readonly unit: 'ns' | 'bytes/s';
  readonly role: CostRole;
  /** How many of them were counted; bytes where the unit is a rate. */
  readonly count: (counts: CostCounts) => number;
}

/** The names of the constants, in the order in which tables show them. */
export const COST_NAMES = [
  'request',
  'transfer',
  'kick',
  'interrupt',
  'hcallInQemu',
  'hcallInKvm',
  'tceInQemu',
  'tceInKvm',
  'sharePage',
  'iommuMap',
  'iommuCommand',
  'translation',
  'iotlbMiss',
  'iotlbInvalidation',
  'bounce',
] as const;
/** The name of a constant. */
export type CostName = (typeof COST_NAMES)[number];

/** What each is. */
export const COST_ITEMS: Readonly<Record<CostName, CostItem>> = {
  request: {
    what: 'the request itself: block layer, driver, device, storage',
    unit: 'ns',
    role: 'base',
    count: ({ requests }) => requests,
  },
  transfer: {
    what: 'data moved to and from storage',
    unit: 'bytes/s',
    role: 'base',
    count: ({ bytesMoved }) => bytesMoved,
  },
  kick: { what: 'kicks', unit: 'ns', role: 'base', count: ({ kicks }) => kicks },
  interrupt: {
    what: 'interrupts',
    unit: 'ns',
    role: 'base',
    count: ({ interrupts }) => interrupts,
  },
  hcallInQemu: {
    what: 'hypercalls that QEMU answers',
    unit: 'ns',
    role: 'path',
    count: ({ hcallsInQemu }) => hcallsInQemu,
  },
  hcallInKvm: {
    what: 'hypercalls that KVM answers',
    unit: 'ns',
    role: 'path',
    count: ({ hcallsInKvm }) => hcallsInKvm,
  },
  tceInQemu: {
    what: 'TCEs that QEMU writes',
    unit: 'ns',
    role: 'path',
    count: ({ tcesInQemu }) => tcesInQemu,
  },
  tceInKvm: {
    what: 'TCEs that KVM writes',
    unit: 'ns',
    role: 'path',
    count: ({ tcesInKvm }) => tcesInKvm,
  },
  sharePage: {
    what: 'calls by which a protected guest shares memory',
    unit: 'ns',
    role: 'path',
    count: ({ shareCalls }) => shareCalls,
  },
  iommuMap: {
    what: "maps and unmaps of the guest's IOMMU or grant driver",
    unit: 'ns',
    role: 'path',
    count: ({ iommuMaps }) => iommuMaps,
  },
  iommuCommand: {
    what: 'IOMMU commands that the hypervisor acts on',
    unit: 'ns',
    role: 'path',
    count: ({ iommuCommands }) => iommuCommands,
  },
  translation: {
    what: 'translations by QEMU',
    unit: 'ns',
    role: 'path',
    count: ({ translations }) => translations,
  },
  iotlbMiss: {
    what: 'IOTLB misses of vhost',
    unit: 'ns',
    role: 'path',
    count: ({ iotlbMisses }) => iotlbMisses,
  },
  iotlbInvalidation: {
    what: 'IOTLB invalidations sent to vhost',
    unit: 'ns',
    role: 'path',
    count: ({ iotlbInvalidations }) => iotlbInvalidations,
  },
  bounce: {
    what: 'bytes copied through bounce buffers',
    unit: 'bytes/s',
    role: 'path',
    count: ({ bytesBounced }) => bytesBounced,
  },
};
