import { guestEvents, qemuEvents, RECORDING_NAMES } from './event-counts.js';
import type { DeviceTreeFile, Recording, RecordingMeta, RecordingName } from './types.js';

const QEMU_7_2 = '7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3), TCG';
const QEMU_10_0 = '10.0.13 (Debian 1:10.0.13+ds-0+deb13u1), TCG';

const LINUX = {
  'linux-6.1': '6.1.0-50-powerpc64le (Debian 6.1.176-1, 64 KiB pages)',
  'linux-6.12': '6.12.107+deb13-powerpc64le (Debian 6.12.107-1, 4 KiB pages)',
  'linux-7.2': '7.2.13+deb14-powerpc64le (Debian 7.2.13-1, 4 KiB pages)',
};
const LINUX_X86 = '6.12.94+deb13-amd64 (Debian 6.12.94-1, 4 KiB pages)';
const LINUX_X86_NEWER = '6.12.117+deb13-amd64 (Debian 6.12.117-1, 4 KiB pages)';
const LINUX_S390X = '6.12.95+deb12-s390x (Debian 6.12.95-1~bpo12+1, 4 KiB pages)';
const LINUX_X86_OLDER = '6.1.0-50-amd64 (Debian 6.1.176-1, 4 KiB pages)';
const LINUX_ARM64_OLDER = '6.1.0-50-arm64 (Debian 6.1.176-1, 4 KiB pages)';
const LINUX_ARM64 = '6.12.117+deb13-arm64 (Debian 6.12.117-1, 4 KiB pages)';

/** The machine that a run is of, when its name says so; others are pseries. */
const MACHINES = {
  x86: { machine: 'q35', binary: 'qemu-system-x86_64', cpu: 'qemu64', console: 'ttyS0' },
  arm64: { machine: 'virt', binary: 'qemu-system-aarch64', cpu: 'cortex-a57', console: 'ttyAMA0' },
  s390x: {
    machine: 's390-ccw-virtio',
    binary: 'qemu-system-s390x',
    cpu: 'max',
    console: 'ttyS0',
  },
  pseries: { machine: 'pseries', binary: 'qemu-system-ppc64', cpu: 'POWER9', console: 'hvc0' },
} as const;

const DISK = '-drive if=none,id=d0,file=disk.img,format=raw';
const BLK = '-device virtio-blk-pci,drive=d0,disable-legacy=on';
const BLK_CCW = '-device virtio-blk-ccw,drive=d0';
const NET = '-netdev user,id=n0,tftp=DIR,restrict=on -device virtio-net-pci,netdev=n0';
const VTD = '-device intel-iommu,intremap=on,device-iotlb=on ';
const NO_DDW = '-global spapr-pci-host-bridge.ddw=off';
/** VIRTIO_F_ACCESS_PLATFORM under its first name. */
const FLAG = ',iommu_platform=on';

/** What sets a run apart from: 7.2 as QEMU, 2 GiB, one CPU, one flagged disk, "base" workload. */
interface Run {
  readonly title: string;
  readonly qemu?: string;
  readonly linux?: string;
  /** More options of the machine. */
  readonly machine?: string;
  readonly memory?: string;
  readonly smp?: number;
  /** The disk's properties; default: the flag. */
  readonly blk?: string;
  /** Devices before and after the disk. */
  readonly iommu?: string;
  readonly more?: string;
  readonly workload?: string;
  readonly boots?: 2;
}

const HOTPLUG_MEMORY = '2G,slots=2,maxmem=4G';

const RUNS: Readonly<Record<RecordingName, Run>> = {
  'linux6.1-arm64-smmuv3': {
    title: 'as linux6.12-arm64-smmuv3; no DMA events yet',
    linux: LINUX_ARM64_OLDER,
    machine: ',iommu=smmuv3',
  },
  'linux6.1-ddw': { title: 'a second window maps all memory; 64 KiB guest pages' },
  'linux6.1-pinhole': {
    title: 'everything through the default window; 64 KiB guest pages',
    machine: NO_DDW,
  },
  'linux6.1-x86-intel-iommu': {
    title: 'as linux6.12-x86-intel-iommu; no DMA events yet',
    linux: LINUX_X86_OLDER,
    machine: ',kernel-irqchip=split',
    iommu: VTD,
    workload: 'base intel_iommu=on',
  },
  'linux6.12-arm64-plain': {
    title: 'virt without an IOMMU: physical addresses',
    linux: LINUX_ARM64,
  },
  'linux6.12-arm64-smmuv3': {
    title: 'virt with an emulated SMMUv3: every unmap is an invalidation',
    linux: LINUX_ARM64,
    machine: ',iommu=smmuv3',
  },
  'linux6.12-arm64-swiotlb': {
    title: 'virt, every buffer bounced: a pool of 2 MiB',
    linux: LINUX_ARM64,
    workload: 'base swiotlb=force',
  },
  'linux6.12-arm64-virtio-iommu': {
    title: 'virt with virtio-iommu: a request for each map and each unmap',
    linux: LINUX_ARM64,
    iommu: '-device virtio-iommu-pci ',
  },
  'linux6.12-bypass': { title: 'flag off: no TCE hypercall for any I/O', blk: '' },
  'linux6.12-ddw': { title: 'a second window maps all memory for good', memory: HOTPLUG_MEMORY },
  'linux6.12-ddw-lost': {
    title: 'the second window silently lost: no maxmem, so lrdr-capacity reads 0',
  },
  'linux6.12-pinhole': { title: 'everything through the default window', machine: NO_DDW },
  'linux6.12-pinhole-mix': {
    title: 'odd request sizes, the page cache, readers and writers at once',
    machine: NO_DDW,
    workload: 'mix',
  },
  'linux6.12-pinhole-net': {
    title: 'a network card beside the disk: ping and a TFTP download',
    machine: NO_DDW,
    more: ` ${NET},disable-legacy=on${FLAG}`,
    workload: 'net',
  },
  'linux6.12-pinhole-noindirect': {
    title: 'no indirect descriptors',
    machine: NO_DDW,
    blk: `${FLAG},indirect_desc=off`,
  },
  'linux6.12-pinhole-packed': {
    title: 'the packed ring',
    machine: NO_DDW,
    blk: `${FLAG},packed=on`,
  },
  'linux6.12-pinhole-rng': {
    title: 'a random number generator beside the disk',
    machine: NO_DDW,
    more: ` -device virtio-rng-pci,disable-legacy=on${FLAG}`,
    workload: 'rng',
  },
  'linux6.12-pinhole-smp2': {
    title: 'two CPUs, two queues',
    machine: NO_DDW,
    smp: 2,
    blk: `${FLAG},num-queues=2`,
    workload: 'mix',
  },
  'linux6.12-qemu10-ddw': {
    title: 'as linux6.12-ddw-lost, but this QEMU publishes lrdr-capacity: not lost',
    qemu: QEMU_10_0,
  },
  'linux6.12-s390x-ccw-bypass': {
    title: "channel I/O, flag off: no DMA mapping, the ring is the kernel's own",
    linux: LINUX_S390X,
    blk: '',
  },
  'linux6.12-s390x-ccw-flag': {
    title: 'channel I/O with the flag: mapped, at physical addresses',
    linux: LINUX_S390X,
  },
  'linux6.12-s390x-ccw-swiotlb': {
    title: 'swiotlb=force bounces nothing: only a protected guest has a pool',
    linux: LINUX_S390X,
    workload: 'base swiotlb=force',
  },
  'linux6.12-x86-intel-iommu': {
    title: 'q35 with an emulated VT-d',
    machine: ',kernel-irqchip=split',
    iommu: VTD,
    workload: 'base intel_iommu=on',
    boots: 2,
  },
  'linux6.12-x86-plain': { title: 'q35 without an IOMMU: the flag changes no address' },
  'linux6.12-x86-swiotlb': {
    title: 'q35, every buffer bounced',
    workload: 'base swiotlb=force',
    boots: 2,
  },
  'linux6.12-x86-virtio-iommu': {
    title: 'q35 with virtio-iommu: unmaps wait for the next map',
    linux: LINUX_X86_NEWER,
    iommu: '-device virtio-iommu-pci ',
  },
  'linux7.2-ddw': {
    title: 'a second window; the first of the two boots ends before the driver is ready',
    memory: HOTPLUG_MEMORY,
    boots: 2,
  },
  'linux7.2-ddw-lost': { title: 'the second window lost and nothing ever unmapped: TCEs leak' },
};

function recordingOf(name: RecordingName): Recording {
  const run = RUNS[name];
  const platform = /-(x86|arm64|s390x)-/.exec(name)?.[1] as 'x86' | 'arm64' | 's390x' | undefined;
  const { binary, cpu, console, ...of } = MACHINES[platform ?? 'pseries'];
  const kernel = name.replace(/^linux([\d.]+)-.*$/, 'linux-$1') as Recording['kernel'];
  const { machine = '', memory = '2G', smp = 1, workload = 'base' } = run;
  const options = machine.startsWith('-') ? ` ${machine}` : machine;
  const disk = `${DISK} ${run.iommu ?? ''}${platform === 's390x' ? BLK_CCW : BLK}${run.blk ?? FLAG}`;
  const meta: RecordingMeta = {
    name,
    qemu: run.qemu ?? QEMU_7_2,
    linux: run.linux ?? (platform === 'x86' ? LINUX_X86 : LINUX[kernel]),
    machine: of.machine,
    cpu,
    memory,
    smp,
    qemuCommand: `${binary} -M ${of.machine}${options} -cpu ${cpu} -m ${memory} -smp ${smp} ${disk}${run.more ?? ''}`,
    kernelCommandLine: `console=${console} panic=-1 no_hash_pointers wl=${workload}`,
    workload,
    qemuEvents: qemuEvents(name),
    guestEvents: guestEvents(name),
  };
  const file = (path: string): URL => new URL(`../data/${name}/${path}`, import.meta.url);
  return {
    name,
    title: run.title,
    kernel,
    guestPageSize: meta.linux.includes('64 KiB pages') ? 65536 : 4096,
    boots: run.boots ?? 1,
    meta,
    files: {
      meta: file('meta.json'),
      qemuTrace: file('qemu.trace.gz'),
      guestTrace: file('guest.ftrace.gz'),
      console: file('console.log.gz'),
    },
  };
}

/** Every recorded run. Nothing is read from disk: the files are URLs. */
export const recordings: readonly Recording[] = RECORDING_NAMES.map(recordingOf);

/** The run of that name; `undefined` when there is none. */
export function findRecording(name: RecordingName): Recording;
export function findRecording(name: string): Recording | undefined;
export function findRecording(name: string): Recording | undefined {
  return recordings.find((recording) => recording.name === name);
}

function deviceTree(name: string, file: string, title: string): DeviceTreeFile {
  const url = new URL(`../data/dtb/${file}`, import.meta.url);
  return { name, title, url, isGzipped: file.endsWith('.gz') };
}

/** Device trees that QEMU made for its guests, as blobs. */
export const deviceTrees: readonly DeviceTreeFile[] = [
  deviceTree('pseries-ddw', 'pseries-ddw.dtb', 'pseries with a second window and maxmem'),
  deviceTree('pseries-noddw', 'pseries-noddw.dtb', 'pseries with ddw=off and no maxmem'),
  deviceTree('virt-smmuv3', 'virt-smmuv3.dtb.gz', 'Arm virt with an SMMUv3'),
];
