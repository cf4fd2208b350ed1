import type { AvailBytes, DeviceQueue, VirtqueueElement } from '@pinhole/virtio';
import { VhostStall } from './vhost-stall.js';

type State = ReturnType<DeviceQueue['save']>;
type Element = ReturnType<DeviceQueue['saveElement']>;

/**
 * A queue during one kick, for a device whose view of memory may make it wait: from where it does, the
 * queue is empty, and the request that could not be read is still to come. Devices need not know.
 * [linux v6.1.176 drivers/vhost/vhost.c vhost_get_vq_desc]
 */
export class StallingQueue implements DeviceQueue {
  readonly #inner: DeviceQueue;
  readonly #onStall: (stall: VhostStall) => void;
  #isStalled = false;

  constructor(inner: DeviceQueue, onStall: (stall: VhostStall) => void) {
    this.#inner = inner;
    this.#onStall = onStall;
  }

  get id(): string {
    return this.#inner.id;
  }

  get maxSize(): number {
    return this.#inner.maxSize;
  }

  get size(): number {
    return this.#inner.size;
  }

  get isConfigured(): boolean {
    return this.#inner.isConfigured;
  }

  get inUse(): number {
    return this.#inner.inUse;
  }

  get lastAvailIdx(): number {
    return this.#inner.lastAvailIdx;
  }

  get usedIdx(): number {
    return this.#inner.usedIdx;
  }

  get isNotificationOn(): boolean {
    return this.#inner.isNotificationOn;
  }

  setFeatures(features: bigint): void {
    this.#inner.setFeatures(features);
  }

  configure(setup: Parameters<DeviceQueue['configure']>[0]): void {
    this.#inner.configure(setup);
  }

  reset(): void {
    this.#inner.reset();
  }

  setNotification(isOn: boolean): void {
    this.#attempt(() => this.#inner.setNotification(isOn), undefined);
  }

  limitPops(count: number): void {
    this.#inner.limitPops(count);
  }

  isEmpty(): boolean {
    return this.#isStalled || this.#attempt(() => this.#inner.isEmpty(), true);
  }

  pop(): VirtqueueElement | undefined {
    if (this.#isStalled) return undefined;
    const { lastAvailIdx } = this.#inner;
    const element = this.#attempt(() => this.#inner.pop(), undefined);
    if (this.#isStalled) this.#inner.discard(lastAvailIdx);
    return element;
  }

  /** What cannot be returned is lost: the ring is gone. [linux v6.1.176 drivers/vhost/vhost.c __vhost_add_used_n] */
  push(element: VirtqueueElement, written: number): void {
    this.#attempt(() => this.#inner.push(element, written), undefined);
  }

  fill(element: VirtqueueElement, written: number, offset: number): void {
    this.#attempt(() => this.#inner.fill(element, written, offset), undefined);
  }

  flush(count: number): void {
    this.#attempt(() => this.#inner.flush(count), undefined);
  }

  detach(element: VirtqueueElement, written?: number): void {
    this.#inner.detach(element, written);
  }

  unpop(element: VirtqueueElement): void {
    this.#inner.unpop(element);
  }

  discard(lastAvailIdx: number): void {
    this.#inner.discard(lastAvailIdx);
  }

  /** [linux v6.1.176 drivers/vhost/vhost.c vhost_notify] */
  shouldNotify(): boolean {
    return this.#attempt(() => this.#inner.shouldNotify(), true);
  }

  save(): State {
    return this.#inner.save();
  }

  restore(state: State): void {
    this.#inner.restore(state);
  }

  saveElement(element: VirtqueueElement): Element {
    return this.#inner.saveElement(element);
  }

  restoreElement(state: Element): VirtqueueElement | undefined {
    return this.#inner.restoreElement(state);
  }

  availBytes(maxIn: number, maxOut: number): AvailBytes {
    const nothing = { inBytes: 0, outBytes: 0 };
    return this.#attempt(() => this.#inner.availBytes(maxIn, maxOut), nothing);
  }

  #attempt<T>(action: () => T, otherwise: T): T {
    try {
      return action();
    } catch (error) {
      if (!(error instanceof VhostStall)) throw error;
      this.#isStalled = true;
      this.#onStall(error);
      return otherwise;
    }
  }
}
