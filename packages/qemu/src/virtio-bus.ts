import type { DmaSpace } from '@pinhole/memory';

/** Options of {@link chooseDmaSpace}. */
export interface BusPlugOptions {
  /** The user's `iommu_platform=on`. */
  readonly iommuPlatform: boolean;
  readonly systemMemory: DmaSpace;
  /** The transport's own space (PCI: the device's bus-master space); ccw and MMIO have none. */
  readonly transportSpace?: DmaSpace;
}

/**
 * Which address space a virtio device works in. Nothing of the bus counts unless the flag is set.
 * [qemu v7.2 hw/virtio/virtio-bus.c virtio_bus_device_plugged]
 */
export function chooseDmaSpace(options: BusPlugOptions): { space: DmaSpace; because: string } {
  const { iommuPlatform, systemMemory, transportSpace } = options;
  if (!iommuPlatform) {
    return { space: systemMemory, because: 'iommu_platform=off: system memory, past any IOMMU' };
  }
  if (transportSpace === undefined) {
    return { space: systemMemory, because: 'iommu_platform=on, but the transport has no space' };
  }
  return { space: transportSpace, because: `iommu_platform=on: ${transportSpace.name}` };
}
