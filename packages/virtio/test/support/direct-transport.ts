import { type QueueSetup, VirtioDeviceCore, type VirtioTransport } from '../../src/index.js';

/**
 * A device that is its own transport: for tests of rings and devices that are not about registers.
 */
export class DirectDevice extends VirtioDeviceCore implements VirtioTransport {
  override readonly isLegacy = false;

  override readDeviceFeatures(): bigint {
    return this.offeredFeatures;
  }

  override writeDriverFeatures(bits: bigint): void {
    this.setFeatures(bits);
  }

  override readStatus(): number {
    return this.status;
  }

  override writeStatus(value: number): void {
    this.setStatus(value);
    if (this.status === 0) this.reset();
  }

  override queueMaxSize(index: number): number {
    return this.queueSize(index);
  }

  override setupQueue(index: number, setup: QueueSetup): void {
    this.setQueueSize(index, setup.size);
    this.setQueueRings(index, setup);
  }

  override configGeneration(): number {
    return this.generation;
  }

  override pollInterrupt(): boolean {
    return false;
  }
}
