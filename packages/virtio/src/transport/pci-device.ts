import { VirtioError } from '../errors.js';
import {
  featureBits,
  hasFeature,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_ANY_LAYOUT,
  VIRTIO_F_BAD_FEATURE,
  VIRTIO_F_NOTIFY_ON_EMPTY,
  VIRTIO_F_VERSION_1,
} from '../features.js';
import type { VirtioPciDevice, VirtioPciOptions } from './pci-device-types.js';
import { VirtioPciFunction } from './pci-function.js';

/** What all devices have whose legacy interface is there. [qemu v7.2 include/hw/virtio/virtio.h DEFINE_VIRTIO_COMMON_FEATURES] */
const LEGACY_FEATURES = featureBits(
  VIRTIO_F_NOTIFY_ON_EMPTY,
  VIRTIO_F_ANY_LAYOUT,
  VIRTIO_F_BAD_FEATURE,
);

/**
 * Puts a device behind PCI, laid out as QEMU lays it out.
 * [qemu v7.2 hw/virtio/virtio-pci.c virtio_pci_device_plugged]
 *
 * Deviates: no PCI Express capabilities (QEMU has none on a root bus, either), no page for each
 * queue's notifications, no notifications by I/O ports.
 * @throws VirtioError `E_LEGACY_PLATFORM`
 */
export function createVirtioPci(options: VirtioPciOptions): VirtioPciDevice {
  const { device, mode, isBigEndianGuest = false } = options;
  const isPlatform = hasFeature(device.offeredFeatures, VIRTIO_F_ACCESS_PLATFORM);
  if (mode !== 'modern' && isPlatform) {
    const message =
      'VIRTIO_F_IOMMU_PLATFORM was supported by neither legacy nor transitional device';
    throw new VirtioError('E_LEGACY_PLATFORM', `${message}: expected mode modern, found ${mode}`, {
      details: { mode },
    });
  }
  const version1 = featureBits(VIRTIO_F_VERSION_1);
  device.plug({
    added: (mode === 'modern' ? 0n : LEGACY_FEATURES) | (mode === 'legacy' ? 0n : version1),
    removed: mode === 'legacy' ? version1 : 0n,
    isBigEndianGuest,
  });
  return new VirtioPciFunction(options);
}
