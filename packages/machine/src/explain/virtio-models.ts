/** How a virtio device is attached. */
export type VirtioTransport = 'pci' | 'ccw' | 'mmio';

/** What a name such as `virtio-blk-pci-non-transitional` says. */
export interface VirtioModel {
  /** Without its transport: `virtio-blk`. */
  readonly base: string;
  /** One word for people: `disk`, `network`. */
  readonly kind: string;
  /** `undefined` for a name such as `virtio-blk`, which is the machine's usual transport. */
  readonly transport: VirtioTransport | undefined;
  /** A name that fixes the mode, whatever the bus. */
  readonly variant: 'generic' | 'transitional' | 'non-transitional';
  /** There is no legacy form of this device. [qemu v7.2 hw/virtio/virtio.c virtio_legacy_allowed] */
  readonly isModernOnly: boolean;
  /** Its back end is another process or the host's kernel. */
  readonly backend: 'qemu' | 'vhost' | 'vhost-user' | 'vhost-vdpa';
}

interface ModelRow {
  readonly kind: string;
  readonly isModernOnly?: true;
  readonly backend?: VirtioModel['backend'];
}

/** [qemu v7.2 hw/virtio/virtio-pci.c], and `-device help` of x86, ppc64, s390x */
const MODELS: Readonly<Record<string, ModelRow>> = {
  'virtio-blk': { kind: 'disk' },
  'virtio-scsi': { kind: 'SCSI controller' },
  'virtio-net': { kind: 'network' },
  'virtio-rng': { kind: 'random numbers' },
  'virtio-balloon': { kind: 'balloon' },
  'virtio-serial': { kind: 'console' },
  'virtio-9p': { kind: '9p file system' },
  'virtio-gpu': { kind: 'graphics', isModernOnly: true },
  'virtio-gpu-gl': { kind: 'graphics', isModernOnly: true },
  'virtio-vga': { kind: 'graphics', isModernOnly: true },
  'virtio-vga-gl': { kind: 'graphics', isModernOnly: true },
  'virtio-keyboard': { kind: 'keyboard', isModernOnly: true },
  'virtio-mouse': { kind: 'mouse', isModernOnly: true },
  'virtio-tablet': { kind: 'tablet', isModernOnly: true },
  'virtio-multitouch': { kind: 'touch screen', isModernOnly: true },
  'virtio-input-host': { kind: 'input', isModernOnly: true },
  'virtio-crypto': { kind: 'crypto', isModernOnly: true },
  'virtio-mem': { kind: 'memory', isModernOnly: true },
  'virtio-pmem': { kind: 'persistent memory', isModernOnly: true },
  'virtio-sound': { kind: 'sound', isModernOnly: true },
  'vhost-vsock': { kind: 'vsock', isModernOnly: true, backend: 'vhost' },
  'vhost-scsi': { kind: 'SCSI controller', backend: 'vhost' },
  'vhost-user-blk': { kind: 'disk', backend: 'vhost-user' },
  'vhost-user-scsi': { kind: 'SCSI controller', backend: 'vhost-user' },
  'vhost-user-fs': { kind: 'file system', isModernOnly: true, backend: 'vhost-user' },
  'vhost-user-vsock': { kind: 'vsock', isModernOnly: true, backend: 'vhost-user' },
  'vhost-user-gpu': { kind: 'graphics', isModernOnly: true, backend: 'vhost-user' },
  'vhost-user-vga': { kind: 'graphics', isModernOnly: true, backend: 'vhost-user' },
  'vhost-user-input': { kind: 'input', isModernOnly: true, backend: 'vhost-user' },
  'vhost-user-i2c': { kind: 'I2C', isModernOnly: true, backend: 'vhost-user' },
  'vhost-user-gpio': { kind: 'GPIO', isModernOnly: true, backend: 'vhost-user' },
  'vhost-user-rng': { kind: 'random numbers', backend: 'vhost-user' },
  'vhost-user-snd': { kind: 'sound', isModernOnly: true, backend: 'vhost-user' },
  'vhost-vdpa-device': { kind: 'vDPA device', backend: 'vhost-vdpa' },
};

/** `virtio-vga` is PCI without saying so. */
const ALWAYS_PCI = new Set(['virtio-vga', 'virtio-vga-gl', 'vhost-user-vga']);

/** Reads the name of a device; `undefined` when it is no virtio device that does DMA. */
export function findVirtioModel(driver: string): VirtioModel | undefined {
  const match = /^(.*?)(?:-(pci(?:-(?:non-)?transitional)?|ccw|device))?$/.exec(driver);
  const whole = MODELS[driver];
  const base = whole === undefined ? (match?.[1] ?? driver) : driver;
  const suffix = whole === undefined ? match?.[2] : undefined;
  const row = Object.hasOwn(MODELS, base) ? MODELS[base] : undefined;
  if (row === undefined) return undefined;
  const isPci = suffix?.startsWith('pci') === true || ALWAYS_PCI.has(base);
  const transport = isPci ? 'pci' : suffix === 'ccw' ? 'ccw' : suffix ? 'mmio' : undefined;
  return {
    base,
    kind: row.kind,
    transport,
    variant:
      suffix === 'pci-transitional'
        ? 'transitional'
        : suffix === 'pci-non-transitional'
          ? 'non-transitional'
          : 'generic',
    isModernOnly: row.isModernOnly === true,
    backend: row.backend ?? 'qemu',
  };
}

/** Virtio device by its number. [VIRTIO 1.2 §5 "Device Types"] */
export const VIRTIO_KINDS: ReadonlyMap<number, { base: string; kind: string }> = new Map([
  [1, { base: 'virtio-net', kind: 'network' }],
  [2, { base: 'virtio-blk', kind: 'disk' }],
  [3, { base: 'virtio-serial', kind: 'console' }],
  [4, { base: 'virtio-rng', kind: 'random numbers' }],
  [5, { base: 'virtio-balloon', kind: 'balloon' }],
  [8, { base: 'virtio-scsi', kind: 'SCSI controller' }],
  [9, { base: 'virtio-9p', kind: '9p file system' }],
  [16, { base: 'virtio-gpu', kind: 'graphics' }],
  [18, { base: 'virtio-input', kind: 'input' }],
  [19, { base: 'vhost-vsock', kind: 'vsock' }],
  [20, { base: 'virtio-crypto', kind: 'crypto' }],
  [23, { base: 'virtio-iommu', kind: 'IOMMU' }],
  [24, { base: 'virtio-mem', kind: 'memory' }],
  [26, { base: 'vhost-user-fs', kind: 'file system' }],
]);

/**
 * PCI device numbers of transitional devices. [VIRTIO 1.2 §4.1.2.1 "Device Requirements: PCI Device
 * Discovery"]
 */
export const TRANSITIONAL_PCI_IDS: ReadonlyMap<number, number> = new Map([
  [0x1000, 1],
  [0x1001, 2],
  [0x1002, 5],
  [0x1003, 3],
  [0x1004, 8],
  [0x1005, 4],
  [0x1009, 9],
]);
