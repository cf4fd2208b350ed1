/**
 * Offsets in the common configuration structure.
 * [VIRTIO v1.2 §4.1.4.3 "Common configuration structure layout"]
 */
export const PciCommonConfig = {
  DEVICE_FEATURE_SELECT: 0,
  DEVICE_FEATURE: 4,
  DRIVER_FEATURE_SELECT: 8,
  DRIVER_FEATURE: 12,
  CONFIG_MSIX_VECTOR: 16,
  NUM_QUEUES: 18,
  DEVICE_STATUS: 20,
  CONFIG_GENERATION: 21,
  QUEUE_SELECT: 22,
  QUEUE_SIZE: 24,
  QUEUE_MSIX_VECTOR: 26,
  QUEUE_ENABLE: 28,
  QUEUE_NOTIFY_OFF: 30,
  QUEUE_DESC: 32,
  QUEUE_DRIVER: 40,
  QUEUE_DEVICE: 48,
  QUEUE_NOTIFY_DATA: 56,
  QUEUE_RESET: 58,
} as const;

/** No vector: nobody hears of it. [VIRTIO v1.2 §4.1.5.1.2 "MSI-X Vector Configuration"] */
export const VIRTIO_MSI_NO_VECTOR = 0xffff;

/** In the ISR status: a queue interrupt. [VIRTIO v1.2 §4.1.4.5 "ISR status capability"] */
export const ISR_QUEUE = 0x1;
/** In the ISR status: the configuration, or the status, changed. */
export const ISR_CONFIG = 0x2;
