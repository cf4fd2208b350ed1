/** The messages that carry a fact, as patterns over a line without its prefix. */

import type { ConsoleFact, ConsoleFactBase } from './console-facts.js';

type WithoutBase<Fact> = Fact extends ConsoleFact ? Omit<Fact, keyof ConsoleFactBase> : never;

/** A fact before it is known where it stood. */
export type FactBody = WithoutBase<ConsoleFact>;

/** `undefined` when the numbers cannot be: then the line is not the kernel's. */
type ToFact = (groups: Readonly<Record<string, string>>) => FactBody | undefined;

interface Pattern {
  /** What is searched for before anything else; no pattern matches without it. */
  readonly word: string;
  readonly regex: RegExp;
  readonly toFact: ToFact;
}

/** What `dev_info` prints first: the driver and the device, or for want of a driver the bus. */
const DEVICE = '(?:\\S+ )?(?<device>\\S+): ';
const BUID = '(?<hi>[0-9a-f]{1,8}) (?<lo>[0-9a-f]{1,8})';
const MIN_PAGE = 4096;
const MAX_PAGE = 1 << 20;

const hex = (text: string | undefined): number => Number.parseInt(text as string, 16);
const big = (text: string | undefined): bigint => BigInt(`0x${text}`);
const pair = (hi: string | undefined, lo: string | undefined): bigint => (big(hi) << 32n) | big(lo);

/** An RTAS call's token and whom it is about. */
const rtasCall = ({ device, token, addr, hi, lo, status }: Readonly<Record<string, string>>) => ({
  device: device as string,
  token: hex(token),
  configAddr: hex(addr),
  buid: pair(hi, lo),
  status: Number(status),
});

function pattern(word: string, source: string, toFact: ToFact): Pattern {
  return { word, regex: new RegExp(`^${source}`), toFact };
}

/** In the order in which they are tried. */
export const CONSOLE_PATTERNS: readonly Pattern[] = [
  pattern(
    'Linux version ',
    '(?:Preparing to boot )?Linux version (?<release>\\S+) (?<build>.*)$',
    ({ release, build }) => ({ kind: 'kernel', release: release!, build: build! }),
  ),
  pattern('ommand line: ', '(?:Kernel command|[Cc]ommand) line: ?(?<text>.*)$', ({ text }) => ({
    kind: 'command-line',
    commandLine: text!.trimEnd(),
  })),
  pattern(
    'hash table entries: ',
    '.+ hash table entries: \\d+ \\(order: (?<order>\\d{1,2}), (?<bytes>\\d{1,15}) bytes',
    ({ order, bytes }) => {
      // Below one page the order is 0, whatever the size.
      const page = Number(bytes) / 2 ** Number(order);
      const isPage = page >= MIN_PAGE && page <= MAX_PAGE && Number.isInteger(Math.log2(page));
      return isPage && order !== '0' ? { kind: 'page-size', bytes: page } : undefined;
    },
  ),
  pattern(
    'smp: Brought up ',
    'smp: Brought up (?<nodes>\\d{1,9}) nodes?, (?<cpus>\\d{1,9}) CPUs?$',
    ({ nodes, cpus }) => ({ kind: 'cpus', cpus: Number(cpus), nodes: Number(nodes) }),
  ),
  pattern(
    'K available (',
    'Memory: (?<free>\\d{1,12})K/(?<all>\\d{1,12})K available \\(',
    ({ free, all }) => ({
      kind: 'memory',
      availableBytes: Number(free) * 1024,
      totalBytes: Number(all) * 1024,
    }),
  ),
  pattern(
    '/pci@',
    // What the firmware counts out before it stays in front of its first bridge.
    '(?:PCI host bridge|.{0,400}Populating) (?<path>/pci@(?<unit>[0-9a-f]{1,16}))(?: +ranges:)?$',
    ({ path, unit }) => ({ kind: 'host-bridge', path: path!, buid: big(unit) }),
  ),
  pattern(
    ' (D) : ',
    ' *(?<bus>[0-9a-f]{2}) (?<devfn>[0-9a-f]{2})00 \\(D\\) : (?<vendor>[0-9a-f]{4}) (?<id>[0-9a-f]{4}) +(?<name>.*)$',
    ({ bus, devfn, vendor, id, name }) => ({
      kind: 'pci-device',
      source: 'firmware',
      address: `${bus}:${(hex(devfn) >> 3).toString(16).padStart(2, '0')}.${hex(devfn) & 7}`,
      vendor: hex(vendor),
      device: hex(id),
      name: name!.trimEnd(),
    }),
  ),
  pattern(
    '] type ',
    'pci (?<address>[0-9a-f:.]+): \\[(?<vendor>[0-9a-f]{4}):(?<id>[0-9a-f]{4})\\] type ',
    ({ address, vendor, id }) => ({
      kind: 'pci-device',
      source: 'kernel',
      address: address!,
      vendor: hex(vendor),
      device: hex(id),
    }),
  ),
  pattern(
    'Adding to iommu group ',
    `${DEVICE}Adding to iommu group (?<group>\\d{1,9})$`,
    ({ device, group }) => ({ kind: 'iommu-group', device: device!, group: Number(group) }),
  ),
  pattern(
    'IOMMU table initialized',
    'IOMMU table initialized, virtual merging (?<state>enabled|disabled)$',
    ({ state }) => ({ kind: 'iommu-table', virtualMerging: state === 'enabled' }),
  ),
  pattern(
    'Default domain type: ',
    'iommu: Default domain type: (?<domain>\\S+) ?(?<how>\\(set via kernel command line\\))?',
    ({ domain, how }) => ({
      kind: 'iommu-domain',
      domain: domain!,
      fromCommandLine: how !== undefined,
    }),
  ),
  pattern(
    'TLB invalidation policy: ',
    'iommu: DMA domain TLB invalidation policy: (?<mode>strict|lazy) mode',
    ({ mode }) => ({ kind: 'iommu-policy', isStrict: mode === 'strict' }),
  ),
  pattern(
    'ibm,query-pe-dma-windows(',
    `${DEVICE}ibm,query-pe-dma-windows\\((?<token>[0-9a-f]{1,8})\\) (?<addr>[0-9a-f]{1,8}) ${BUID} returned (?<status>-?\\d{1,9})(?:, lb=(?<lb>[0-9a-f]{1,16}) ps=(?<ps>[0-9a-f]{1,8}) wn=(?<wn>\\d{1,9}))?$`,
    (groups) => ({
      kind: 'ddw-query',
      ...rtasCall(groups),
      ...(groups.lb === undefined
        ? {}
        : {
            largestBlock: big(groups.lb),
            pageSizes: hex(groups.ps),
            windowsAvailable: Number(groups.wn),
          }),
    }),
  ),
  pattern(
    'ibm,create-pe-dma-window(',
    `${DEVICE}ibm,create-pe-dma-window\\((?<token>[0-9a-f]{1,8})\\) (?<addr>[0-9a-f]{1,8}) ${BUID} (?<page>[0-9a-f]{1,8}) (?<window>[0-9a-f]{1,8}) returned (?<status>-?\\d{1,9}) \\(liobn = 0x(?<liobn>[0-9a-f]{1,8}) starting addr = (?<startHi>[0-9a-f]{1,8}) (?<startLo>[0-9a-f]{1,8})\\)$`,
    (groups) => ({
      kind: 'ddw-create',
      ...rtasCall(groups),
      pageShift: hex(groups.page),
      windowShift: hex(groups.window),
      liobn: hex(groups.liobn),
      address: pair(groups.startHi, groups.startLo),
    }),
  ),
  pattern(
    'ibm,reset-pe-dma-windows(',
    `${DEVICE}ibm,reset-pe-dma-windows\\((?<token>[0-9a-f]{1,8})\\) (?:for Limited Addr Support: )?(?<addr>[0-9a-f]{1,8}) ${BUID} returned (?<status>-?\\d{1,9}) *$`,
    (groups) => ({ kind: 'ddw-reset', ...rtasCall(groups) }),
  ),
  ...[
    "current IOMMU table in use, can't be replaced.",
    'Limited Address Space for DDW not Supported',
    'failed to map DMA window for ',
    'unable to add DMA window property for ',
    "couldn't allocate property, property name, or value",
    'Removed default DMA window for ',
    'Skipping ibm,pmemory',
  ].map((note) =>
    pattern(
      note,
      `${DEVICE}(?<message>${note.replaceAll('.', '\\.')}.*)$`,
      ({ device, message }) => ({ kind: 'ddw-note', device: device!, message: message! }),
    ),
  ),
  pattern(
    'lsa_required: ',
    `${DEVICE}lsa_required: (?<required>[01]), lsa_enabled: (?<enabled>[01]), direct mapping: (?<direct>[01])$`,
    ({ device, required, enabled, direct }) => ({
      kind: 'direct-mapping',
      device: device!,
      lsaRequired: required === '1',
      lsaEnabled: enabled === '1',
      directMapping: direct === '1',
    }),
  ),
  pattern(
    '64-bit OK but direct DMA',
    `${DEVICE}iommu: 64-bit OK but direct DMA is limited by (?<limit>[0-9a-f]{1,16})$`,
    ({ device, limit }) => ({ kind: 'dma-limit', device: device!, limit: big(limit) }),
  ),
  // Without a device it is an old kernel, which prints the number of pages in hex.
  pattern(
    'iommu_alloc failed, tbl ',
    `(?:${DEVICE})?iommu_alloc failed, tbl (?<table>\\S+) vaddr (?<vaddr>\\S+) npages (?<npages>[0-9a-f]{1,9})$`,
    ({ device, table, vaddr, npages }) => ({
      kind: 'iommu-alloc-failed',
      ...(device === undefined ? {} : { device }),
      table: table!,
      vaddr: vaddr!,
      npages: Number.parseInt(npages!, device === undefined ? 16 : 10),
    }),
  ),
  pattern(
    ' callbacks suppressed',
    '(?<name>\\w+): (?<count>\\d{1,9}) callbacks suppressed$',
    ({ name, count }) => ({ kind: 'suppressed', function: name!, count: Number(count) }),
  ),
  pattern(
    'software IO TLB: mapped ',
    'software IO TLB: mapped \\[mem 0x(?<start>[0-9a-f]{1,16})-0x(?<end>[0-9a-f]{1,16})\\] \\((?<mb>\\d{1,9})MB\\)$',
    ({ start, end, mb }) => ({
      kind: 'swiotlb',
      start: big(start),
      end: big(end),
      bytes: Number(mb) * 2 ** 20,
    }),
  ),
  pattern(
    'software IO TLB: area num ',
    'software IO TLB: area num (?<areas>\\d{1,9})\\.$',
    ({ areas }) => ({ kind: 'swiotlb-areas', areas: Number(areas) }),
  ),
  pattern(
    'swiotlb buffer is full',
    `${DEVICE}swiotlb buffer is full \\(sz: (?<bytes>\\d{1,15}) bytes\\), total (?<total>\\d{1,12}) \\(slots\\), used (?<used>\\d{1,12}) \\(slots\\)$`,
    ({ device, bytes, total, used }) => ({
      kind: 'swiotlb-full',
      device: device!,
      bytes: Number(bytes),
      totalSlots: Number(total),
      usedSlots: Number(used),
    }),
  ),
  pattern(
    'device must provide ',
    `${DEVICE}(?:virtio: )?device must provide (?<feature>VIRTIO_F_\\w+)$`,
    ({ device, feature }) => ({ kind: 'virtio-required', device: device!, feature: feature! }),
  ),
  pattern(
    'device refuses features',
    `${DEVICE}virtio: device refuses features: (?<status>[0-9a-f]{1,8})$`,
    ({ device, status }) => ({ kind: 'virtio-refused', device: device!, status: hex(status) }),
  ),
  pattern(
    ' features ',
    'dev (?:\\S*/)?(?<device>\\S+) features (?<bits>[01]{64}|[01]{128}) status 0x(?<status>[0-9a-f]{1,8})$',
    ({ device, bits, status }) => ({
      kind: 'virtio-features',
      device: device!,
      ...features(bits!),
      status: hex(status),
    }),
  ),
  pattern('0', '(?<bits>[01]{64}|[01]{128})$', ({ bits }) => ({
    kind: 'virtio-features',
    ...features(bits!),
  })),
  pattern(
    'Memory Encryption Features active: ',
    '(?<old>AMD )?Memory Encryption Features active: (?<names>.+)$',
    ({ old, names }) => ({
      kind: 'memory-encryption',
      features: `${old ?? ''}${names!.trimEnd()}`,
    }),
  ),
  // [linux arch/x86/kernel/cpu/hypervisor.c detect_hypervisor_vendor]
  pattern('Hypervisor detected: ', 'Hypervisor detected: (?<name>\\S.{0,39})$', ({ name }) => ({
    kind: 'hypervisor',
    name: name!.trimEnd(),
  })),
  // [linux arch/arm/xen/enlighten.c xen_early_init]
  pattern(' support found', '(?<name>Xen) \\S{1,40} support found', ({ name }) => ({
    kind: 'hypervisor',
    name: name!,
  })),
];

/** Character k from the left is bit k. */
function features(bits: string): { features: bigint; width: number } {
  return { features: BigInt(`0b${[...bits].reverse().join('')}`), width: bits.length };
}
