// What cells must show, written from the platform table and the history of the decision that the
// project's domain notes give (not from the model). Each row: which cells, what, and why.
import type { CellOutcome } from '../../src/matrix/classify.js';

export interface Expected {
  /** policy/machine/flag/guest; the rest of an id is every data plane and every ring. */
  readonly place: string;
  readonly outcome: CellOutcome;
  readonly also?: readonly CellOutcome[];
  /** In the text. */
  readonly says?: RegExp;
  readonly because: string;
}

const LINUX = ['linux-4.18', 'linux-5.10', 'linux-6.1', 'linux-6.12', 'linux-7.2'];
const BOUNCES = /bounced/;

const each = (places: readonly string[], row: Omit<Expected, 'place'>): Expected[] =>
  places.map((place) => ({ place, ...row }));

export const EXPECTED: readonly Expected[] = [
  // pseries: physical addresses, or the window, or the second window.
  ...each(
    LINUX.map((kernel) => `${kernel}/pseries-pinhole/no-flag/normal`),
    { outcome: 'works', because: 'QEMU bypasses the IOMMU, the guest gives physical addresses' },
  ),
  ...each(
    LINUX.map((kernel) => `${kernel}/pseries-pinhole/flag/normal`),
    { outcome: 'works-slow', says: /hypercalls a request/, because: 'a hypercall a map and unmap' },
  ),
  ...each(
    LINUX.map((kernel) => `${kernel}/pseries-ddw/flag/normal`),
    { outcome: 'works', because: 'the second window is mapped once' },
  ),
  ...each(
    ['linux-4.18', 'linux-6.1'].map((kernel) => `${kernel}/pseries-ddw-lost/flag/normal`),
    {
      outcome: 'works',
      because: 'these kernels take the end of memory for its maximum, too: the window is not lost',
    },
  ),
  {
    place: 'linux-6.12/pseries-ddw-lost/flag/normal',
    outcome: 'works-slow',
    says: /hypercalls a request/,
    because: 'commit 6aa989ab2bd0: without maxmem the window has length 0, and RTAS refuses',
  },
  {
    place: 'linux-7.2/pseries-ddw-lost/flag/normal',
    outcome: 'leaks',
    also: ['works-slow'],
    says: /stay mapped for ever/,
    because: 'commit 1471c517cf7d: bus_dma_limit stays 1, each unmap is taken for direct',
  },
  // A secure pseries guest: powerpc refuses nothing.
  ...each(
    ['linux-5.10', 'linux-6.1', 'linux-6.12', 'linux-7.2'].flatMap((kernel) => [
      `${kernel}/pseries-pinhole/no-flag/secure`,
      `${kernel}/pseries-ddw/no-flag/secure`,
    ]),
    {
      outcome: 'isolation-broken',
      also: ['hangs'],
      says: /private page/,
      because: 'physical addresses of private pages',
    },
  ),
  ...each(
    ['linux-5.10', 'linux-6.1', 'linux-6.12', 'linux-7.2'].map(
      (kernel) => `${kernel}/pseries-ddw/flag/secure`,
    ),
    { outcome: 'works-slow', says: BOUNCES, because: 'bounce buffers at 2^59' },
  ),
  ...each(
    ['linux-5.10', 'linux-6.1', 'linux-6.12', 'linux-7.2'].map(
      (kernel) => `${kernel}/pseries-pinhole/flag/secure`,
    ),
    { outcome: 'isolation-broken', says: /private page/, because: 'TCEs of private pages' },
  ),
  // What was proposed in 2018.
  ...each(
    ['rfc-2018', 'rfc-2018-direct-ops'].map((rfc) => `${rfc}/pseries-pinhole/no-flag/secure`),
    {
      outcome: 'works-slow',
      says: BOUNCES,
      because: 'arch_virtio_wants_dma_ops(): bounce buffers, physical addresses, no flag',
    },
  ),
  ...each(
    ['rfc-2018', 'rfc-2018-direct-ops'].flatMap((rfc) => [
      `${rfc}/pseries-pinhole/no-flag/normal`,
      `${rfc}/arm64/no-flag/normal`,
    ]),
    { outcome: 'works', because: 'the platform does not ask: physical addresses' },
  ),
  {
    place: 'rfc-2018/arm64-offset/no-flag/normal',
    outcome: 'silently-wrong',
    also: ['contract-broken'],
    says: /the guest gave the bus address .* the device took it for a guest-physical address/,
    because: 'a DMA offset: the device was promised physical addresses',
  },
  {
    place: 'always-flag/pseries-pinhole/no-flag/normal',
    outcome: 'contract-broken',
    says: /the guest gave the bus address .* the device took it for a guest-physical address/,
    because: 'the guest uses the window, the host did not set the flag',
  },
  {
    place: 'always-flag/pseries-pinhole/flag/normal',
    outcome: 'works-slow',
    says: /hypercalls a request/,
    because: 'every device through the window',
  },
  // x86-64 without an IOMMU: the flag changes nothing; with one, it decides who translates.
  ...each(
    LINUX.flatMap((kernel) => [
      `${kernel}/x86-64/no-flag/normal`,
      `${kernel}/x86-64/flag/normal`,
      `${kernel}/x86-64-intel-iommu/no-flag/normal`,
    ]),
    { outcome: 'works', because: 'physical addresses either way' },
  ),
  ...each(
    LINUX.map((kernel) => `${kernel}/x86-64-intel-iommu/flag/normal`),
    { outcome: 'works-slow', says: /IOMMU maps and unmaps/, because: 'IOVAs through dma-iommu' },
  ),
  // SEV: refused since 5.13 by date, in no kernel before.
  ...each(
    ['linux-6.1', 'linux-6.12', 'linux-7.2'].map((kernel) => `${kernel}/x86-64/no-flag/secure`),
    {
      outcome: 'refused',
      says: /device must provide VIRTIO_F_ACCESS_PLATFORM/,
      because: 'the restricted-access check',
    },
  ),
  ...each(
    ['linux-4.18', 'linux-5.10'].map((kernel) => `${kernel}/x86-64/no-flag/secure`),
    { outcome: 'isolation-broken', because: 'the check came later' },
  ),
  ...each(
    ['linux-6.1', 'linux-6.12', 'linux-7.2'].map((kernel) => `${kernel}/x86-64/flag/secure`),
    { outcome: 'works-slow', says: BOUNCES, because: 'decrypted bounce buffers' },
  ),
  // arm64: dma-ranges count only with the flag; the SMMU translates only with it.
  ...each(
    LINUX.flatMap((kernel) => [
      `${kernel}/arm64/no-flag/normal`,
      `${kernel}/arm64/flag/normal`,
      `${kernel}/arm64-offset/no-flag/normal`,
      `${kernel}/arm64-smmuv3/no-flag/normal`,
    ]),
    { outcome: 'works', because: 'physical addresses, the offset ignored' },
  ),
  ...each(
    LINUX.map((kernel) => `${kernel}/arm64-offset/flag/normal`),
    { outcome: 'works', because: 'both sides move addresses as dma-ranges says' },
  ),
  ...each(
    LINUX.map((kernel) => `${kernel}/arm64-smmuv3/flag/normal`),
    { outcome: 'works-slow', says: /IOMMU maps and unmaps/, because: 'IOVAs' },
  ),
  // arm64 under pKVM: a device cannot see what is not shared; there is no check at probe.
  ...each(
    LINUX.map((kernel) => `${kernel}/arm64/no-flag/secure`),
    { outcome: 'isolation-broken', says: /nothing seen in clear/, because: 'private pages' },
  ),
  ...each(
    ['linux-6.1', 'linux-6.12', 'linux-7.2'].map((kernel) => `${kernel}/arm64/flag/secure`),
    { outcome: 'works-slow', says: BOUNCES, because: 'restricted-dma-pool' },
  ),
  // s390x, channel I/O: no IOMMU; protected guests refuse since 5.10.
  ...each(
    LINUX.flatMap((kernel) => [`${kernel}/s390x/no-flag/normal`, `${kernel}/s390x/flag/normal`]),
    { outcome: 'works', because: 'physical addresses either way' },
  ),
  ...each(
    ['linux-5.10', 'linux-6.1', 'linux-6.12', 'linux-7.2'].map(
      (kernel) => `${kernel}/s390x/no-flag/secure`,
    ),
    {
      outcome: 'refused',
      says: /device must provide VIRTIO_F_ACCESS_PLATFORM/,
      because: 'commit 0afa15e1a529',
    },
  ),
  {
    place: 'linux-4.18/s390x/no-flag/secure',
    outcome: 'isolation-broken',
    because: 'the check came with 5.10',
  },
  ...each(
    ['linux-5.10', 'linux-6.1', 'linux-6.12', 'linux-7.2'].map(
      (kernel) => `${kernel}/s390x/flag/secure`,
    ),
    { outcome: 'works-slow', says: BOUNCES, because: 'the pool is shared page by page' },
  ),
  // Xen: the DMA API always; with grants a device without the flag is refused. A kernel that does not
  // know them as bus addresses gives physical ones, and refuses nothing.
  ...each(
    ['linux-4.18', 'linux-5.10'].flatMap((kernel) => [
      `${kernel}/xen-grants/no-flag/normal`,
      `${kernel}/xen-grants/flag/normal`,
    ]),
    { outcome: 'hangs', because: 'the backend may map nothing that is not granted' },
  ),
  ...each(
    LINUX.flatMap((kernel) => [`${kernel}/xen/no-flag/normal`, `${kernel}/xen/flag/normal`]),
    { outcome: 'works', because: 'all of an HVM guest is memory of its backend' },
  ),
  ...each(
    ['linux-6.1', 'linux-6.12', 'linux-7.2'].map((kernel) => `${kernel}/xen-grants/no-flag/normal`),
    {
      outcome: 'refused',
      says: /device must provide VIRTIO_F_ACCESS_PLATFORM/,
      because: 'the restricted-access callback',
    },
  ),
  ...each(
    ['linux-6.1', 'linux-6.12', 'linux-7.2'].map((kernel) => `${kernel}/xen-grants/flag/normal`),
    { outcome: 'works-slow', because: 'a grant for each page: 2^63 + (grant << 12)' },
  ),
];
