import { hasFeature, VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_VERSION_1 } from '../features.js';
import {
  VIRTIO_CONFIG_S_ACKNOWLEDGE,
  VIRTIO_CONFIG_S_DRIVER,
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_CONFIG_S_FAILED,
  VIRTIO_CONFIG_S_FEATURES_OK,
} from '../status.js';
import type { VirtioTransport } from './transport.js';

/** What the driver brings to the negotiation. */
export interface NegotiationOptions {
  /** Features that driver and kernel know, those of the queues and of the transport included. */
  readonly supported: bigint;
  /**
   * Whether the platform lets this device reach only some memory (a confidential guest): then it
   * must have VERSION_1 and ACCESS_PLATFORM. [linux v6.1 drivers/virtio/virtio.c virtio_features_ok]
   */
  readonly hasRestrictedMemoryAccess?: (transport: VirtioTransport) => boolean;
  /** The transport can be driven the legacy way. Default false: a modern-only transport. */
  readonly allowsLegacy?: boolean;
}

/** Why the driver gave up. */
export type NegotiationFailure = 'no-version-1' | 'restricted-memory' | 'features-refused';

/** The features in force, or why there are none. `message` is the kernel's, `errno` what it returns. */
export type NegotiationResult =
  | { readonly ok: true; readonly features: bigint }
  | {
      readonly ok: false;
      readonly reason: NegotiationFailure;
      readonly message: string;
      readonly errno: number;
    };

const EINVAL = -22;
const ENODEV = -19;

/**
 * From reset to FEATURES_OK, or to FAILED, in Linux's order.
 * [VIRTIO v1.2 §3.1.1 "Driver Requirements: Device Initialization"]
 * [linux v6.1 drivers/virtio/virtio.c virtio_dev_probe]
 */
export function negotiateFeatures(
  transport: VirtioTransport,
  options: NegotiationOptions,
): NegotiationResult {
  // Step 1. Reset the device.
  transport.writeStatus(0);
  // Steps 2 and 3.
  addStatus(transport, VIRTIO_CONFIG_S_ACKNOWLEDGE);
  addStatus(transport, VIRTIO_CONFIG_S_DRIVER);
  // Step 4. The subset that both understand.
  const features = transport.readDeviceFeatures() & options.supported;
  const result = finalize(transport, options, features);
  if (!result.ok) addStatus(transport, VIRTIO_CONFIG_S_FAILED);
  return result;
}

/**
 * Step 8: the queues are set up, the device goes live.
 * [linux v6.1 include/linux/virtio_config.h virtio_device_ready]
 */
export function setDriverOk(transport: VirtioTransport): void {
  addStatus(transport, VIRTIO_CONFIG_S_DRIVER_OK);
}

function finalize(
  transport: VirtioTransport,
  options: NegotiationOptions,
  features: bigint,
): NegotiationResult {
  const hasVersion1 = hasFeature(features, VIRTIO_F_VERSION_1);
  if (!hasVersion1 && options.allowsLegacy !== true) {
    const message = 'virtio: device uses modern interface but does not have VIRTIO_F_VERSION_1';
    return { ok: false, reason: 'no-version-1', message, errno: EINVAL };
  }
  transport.writeDriverFeatures(features);
  if (options.hasRestrictedMemoryAccess?.(transport) === true) {
    for (const [bit, name] of [
      [VIRTIO_F_VERSION_1, 'VIRTIO_F_VERSION_1'],
      [VIRTIO_F_ACCESS_PLATFORM, 'VIRTIO_F_ACCESS_PLATFORM'],
    ] as const) {
      if (hasFeature(features, bit)) continue;
      const message = `device must provide ${name}`;
      return { ok: false, reason: 'restricted-memory', message, errno: ENODEV };
    }
  }
  if (!hasVersion1) return { ok: true, features };
  // Steps 5 and 6. The device may not keep the bit.
  addStatus(transport, VIRTIO_CONFIG_S_FEATURES_OK);
  const status = transport.readStatus();
  if ((status & VIRTIO_CONFIG_S_FEATURES_OK) === 0) {
    const message = `virtio: device refuses features: ${status.toString(16)}`;
    return { ok: false, reason: 'features-refused', message, errno: ENODEV };
  }
  return { ok: true, features };
}

function addStatus(transport: VirtioTransport, bit: number): void {
  transport.writeStatus(transport.readStatus() | bit);
}
