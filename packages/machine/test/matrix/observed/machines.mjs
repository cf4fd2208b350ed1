// Which cells of the matrix can be run on a real kernel and QEMU under TCG, and how.

/** Debian's name of each policy's kernel and of each machine's architecture. */
export const KERNELS = { 'linux-5.10': '5.10', 'linux-6.1': '6.1', 'linux-6.12': '6.12' };

const q35 = (more = []) => ({
  debian: 'amd64',
  qemu: ['qemu-system-x86_64', '-M', 'q35', '-cpu', 'qemu64', ...more, '-serial', 'stdio'],
  console: 'ttyS0',
});
const virt = (machine) => ({
  debian: 'arm64',
  qemu: ['qemu-system-aarch64', '-M', machine, '-cpu', 'cortex-a57', '-serial', 'stdio'],
  console: 'ttyAMA0',
});
const pseries = (memory, more = []) => ({
  debian: 'powerpc64le',
  memory,
  qemu: [
    ...['qemu-system-ppc64', '-M', 'pseries', '-cpu', 'POWER9', ...more],
    ...['-chardev', 'stdio,id=c1,mux=off', '-device', 'spapr-vty,chardev=c1,reg=0x30000000'],
  ],
  console: 'hvc0',
});

/** The machines of the matrix that QEMU has: those options of it, and what else the kernel is told. */
export const MACHINES = {
  'x86-64': q35(),
  'x86-64-intel-iommu': {
    ...q35(['-device', 'intel-iommu,intremap=off']),
    append: 'intel_iommu=on',
  },
  // The only kernel here that has the driver is 6.12.
  'x86-64-virtio-iommu': {
    ...q35(['-device', 'virtio-iommu-pci,addr=2']),
    policies: ['linux-6.12'],
    modules: ['iommu/virtio-iommu'],
  },
  'x86-64-swiotlb': { ...q35(), append: 'swiotlb=force' },
  arm64: virt('virt'),
  // Without the flag alone: QEMU has no bus that moves addresses, and the guest is told that it has.
  'arm64-offset': { ...virt('virt'), flag: false, hasDmaRanges: true },
  'arm64-smmuv3': virt('virt,iommu=smmuv3'),
  'pseries-pinhole': pseries('2G', ['-global', 'spapr-pci-host-bridge.ddw=off']),
  'pseries-ddw': pseries('2G,slots=2,maxmem=4G'),
  'pseries-ddw-lost': pseries('2G'),
  s390x: {
    debian: 's390x',
    qemu: [
      ...['qemu-system-s390x', '-M', 's390-ccw-virtio'],
      ...['-chardev', 'stdio,id=c1,mux=off', '-device', 'sclpconsole,chardev=c1'],
    ],
    console: 'ttysclp0',
  },
};

/** What a cell's ring and flag are called by QEMU's devices. */
export function diskOptions({ flag, ring }, at, machine) {
  const device =
    machine === 's390x'
      ? `virtio-blk-ccw,devno=fe.0.00${16 + at}`
      : `virtio-blk-pci,addr=${(16 + at).toString(16)},disable-legacy=on`;
  const ringOptions = { split: '', 'split-noindirect': ',indirect_desc=off', packed: ',packed=on' };
  const flagOption = `,iommu_platform=${flag ? 'on' : 'off'}`;
  return [
    ...['-drive', `if=none,id=d${at},file=disk${at}.img,format=raw`],
    ...['-device', `${device},drive=d${at},serial=disk${at}${flagOption}${ringOptions[ring]}`],
  ];
}

/** What of QEMU's is logged. */
export const QEMU_EVENTS = [
  ...['virtio_blk_handle_read', 'virtio_blk_handle_write'],
  ...['virtio_queue_notify', 'virtio_notify', 'virtio_notify_irqfd'],
  ...['spapr_iommu*', 'vtd_dmar_translate', 'vtd_inv_desc_*'],
  ...['smmuv3_translate_*', 'smmuv3_cmdq_opcode'],
  ...['virtio_iommu_map', 'virtio_iommu_unmap', 'virtio_iommu_translate_out'],
];
