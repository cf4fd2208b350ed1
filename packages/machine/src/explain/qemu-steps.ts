/** What QEMU decides about a device, step by step. */
import type { ExplanationStep } from './explanation.js';
import type { DeviceFacts, MachineFacts } from './facts.js';

const BUS_PLUGGED = '[qemu v7.2 hw/virtio/virtio-bus.c virtio_bus_device_plugged]';
const VHOST_HAS_IOMMU = '[qemu v7.2 hw/virtio/vhost.c vhost_dev_has_iommu]';

/** Whether an IOMMU lies between this device and memory, once the flag is set. */
export function hasIommu(machine: MachineFacts, device: DeviceFacts): boolean {
  if (device.transport !== 'pci') return false;
  if (machine.platform === 'pseries') return true;
  return machine.viommu !== undefined && !device.isPastViommu;
}

/** What the steps are of; `flag` is `iommu_platform`. */
interface StepsOf {
  readonly machine: MachineFacts;
  readonly device: DeviceFacts;
  readonly flag: boolean;
  /** Of a guest of Xen. */
  readonly grants: boolean;
}

/** Up to the end of QEMU's start. */
export function qemuSteps(of: StepsOf): ExplanationStep[] {
  const { machine, device, flag } = of;
  const step = (text: string, fact: string, source: string): ExplanationStep => ({
    side: 'qemu',
    text,
    fact,
    source,
  });
  const steps: ExplanationStep[] = [];
  if (device.transport === 'pci' && device.mode !== undefined) {
    const what = {
      modern: 'a modern device: it can offer bit 33',
      transitional: 'a transitional device, legacy and modern: it cannot offer bit 33',
      legacy: 'a legacy device: it cannot offer bit 33',
    }[device.mode];
    const source = '[qemu v7.2 hw/virtio/virtio-pci.c virtio_pci_realize]';
    steps.push(step(what, device.modeBecause, source));
  }
  for (const refusal of [...machine.refusals, ...(device.refusal ? [device.refusal] : [])]) {
    steps.push(
      step(`QEMU refuses: "${refusal.message}"`, refusalFact(device, flag), refusal.source),
    );
  }
  if (machine.refusals.length > 0 || device.refusal !== undefined) return steps;
  steps.push(spaceStep(of, step));
  if (device.worker !== 'qemu') steps.push(vhostStep(machine, device, flag, step));
  return steps;
}

type MakeStep = (text: string, fact: string, source: string) => ExplanationStep;

function refusalFact(device: DeviceFacts, flag: boolean): string {
  return flag ? `${device.flagBecause}; ${device.modeBecause}` : device.modeBecause;
}

function spaceStep({ machine, device, flag, grants }: StepsOf, step: MakeStep): ExplanationStep {
  const fact = device.iommuPlatform === undefined ? 'assumed' : device.flagBecause;
  if (!flag) {
    return step(
      'bit 33 is not offered; the device works in system memory, past any IOMMU',
      fact,
      BUS_PLUGGED,
    );
  }
  if (machine.platform === 'xen' && grants) {
    return step(
      'bit 33 is offered; the device works in another domain, through grants',
      fact,
      '[linux v6.1 drivers/xen/grant-dma-ops.c xen_virtio_restricted_mem_acc]',
    );
  }
  if (device.transport !== 'pci') {
    return step(
      `bit 33 is offered; ${device.transport} has no address space of its own, so the device works in system memory all the same`,
      fact,
      BUS_PLUGGED,
    );
  }
  const through =
    machine.platform === 'pseries'
      ? `the TCE tables of host bridge ${device.bridge}, which cannot be switched off`
      : hasIommu(machine, device)
        ? `the emulated IOMMU (${machine.viommu ?? ''})`
        : machine.viommu === undefined
          ? 'its bus, which has no IOMMU: addresses are physical ones'
          : `its bus, which goes past the IOMMU (${machine.viommu}): addresses are physical ones`;
  return step(`bit 33 is offered; the device works through ${through}`, fact, BUS_PLUGGED);
}

function vhostStep(
  machine: MachineFacts,
  device: DeviceFacts,
  flag: boolean,
  step: MakeStep,
): ExplanationStep {
  const worker = {
    qemu: 'QEMU',
    vhost: "the host's kernel (vhost)",
    'vhost-user': 'another process (vhost-user)',
    'vhost-vdpa': 'a vDPA device',
  }[device.worker];
  if (flag && hasIommu(machine, device)) {
    return step(
      `${worker} works the queues with an IOTLB: ring and buffer addresses in its messages are IOVAs, each page is asked for at its first use and dropped when the guest unmaps it`,
      'bit 33, and an address space of the bus that is not system memory',
      VHOST_HAS_IOMMU,
    );
  }
  return step(
    `${worker} works the queues without an IOTLB: addresses in its messages are guest-physical${flag ? '; bit 33 is hidden from it' : ''}`,
    flag ? 'bit 33, but no IOMMU' : 'no bit 33',
    VHOST_HAS_IOMMU,
  );
}
