/** What a QEMU command line says about the machine itself. */
import { formatSize } from '@pinhole/base';
import { ExplainError } from './errors.js';
import type {
  BridgeFacts,
  ConfidentialKind,
  Fact,
  MachineFacts,
  NotUnderstood,
  PlatformId,
  Refusal,
} from './facts.js';
import type { CommandGlobal, QemuCommand } from './qemu-command.js';
import { lastValue, parseOnOff, type QemuOpt } from './qemu-opts.js';

const MIB = 2 ** 20;
/** Memory of pseries comes in blocks. [qemu v7.2 include/hw/ppc/spapr.h SPAPR_MEMORY_BLOCK_SIZE] */
const SPAPR_MEMORY_BLOCK = 256 * MIB;

/** [qemu v7.2 hw/i386/pc_q35.c, hw/i386/pc_piix.c, hw/ppc/spapr.c, hw/arm/virt.c, hw/s390x/s390-virtio-ccw.c] */
const MACHINES: readonly { readonly pattern: RegExp; readonly platform: PlatformId }[] = [
  { pattern: /^pseries(-\d+\.\d+(-sxxm)?)?$/, platform: 'pseries' },
  { pattern: /^(q35|pc-q35-.+|pc|pc-i440fx-.+|microvm)$/, platform: 'x86' },
  { pattern: /^s390(-ccw-virtio(-.+)?)?$/, platform: 's390x' },
  { pattern: /^virt(-\d+\.\d+)?$/, platform: 'arm64' },
  // Machines of Xen's device model.
  { pattern: /^(xenfv(-\d+\.\d+)?|xenpv|xenpvh)$/, platform: 'xen' },
  { pattern: /^powernv(\d+)?$/, platform: 'powernv' },
];

/** What a program makes without `-M`. */
const DEFAULT_MACHINES: Readonly<Record<string, string>> = {
  'qemu-system-ppc64': 'pseries',
  'qemu-system-ppc64le': 'pseries',
  'qemu-system-ppc64el': 'pseries',
  'qemu-system-x86_64': 'pc',
  'qemu-system-i386': 'pc',
  'qemu-system-s390x': 's390-ccw-virtio',
  'qemu-kvm': 'pc',
  kvm: 'pc',
  qemu: 'pc',
};

/** [qemu v7.2 hw/ppc/pef.c, target/i386/sev.c, hw/s390x/pv.c]; TDX, SNP and CCA are of later versions. */
const CONFIDENTIAL: Readonly<Record<string, ConfidentialKind>> = {
  'pef-guest': 'pef',
  'sev-guest': 'sev',
  'sev-snp-guest': 'sev',
  'tdx-guest': 'tdx',
  's390-pv-guest': 's390-pv',
  'rme-guest': 'cca',
};

/** Options of `-M` that are read here. */
const READ_OPTIONS = new Set([
  'type',
  'accel',
  'iommu',
  'confidential-guest-support',
  'memory-encryption',
  'default-bus-bypass-iommu',
  'default_bus_bypass_iommu',
]);
/** Options of `-M` that can change where memory is, or what a device sees of it. */
const MAY_MATTER_OPTIONS = new Set(['dtb', 'firmware', 'x-vof', 'kernel-irqchip']);

/** The machine, and what of it was not understood. */
export interface QemuMachine {
  readonly machine: MachineFacts;
  readonly notUnderstood: readonly NotUnderstood[];
}

/** @throws ExplainError `E_COMMAND_LINE` for a machine that nothing is known of. */
export function describeQemuMachine(command: QemuCommand): QemuMachine {
  const type = machineType(command);
  const byType = MACHINES.find(({ pattern }) => pattern.test(type))?.platform;
  if (byType === undefined) throw unknownMachine(type, command);
  const isXen = accelName(command) === 'xen' && (byType === 'x86' || byType === 'arm64');
  const platform = isXen ? 'xen' : byType;
  const facts: Fact[] = [
    { what: 'machine', value: type, from: lastValue(command.machine, 'type') ? '-M' : 'default' },
  ];
  const refusals: Refusal[] = [];
  const { memory, maxMemory } = memoryOf(command, platform, facts, refusals);
  const accel = platform === 'xen' ? 'other' : accelOf(command);
  facts.push({
    what: 'accelerator',
    value: platform === 'xen' ? 'xen' : accel,
    from:
      command.accels.length > 0
        ? '-accel'
        : lastValue(command.machine, 'accel')
          ? '-M accel'
          : 'default',
  });
  const viommu = viommuOf(command, platform);
  if (viommu !== undefined) facts.push({ what: 'IOMMU', value: viommu.name, from: viommu.from });
  const confidential = confidentialOf(command, refusals);
  if (confidential !== undefined) {
    facts.push({ what: 'confidential guest', value: confidential.kind, from: confidential.from });
  }
  if (command.append !== '') {
    facts.push({ what: 'kernel parameters', value: command.append.trim(), from: '-append' });
  }
  return {
    machine: {
      platform,
      machineType: type,
      memory,
      maxMemory,
      cpus: cpusOf(command),
      accel,
      qemu: qemuOf(type),
      bridges: platform === 'pseries' ? bridgesOf(command, refusals) : [],
      viommu: viommu?.name,
      confidential,
      // PV guests cannot work virtio devices without them. [linux arch/x86/xen/enlighten_pv.c xen_pv_init_platform]
      ...(type === 'xenpv' ? { grants: true } : {}),
      kernelParameters: command.append.trim(),
      refusals,
      facts,
    },
    notUnderstood: machineOptions(command),
  };
}

function machineType(command: QemuCommand): string {
  const given = lastValue(command.machine, 'type');
  const byDefault = DEFAULT_MACHINES[command.program];
  const type = given ?? byDefault;
  if (type === undefined) {
    throw new ExplainError(
      'E_COMMAND_LINE',
      `${command.program}: expected a machine (-M virt, -M pseries, ...), found none: this program has no default one`,
    );
  }
  return type;
}

function unknownMachine(type: string, command: QemuCommand): ExplainError {
  return new ExplainError(
    'E_COMMAND_LINE',
    `-M ${type}: expected pseries, q35, pc, microvm, virt, s390-ccw-virtio, xenfv, xenpv, xenpvh or powernv (or a version of one, such as pseries-7.2), found another machine; nothing is known about how ${command.program}'s "${type}" reaches memory`,
  );
}

// The first of a list that works; the last option wins.
function accelName(command: QemuCommand): string | undefined {
  return command.accels.at(-1) ?? lastValue(command.machine, 'accel')?.split(':')[0];
}

function accelOf(command: QemuCommand): MachineFacts['accel'] {
  const given = accelName(command);
  if (given === undefined) return command.program.endsWith('kvm') ? 'kvm' : 'tcg';
  return given === 'kvm' || given === 'tcg' ? given : 'other';
}

function qemuOf(type: string): '10.0' | undefined {
  const version = /-(\d+)\.(\d+)/.exec(type);
  return version !== null && Number(version[1]) >= 10 ? '10.0' : undefined;
}

function cpusOf(command: QemuCommand): number {
  const value = Number(lastValue(command.smp, 'cpus') ?? 1);
  return Number.isSafeInteger(value) && value > 0 ? value : 1;
}

// [qemu v7.2 softmmu/vl.c parse_memory_options, hw/ppc/spapr.c spapr_create_lmb_dr_connectors]
function memoryOf(
  command: QemuCommand,
  platform: PlatformId,
  facts: Fact[],
  refusals: Refusal[],
): { memory: number; maxMemory: number | undefined } {
  const given = lastValue(command.memory, 'size');
  // Nothing is the default, too.
  const sizeText = given !== undefined && /^0+$/.test(given) ? undefined : given;
  const maxText = lastValue(command.memory, 'maxmem');
  // Without a unit the size is in MiB, and maxmem in bytes.
  const memory =
    sizeText === undefined
      ? (platform === 'pseries' ? 512 : platform === 'powernv' ? 1024 : 128) * MIB
      : memorySize(/^\d+$/.test(sizeText) ? `${sizeText}M` : sizeText, 'size', refusals);
  const maxMemory = maxText === undefined ? undefined : memorySize(maxText, 'maxmem', refusals);
  facts.push({
    what: 'memory',
    value: formatSize(memory),
    from: sizeText === undefined ? 'default' : '-m',
  });
  facts.push({
    what: 'room for hotplug',
    value: maxMemory === undefined ? 'none (no maxmem)' : `up to ${formatSize(maxMemory)}`,
    from: maxText === undefined ? 'default' : '-m maxmem',
  });
  if (maxMemory !== undefined && maxMemory < memory) {
    refusals.push({
      message: `invalid value of maxmem: maximum memory size (0x${maxMemory.toString(16)}) must be at least the initial memory size (0x${memory.toString(16)})`,
      source: '[qemu v7.2 hw/core/machine.c machine_set_mem]',
    });
  }
  const sizes = [
    ['Memory size', memory],
    ['Maximum memory size', maxMemory ?? 0],
  ] as const;
  for (const [what, size] of platform === 'pseries' ? sizes : []) {
    if (size % SPAPR_MEMORY_BLOCK === 0) continue;
    refusals.push({
      // QEMU prints the initial size in both.
      message: `${what} 0x${memory.toString(16)} is not aligned to 256 MiB`,
      source: '[qemu v7.2 hw/ppc/spapr.c spapr_validate_node_memory]',
    });
  }
  return { memory, maxMemory };
}

// Units as QEMU has them, of one letter; fractions are allowed.
function memorySize(text: string, what: string, refusals: Refusal[]): number {
  const match = /^(0x[0-9a-f]+|\d+(?:\.\d+)?)([bkmgtpe]?)$/i.exec(text);
  const unit = 'bkmgtpe'.indexOf((match?.[2] ?? '').toLowerCase());
  const bytes = Number(match?.[1] ?? Number.NaN) * 1024 ** Math.max(0, unit);
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  refusals.push({
    message: `Parameter '${what}' expects a size, found "${text}"`,
    source: '[qemu v7.2 softmmu/vl.c parse_memory_options]',
  });
  return 512 * MIB;
}

function viommuOf(
  command: QemuCommand,
  platform: PlatformId,
): { name: string; from: string } | undefined {
  const option = lastValue(command.machine, 'iommu');
  if (platform === 'arm64' && option !== undefined && option !== 'none') {
    return { name: option, from: `-M iommu=${option}` };
  }
  for (const { opts } of command.devices) {
    const driver = lastValue(opts, 'driver') ?? '';
    if (/^(intel-iommu|amd-iommu|virtio-iommu(-pci)?|arm-smmuv3|riscv-iommu-pci)$/.test(driver)) {
      return { name: driver, from: `-device ${driver}` };
    }
  }
  return undefined;
}

function confidentialOf(command: QemuCommand, refusals: Refusal[]): MachineFacts['confidential'] {
  const id =
    lastValue(command.machine, 'confidential-guest-support') ??
    lastValue(command.machine, 'memory-encryption');
  if (id === undefined) return undefined;
  const object = command.objects.find((opts) => lastValue(opts, 'id') === id);
  const type = object === undefined ? undefined : lastValue(object, 'qom-type');
  if (type === undefined) {
    refusals.push({
      message: `Device '${id}' not found: -M confidential-guest-support=${id} needs an -object of that id`,
      source: '[qemu v7.2 hw/core/machine.c machine_class_init]',
    });
    return undefined;
  }
  const kind = CONFIDENTIAL[type];
  return kind === undefined
    ? undefined
    : { kind, from: `-object ${type},id=${id} and -M confidential-guest-support=${id}` };
}

function bridgesOf(command: QemuCommand, refusals: Refusal[]): BridgeFacts[] {
  const globals = command.globals.filter(({ driver }) => driver === 'spapr-pci-host-bridge');
  const first = bridgeOf(0, [], globals);
  const more = command.devices
    .filter(({ opts }) => lastValue(opts, 'driver') === 'spapr-pci-host-bridge')
    .flatMap(({ opts, text }) => {
      const index = Number(lastValue(opts, 'index') ?? Number.NaN);
      if (Number.isInteger(index) && index >= 0) return [bridgeOf(index, opts, globals)];
      refusals.push({
        message: `${text}: "index" for PAPR PHB is mandatory`,
        source: '[qemu v7.2 hw/ppc/spapr_pci.c spapr_phb_realize]',
      });
      return [];
    });
  return [first, ...more];
}

function bridgeOf(
  index: number,
  opts: readonly QemuOpt[],
  globals: readonly CommandGlobal[],
): BridgeFacts {
  const value = (key: string): string | undefined => {
    const global = globals.findLast(({ property }) => property === key);
    if (global !== undefined) global.isUsed = true;
    return lastValue(opts, key) ?? global?.value;
  };
  const big = (key: string): bigint | undefined => {
    const text = value(key);
    return text !== undefined && /^(0x[0-9a-f]+|\d+)$/i.test(text) ? BigInt(text) : undefined;
  };
  const size = big('dma_win_size');
  return {
    index,
    ddw: parseOnOff(value('ddw') ?? ''),
    dmaWindowSize: size === undefined ? undefined : Number(size),
    dmaWindowAddress: big('dma_win_addr'),
    dma64WindowAddress: big('dma64_win_addr'),
    pageSizes: big('pgsz'),
  };
}

function machineOptions(command: QemuCommand): NotUnderstood[] {
  return command.machine
    .filter(({ key }) => !READ_OPTIONS.has(key))
    .map(({ key, value }) => ({
      text: `-M ${key}=${value}`.slice(0, 60),
      effect: MAY_MATTER_OPTIONS.has(key) ? ('may-matter' as const) : ('none' as const),
      why: 'an option of the machine that is not read',
    }));
}
