/** A driver's way to a device without registers: for tests that are not about those. */
import type { VirtioDeviceCore, VirtioTransport } from '@pinhole/virtio';

export function direct(core: VirtioDeviceCore): VirtioTransport {
  return {
    deviceId: core.deviceId,
    isLegacy: false,
    readDeviceFeatures: () => core.modernFeatures,
    writeDriverFeatures: (bits) => core.setFeatures(bits),
    readStatus: () => core.status,
    writeStatus: (value) => {
      core.setStatus(value);
      if (core.status === 0) core.reset();
    },
    queueMaxSize: (index) => core.queueSize(index),
    setupQueue: (index, setup) => {
      core.setQueueSize(index, setup.size);
      core.setQueueRings(index, setup);
    },
    resetQueue: (index) => core.resetQueue(index),
    notifyQueue: (index, data) => core.notifyQueue(index, data),
    readConfig: (offset, into) => core.readConfig(offset, into),
    writeConfig: (offset, from) => core.writeConfig(offset, from),
    configGeneration: () => core.generation,
    onInterrupt: (handler) => core.onInterrupt(handler),
    pollInterrupt: () => false,
  };
}
