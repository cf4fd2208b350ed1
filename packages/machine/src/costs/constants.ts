/** The constants of the cost model: what each one is, and what a run counts for it. */
import type { RunReport } from '../report.js';

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
  /** How many in the whole run; bytes where the unit is a rate. */
  readonly count: (report: RunReport) => number;
}

const hcalls = (report: RunReport): number =>
  Object.values(report.counters.workload.hcalls).reduce((sum, count) => sum + count, 0);
const ofHandler =
  (handler: 'qemu' | 'kvm', count: (report: RunReport) => number) =>
  (report: RunReport): number =>
    report.machine.tceHandler === handler ? count(report) : 0;

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
    count: ({ data }) => data.requests,
  },
  transfer: {
    what: 'data moved to and from storage',
    unit: 'bytes/s',
    role: 'base',
    count: ({ data }) => data.bytesRead + data.bytesWritten,
  },
  kick: {
    what: 'kicks',
    unit: 'ns',
    role: 'base',
    count: ({ counters }) => counters.workload.kicks,
  },
  interrupt: {
    what: 'interrupts',
    unit: 'ns',
    role: 'base',
    count: ({ counters }) => counters.workload.interrupts,
  },
  hcallInQemu: {
    what: 'hypercalls that QEMU answers',
    unit: 'ns',
    role: 'path',
    count: ofHandler('qemu', hcalls),
  },
  hcallInKvm: {
    what: 'hypercalls that KVM answers',
    unit: 'ns',
    role: 'path',
    count: ofHandler('kvm', hcalls),
  },
  tceInQemu: {
    what: 'TCEs that QEMU writes',
    unit: 'ns',
    role: 'path',
    count: ofHandler('qemu', ({ counters }) => counters.workload.tcesWritten),
  },
  tceInKvm: {
    what: 'TCEs that KVM writes',
    unit: 'ns',
    role: 'path',
    count: ofHandler('kvm', ({ counters }) => counters.workload.tcesWritten),
  },
  iommuMap: {
    what: "maps and unmaps of the guest's IOMMU driver",
    unit: 'ns',
    role: 'path',
    count: ({ counters: { workload } }) => workload.iommu.maps + workload.iommu.unmaps,
  },
  iommuCommand: {
    what: 'IOMMU commands that the hypervisor acts on',
    unit: 'ns',
    role: 'path',
    count: ({ counters }) => counters.workload.iommu.commands,
  },
  translation: {
    what: 'translations by QEMU',
    unit: 'ns',
    role: 'path',
    // What vhost asks for is in its misses.
    count: ({ counters }) => (counters.vhost === null ? counters.workload.translations : 0),
  },
  iotlbMiss: {
    what: 'IOTLB misses of vhost',
    unit: 'ns',
    role: 'path',
    count: ({ counters, data }) => (counters.vhost?.missesPerRequest ?? 0) * data.requests,
  },
  iotlbInvalidation: {
    what: 'IOTLB invalidations sent to vhost',
    unit: 'ns',
    role: 'path',
    count: ({ counters, data }) => (counters.vhost?.invalidatesPerRequest ?? 0) * data.requests,
  },
  bounce: {
    what: 'bytes copied through bounce buffers',
    unit: 'bytes/s',
    role: 'path',
    count: ({ counters }) => counters.workload.bytesBounced,
  },
};
