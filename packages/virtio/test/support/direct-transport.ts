import { type QueueSetup, VirtioDeviceCore, type VirtioTransport } from '../../src/index.js';

/**
 * A device that is its own transport: for tests of rings and devices that are not about registers.
 */
export class DirectDevice extends VirtioDeviceCore implements VirtioTransport {
  readonly isLegacy = false;

  readDeviceFeatures(): bigint {
    return this.offeredFeatures;
  }

  writeDriverFeatures(bits: bigint): void {
    this.setFeatures(bits);
  }

  readStatus(): number {
    return this.status;
  }

  writeStatus(value: number): void {
    this.setStatus(value);
    if (this.status === 0) this.reset();
  }

  queueMaxSize(index: number): number {
    return this.queueSize(index);
  }

  setupQueue(index: number, setup: QueueSetup): void {
    this.setQueueSize(index, setup.size);
    this.setQueueRings(index, setup);
  }

  configGeneration(): number {
    return this.generation;
  }

  pollInterrupt(): boolean {
    return false;
  }
}
