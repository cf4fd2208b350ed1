/** What a flattened device tree says about DMA, and what it does not. */
import { formatSize, ModelError } from '@pinhole/base';
import {
  decodeCells,
  decodeStrings,
  type FdtNode,
  findNode,
  findProperty,
  parseFdt,
} from '@pinhole/fdt';
import { ExplainError } from './errors.js';
import type { Finding } from './explanation.js';
import type { BridgeFacts, DeviceFacts, Fact, MachineFacts, PlatformId } from './facts.js';
import { TRANSITIONAL_PCI_IDS, VIRTIO_KINDS } from './virtio-models.js';

/** Red Hat's, which virtio devices have. [VIRTIO 1.2 §4.1.2 "PCI Device Discovery"] */
const VIRTIO_VENDOR = 0x1af4;
const MODERN_BASE = 0x1040;
/** Memory that is added starts at a multiple of this. [qemu v7.2 include/hw/ppc/spapr.h SPAPR_DEVICE_MEM_ALIGN] */
const DEVICE_MEM_ALIGN = 2 ** 30;

/** The machine of a tree, the virtio devices in it, and what it leaves open. */
export interface DeviceTreeReport {
  readonly machine: MachineFacts;
  readonly devices: readonly DeviceFacts[];
  readonly findings: readonly Finding[];
  readonly notes: readonly string[];
  readonly notUnderstood: readonly [];
}

/** @throws ExplainError `E_DEVICE_TREE` for bytes that are no device tree. */
export function describeDeviceTree(bytes: Uint8Array): DeviceTreeReport {
  try {
    return new TreeReader(parseFdt(bytes).root).describe();
  } catch (error) {
    if (!(error instanceof ModelError) || error instanceof ExplainError) throw error;
    throw new ExplainError('E_DEVICE_TREE', error.message, { cause: error });
  }
}

class TreeReader {
  readonly #root: FdtNode;
  readonly #facts: Fact[] = [];
  readonly #findings: Finding[] = [];

  constructor(root: FdtNode) {
    this.#root = root;
  }

  describe(): DeviceTreeReport {
    const platform = this.#platform();
    const isPseries = platform === 'pseries';
    const memory = this.#memory();
    const lrdr = isPseries ? this.#lrdr() : undefined;
    const bridges = isPseries ? this.#bridges() : [];
    const viommu = isPseries ? undefined : this.#viommu();
    const dmaRanges = isPseries ? undefined : this.#dmaRanges();
    this.#restrictedPool();
    if (isPseries) this.#multiTce();
    const bootargs = strings(findNode(this.#root, '/chosen'), 'bootargs')[0] ?? '';
    const machine: MachineFacts = {
      platform,
      machineType: isPseries ? 'pseries' : platform === 'arm64' ? 'virt' : platform,
      memory,
      ...room(memory, lrdr),
      cpus: 1,
      accel: 'other',
      bridges,
      viommu,
      dmaRanges,
      kernelParameters: bootargs,
      refusals: [],
      facts: this.#facts,
    };
    return {
      machine,
      devices: this.#devices(platform, viommu),
      findings: this.#findings,
      notes: [
        'a device tree does not say whether a virtio device is to go past the IOMMU: both answers are given where the device could do either',
      ],
      notUnderstood: [],
    };
  }

  #platform(): PlatformId {
    const compatible = strings(this.#root, 'compatible');
    const model = strings(this.#root, 'model')[0] ?? '';
    const isPapr =
      findNode(this.#root, '/rtas') !== undefined &&
      /pseries|chrp/i.test(
        [...compatible, model, strings(this.#root, 'device_type')[0] ?? ''].join(' '),
      );
    const platform: PlatformId | undefined = isPapr
      ? 'pseries'
      : compatible.some((name) => name.startsWith('ibm,powernv'))
        ? 'powernv'
        : findNode(this.#root, '/psci') !== undefined || this.#hasArmCpu()
          ? 'arm64'
          : undefined;
    if (platform === undefined) {
      throw new ExplainError(
        'E_DEVICE_TREE',
        `expected the tree of a pseries, powernv or Arm machine, found compatible "${compatible.join(', ') || 'nothing'}": only those are known`,
      );
    }
    this.#fact('platform', platform, `/ compatible "${compatible[0] ?? ''}"`);
    return platform;
  }

  #hasArmCpu(): boolean {
    const cpus = findNode(this.#root, '/cpus')?.children ?? [];
    return cpus.some((cpu) => strings(cpu, 'compatible').some((name) => name.startsWith('arm,')));
  }

  #memory(): number {
    const addressCells = cells(this.#root, '#address-cells')?.[0] ?? 2;
    const sizeCells = cells(this.#root, '#size-cells')?.[0] ?? 1;
    let total = 0n;
    for (const node of this.#root.children) {
      if (strings(node, 'device_type')[0] !== 'memory') continue;
      const reg = cells(node, 'reg') ?? [];
      for (
        let at = 0;
        at + addressCells + sizeCells <= reg.length;
        at += addressCells + sizeCells
      ) {
        total += join(reg.slice(at + addressCells, at + addressCells + sizeCells));
      }
    }
    const dynamic = findNode(this.#root, '/ibm,dynamic-reconfiguration-memory');
    if (dynamic !== undefined) {
      const isV2 = findProperty(dynamic, 'ibm,dynamic-memory-v2') !== undefined;
      this.#fact(
        'memory that can be added',
        'described block by block',
        `/ibm,dynamic-reconfiguration-memory ibm,dynamic-memory${isV2 ? '-v2' : ''}`,
      );
    }
    this.#fact('memory', formatSize(Number(total)), '/memory reg');
    return Number(total);
  }

  // The first two cells are the highest address that memory can have.
  #lrdr(): number | undefined {
    const value = cells(findNode(this.#root, '/rtas'), 'ibm,lrdr-capacity');
    if (value === undefined) {
      this.#fact('room for hotplug', 'not said', 'no /rtas ibm,lrdr-capacity');
      return undefined;
    }
    const max = Number(join(value.slice(0, 2)));
    this.#fact('highest address of memory', `0x${max.toString(16)}`, '/rtas ibm,lrdr-capacity');
    if (max === 0) {
      this.#findings.push({
        id: 'lrdr-zero',
        severity: 'warning',
        text: 'ibm,lrdr-capacity is 0: QEMU up to 7.2 without maxmem. A kernel that sizes the second window by it alone (6.12.y) asks for a window of nothing, is refused, and pays a hypercall for each map and unmap.',
        line: null,
        fix: '-m SIZE,slots=2,maxmem=LARGER, or a newer QEMU',
        source: '[qemu v7.2 hw/ppc/spapr.c spapr_dt_rtas]',
      });
    }
    return max;
  }

  #multiTce(): void {
    const functions = strings(findNode(this.#root, '/rtas'), 'ibm,hypertas-functions');
    const has = functions.includes('hcall-multi-tce');
    this.#fact(
      'many TCEs a hypercall',
      has ? 'yes' : 'no',
      '/rtas ibm,hypertas-functions hcall-multi-tce',
    );
    if (has) return;
    this.#findings.push({
      id: 'no-multi-tce',
      severity: 'warning',
      text: 'hcall-multi-tce is missing: every page that is mapped, and every one that is unmapped, costs a hypercall of its own. The costs shown are with it.',
      line: null,
      fix: null,
      source: '[linux v6.1 arch/powerpc/platforms/pseries/firmware.c]',
    });
  }

  #bridges(): BridgeFacts[] {
    return this.#pciNodes().map((node, at) => {
      const window = cells(node, 'ibm,dma-window');
      const ddw = cells(node, 'ibm,ddw-applicable') !== undefined;
      const extensions = cells(node, 'ibm,ddw-extensions');
      const liobn = window?.[0] ?? 0;
      const index = window === undefined ? at : (liobn >>> 8) & 0xff;
      const size = window === undefined ? 0 : Number(join(window.slice(3, 5)));
      const path = `/${node.name}`;
      this.#fact(
        `default window of host bridge ${index}`,
        window === undefined
          ? 'none'
          : `${formatSize(size)} at 0x${join(window.slice(1, 3)).toString(16)}, LIOBN 0x${liobn.toString(16)}`,
        `${path} ibm,dma-window`,
      );
      this.#fact(
        `second window of host bridge ${index}`,
        ddw ? 'can be asked for' : 'cannot be asked for',
        `${path} ${ddw ? '' : 'has no '}ibm,ddw-applicable`,
      );
      return {
        index,
        ddw,
        dmaWindowSize: size === 0 ? undefined : size,
        dmaWindowAddress: window === undefined ? undefined : join(window.slice(1, 3)),
        limitedAddressMode: (extensions?.[0] ?? 0) >= 3,
      };
    });
  }

  #pciNodes(): FdtNode[] {
    return this.#root.children.filter((node) => strings(node, 'device_type')[0] === 'pci');
  }

  #viommu(): string | undefined {
    const node = all(this.#root).find((one) =>
      strings(one, 'compatible').some((name) => /smmu|virtio,(pci-)?iommu/.test(name)),
    );
    if (node === undefined) return undefined;
    const name = strings(node, 'compatible')[0] ?? node.name;
    const hasMap = this.#pciNodes().some((pci) => findProperty(pci, 'iommu-map') !== undefined);
    this.#fact('IOMMU', name, node.name);
    this.#fact(
      'PCI devices behind it',
      hasMap ? 'yes' : 'no',
      `${this.#pciNodes()[0]?.name ?? 'no PCI node'} ${hasMap ? 'iommu-map' : 'has no iommu-map'}`,
    );
    return hasMap ? name : undefined;
  }

  // [linux v6.1 drivers/of/address.c of_dma_get_range]
  #dmaRanges(): MachineFacts['dmaRanges'] {
    for (const [node, parent] of withParents(this.#root)) {
      const value = cells(node, 'dma-ranges');
      if (value === undefined || value.length === 0) continue;
      const bus = cells(node, '#address-cells')?.[0] ?? 2;
      const cpu = cells(parent, '#address-cells')?.[0] ?? 2;
      const size = cells(node, '#size-cells')?.[0] ?? 1;
      const ranges: { cpu: bigint; bus: bigint; size: bigint }[] = [];
      for (let at = 0; at + bus + cpu + size <= value.length; at += bus + cpu + size) {
        // PCI addresses start with a cell of flags.
        const busCells = value.slice(bus === 3 ? at + 1 : at, at + bus);
        ranges.push({
          bus: join(busCells),
          cpu: join(value.slice(at + bus, at + bus + cpu)),
          size: join(value.slice(at + bus + cpu, at + bus + cpu + size)),
        });
      }
      const text = ranges
        .map((range) => `0x${range.cpu.toString(16)} is 0x${range.bus.toString(16)} on the bus`)
        .join(', ');
      this.#fact('DMA offset', text, `${node.name} dma-ranges`);
      return ranges;
    }
    this.#fact('DMA offset', 'none: devices find memory where it is', 'no dma-ranges');
    return undefined;
  }

  #restrictedPool(): void {
    const pool = all(this.#root).find((node) =>
      strings(node, 'compatible').includes('restricted-dma-pool'),
    );
    if (pool === undefined) return;
    this.#findings.push({
      id: 'restricted-dma-pool',
      severity: 'note',
      text: `${pool.name} is a restricted-dma-pool: a device that names it in its memory-region has every buffer copied there, if it uses the DMA API (iommu_platform=on).`,
      line: null,
      fix: null,
      source: '[linux v6.1 drivers/of/device.c of_dma_set_restricted_buffer]',
    });
  }

  #devices(platform: PlatformId, viommu: string | undefined): DeviceFacts[] {
    const pci = this.#pciNodes().flatMap((bridge, at) => {
      const window = cells(bridge, 'ibm,dma-window');
      const index = window === undefined ? at : ((window[0] ?? 0) >>> 8) & 0xff;
      const found = all(bridge).flatMap((node) => pciDevice(node, bridge, index));
      return found.length > 0 || platform === 'pseries' ? found : [anyPciDevice(bridge, index)];
    });
    const bridges = this.#pciNodes();
    const hasNone = platform === 'pseries' && pci.length === 0 && bridges[0] !== undefined;
    const devices = hasNone && bridges[0] ? [anyPciDevice(bridges[0], 0)] : pci;
    const slots = all(this.#root).filter((node) =>
      strings(node, 'compatible').includes('virtio,mmio'),
    );
    if (slots.length === 0) return devices;
    const mmio: DeviceFacts = {
      ...anyPciDevice(slots[0] as FdtNode, 0),
      name: `any device of ${slots.length} virtio-mmio slots`,
      driver: 'virtio-mmio',
      transport: 'mmio',
      place: slots[0]?.name ?? '',
      isPastViommu: viommu === undefined || !slots.some((node) => findProperty(node, 'iommus')),
    };
    return [...devices, mmio];
  }

  #fact(what: string, value: string, from: string): void {
    this.#facts.push({ what, value, from });
  }
}

// From `ibm,lrdr-capacity` back to QEMU's options.
function room(memory: number, lrdr: number | undefined): Pick<MachineFacts, 'maxMemory' | 'qemu'> {
  if (lrdr === undefined || lrdr === 0) return { qemu: '7.2' };
  if (lrdr <= memory) return { qemu: '10.0' };
  return { maxMemory: lrdr - Math.ceil(memory / DEVICE_MEM_ALIGN) * DEVICE_MEM_ALIGN + memory };
}

const OPEN = {
  transport: 'pci',
  isPastViommu: false,
  iommuPlatform: undefined,
  flagBecause: 'the device tree does not say',
  packed: false,
  indirect: true,
  eventIdx: true,
  worker: 'qemu',
  ats: false,
} as const;

function pciDevice(node: FdtNode, bridge: FdtNode, index: number): DeviceFacts[] {
  const vendor = cells(node, 'vendor-id')?.[0];
  const device = cells(node, 'device-id')?.[0];
  if (vendor !== VIRTIO_VENDOR || device === undefined) return [];
  const transitional = TRANSITIONAL_PCI_IDS.get(device);
  const type = transitional ?? device - MODERN_BASE;
  const known = VIRTIO_KINDS.get(type);
  // An emulated IOMMU, or another device of this vendor.
  if (known === undefined || known.kind === 'IOMMU') return [];
  return [
    {
      ...OPEN,
      name: `/${bridge.name}/${node.name}`,
      driver: `${known.base}-pci`,
      kind: known.kind,
      place: `host bridge ${index}`,
      bridge: index,
      mode: transitional === undefined ? 'modern' : 'transitional',
      modeBecause: `device-id 0x${device.toString(16)}`,
      flagBecause:
        transitional === undefined ? OPEN.flagBecause : 'a transitional device cannot offer bit 33',
    },
  ];
}

function anyPciDevice(node: FdtNode, index: number): DeviceFacts {
  return {
    ...OPEN,
    name: `any modern virtio device of ${node.name}`,
    driver: 'virtio-pci',
    kind: 'disk',
    place: node.name,
    bridge: index,
    mode: undefined,
    modeBecause: 'the device tree does not list it',
  };
}

function cells(node: FdtNode | undefined, name: string): number[] | undefined {
  const value = node && findProperty(node, name)?.value;
  return value === undefined ? undefined : decodeCells(value);
}

function strings(node: FdtNode | undefined, name: string): string[] {
  const value = node && findProperty(node, name)?.value;
  return value === undefined ? [] : decodeStrings(value);
}

function join(parts: readonly number[]): bigint {
  return parts.reduce((value, cell) => (value << 32n) | BigInt(cell), 0n);
}

function all(root: FdtNode): FdtNode[] {
  return withParents(root).map(([node]) => node);
}

function withParents(root: FdtNode): [node: FdtNode, parent: FdtNode][] {
  return root.children.flatMap((child): [FdtNode, FdtNode][] => [
    [child, root],
    ...withParents(child),
  ]);
}
