import { createPciLegacyTransport } from './pci-legacy-driver.js';
import {
  createPciModernTransport,
  type PciTransportOptions,
  type PciTransportResult,
} from './pci-modern-driver.js';
import type { PciFunction } from './registers.js';

/**
 * Drives a virtio function: the modern way if it can be, else the legacy way.
 * [linux v6.1 drivers/virtio/virtio_pci_common.c virtio_pci_probe]
 */
export function createPciTransport(
  fn: PciFunction,
  options: PciTransportOptions = {},
): PciTransportResult {
  const modern = createPciModernTransport(fn, options);
  if (modern.ok || modern.reason !== 'no-modern') return modern;
  return createPciLegacyTransport(fn, options);
}
