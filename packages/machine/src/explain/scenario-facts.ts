/** What a scenario says, in the terms of the other inputs. */
import { formatSize } from '@pinhole/base';
import type { Scenario } from '../scenario-config.js';
import { ExplainError } from './errors.js';
import type { ConfidentialKind, DeviceFacts, MachineFacts, PlatformId } from './facts.js';
import type { VirtioTransport } from './virtio-models.js';

/** What follows from an architecture's name. */
interface KnownArchitecture {
  readonly platform: PlatformId;
  readonly machineType: string;
  readonly confidential: ConfidentialKind;
  readonly transport: VirtioTransport;
}

const ARCHITECTURES: Readonly<Record<string, KnownArchitecture>> = {
  pseries: {
    platform: 'pseries',
    machineType: 'pseries',
    confidential: 'pef',
    transport: 'pci',
  },
  'x86-64': { platform: 'x86', machineType: 'q35', confidential: 'sev', transport: 'pci' },
  arm64: { platform: 'arm64', machineType: 'virt', confidential: 'pkvm', transport: 'pci' },
  s390x: {
    platform: 's390x',
    machineType: 's390-ccw-virtio',
    confidential: 's390-pv',
    transport: 'ccw',
  },
  // It has no secure guests.
  xen: { platform: 'xen', machineType: 'xenfv', confidential: 'sev', transport: 'pci' },
};

/**
 * The machine of a scenario, and its devices.
 * @throws ExplainError `E_PLATFORM` for an architecture that nothing is known of.
 */
export function describeScenario(scenario: Scenario): {
  machine: MachineFacts;
  devices: DeviceFacts[];
  notUnderstood: [];
  notes: string[];
  findings: [];
} {
  const { machine, guest, devices } = scenario;
  const from = 'scenario';
  const arch = ARCHITECTURES[machine.arch];
  if (arch === undefined) {
    const known = Object.keys(ARCHITECTURES).join(', ');
    throw new ExplainError(
      'E_PLATFORM',
      `machine.arch: expected ${known}, found "${machine.arch}": pinhole run shows what it does`,
    );
  }
  const { iommu } = machine;
  const { ddw, dmaWindowSize, dmaWindowAddress, dma64WindowAddress, pageSizes } = machine;
  return {
    machine: {
      platform: arch.platform,
      machineType: arch.platform === 'pseries' ? machine.type : arch.machineType,
      memory: machine.memory,
      maxMemory: machine.maxMemory,
      cpus: machine.cpus,
      // Only pseries scenarios say who answers.
      accel: arch.platform !== 'pseries' ? 'other' : machine.tceHandler === 'kvm' ? 'kvm' : 'tcg',
      qemu: machine.qemu,
      bridges: [
        {
          index: 0,
          ddw,
          dmaWindowSize,
          dmaWindowAddress,
          dma64WindowAddress,
          pageSizes,
          limitedAddressMode: machine.limitedAddressMode,
        },
      ],
      viommu: iommu === 'none' ? undefined : iommu,
      confidential: guest.secure ? { kind: arch.confidential, from: 'guest.secure' } : undefined,
      kernelParameters: guest.cmdline,
      dmaRanges: machine.dmaRanges?.map(({ cpu, bus, size }) => ({
        cpu: BigInt(cpu),
        bus,
        size: BigInt(size),
      })),
      grants: arch.platform === 'xen' ? machine.settings.grants === true : undefined,
      scenario,
      refusals: [],
      facts: [
        { what: 'machine', value: machine.arch, from },
        { what: 'memory', value: formatSize(machine.memory), from },
        { what: 'kernel', value: guest.kernel, from },
        ...(iommu === 'none' ? [] : [{ what: 'IOMMU', value: iommu, from: 'machine.iommu' }]),
      ],
    },
    devices: devices.map((device, index) => ({
      name: `devices[${index}]`,
      driver: `${device.type}-${arch.transport}`,
      kind: 'disk',
      transport: arch.transport,
      place: arch.transport === 'pci' ? 'host bridge 0' : 'channel subsystem (ccw)',
      bridge: 0,
      isPastViommu: false,
      mode: 'modern',
      modeBecause: 'scenarios have modern devices only',
      iommuPlatform: device.iommuPlatform,
      flagBecause: `devices[${index}].iommuPlatform`,
      packed: device.packed,
      indirect: device.indirect,
      eventIdx: device.eventIdx,
      queues: device.queues,
      worker: device.vhost === 'on' ? 'vhost' : 'qemu',
      ats: false,
    })),
    notUnderstood: [],
    notes: [],
    findings: [],
  };
}
