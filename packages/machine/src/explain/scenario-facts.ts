/** What a scenario says, in the terms of the other inputs. */
import { formatSize } from '@pinhole/base';
import type { Scenario } from '../scenario-config.js';
import type { DeviceFacts, MachineFacts } from './facts.js';

/** The machine of a scenario, and its devices. */
export function describeScenario(scenario: Scenario): {
  machine: MachineFacts;
  devices: DeviceFacts[];
  notUnderstood: [];
  notes: string[];
  findings: [];
} {
  const { machine, guest, devices } = scenario;
  const from = 'scenario';
  const { ddw, dmaWindowSize, dmaWindowAddress, dma64WindowAddress, pageSizes } = machine;
  return {
    machine: {
      platform: machine.arch === 'pseries' ? 'pseries' : 'arm64',
      machineType: machine.arch === 'pseries' ? machine.type : 'virt',
      memory: machine.memory,
      maxMemory: machine.maxMemory,
      cpus: machine.cpus,
      accel: machine.tceHandler === 'kvm' ? 'kvm' : 'tcg',
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
      confidential: guest.secure ? { kind: 'pef', from: 'guest.secure' } : undefined,
      kernelParameters: guest.cmdline,
      dmaRanges: machine.dmaRanges?.map(({ cpu, bus, size }) => ({
        cpu: BigInt(cpu),
        bus,
        size: BigInt(size),
      })),
      refusals: [],
      facts: [
        { what: 'machine', value: machine.arch, from },
        { what: 'memory', value: formatSize(machine.memory), from },
        { what: 'kernel', value: guest.kernel, from },
      ],
    },
    devices: devices.map((device, index) => ({
      name: `devices[${index}]`,
      driver: `${device.type}-pci`,
      kind: 'disk',
      transport: 'pci',
      place: 'host bridge 0',
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
      worker: 'qemu',
      ats: false,
    })),
    notUnderstood: [],
    notes: [],
    findings: [],
  };
}
