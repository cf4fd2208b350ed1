import type { Tracer } from '@pinhole/base';
import { SpaprMachine, type SpaprPhbConfig } from '@pinhole/hcall';
import type { GuestMemory } from '@pinhole/memory';
import type { HostBridgeConfig, MachineConfig } from './scenario-config.js';

/** Builds the hypervisor's side of a pseries machine from the `machine` part of a scenario. */
export function createSpaprMachine(
  machine: MachineConfig,
  options: { readonly memory: GuestMemory; readonly tracer?: Tracer },
): SpaprMachine {
  const { type, qemu, cpus, maxMemory, tceHandler, kvmTceVfio, hostBridges, vio } = machine;
  return new SpaprMachine({
    ...options,
    machineType: type,
    qemu,
    cpus,
    tceHandler,
    kvmTceVfio,
    ...(maxMemory === undefined ? {} : { maxMemory }),
    phbs: [toPhb(machine, 0), ...hostBridges.map((bridge) => toPhb(bridge, bridge.index))],
    vio,
  });
}

function toPhb(bridge: HostBridgeConfig, index: number): SpaprPhbConfig {
  const { ddw, pageSizes, dmaWindowSize, limitedAddressMode } = bridge;
  const { dmaWindowAddress, dma64WindowAddress } = bridge;
  return {
    index,
    dmaWindowSize,
    limitedAddressMode,
    ...(ddw === undefined ? {} : { ddw }),
    ...(dmaWindowAddress === undefined ? {} : { dmaWindowAddress }),
    ...(dma64WindowAddress === undefined ? {} : { dma64WindowAddress }),
    ...(pageSizes === undefined ? {} : { pageSizeMask: pageSizes }),
  };
}
