import type { Tracer } from '@pinhole/base';
import type { DmaSpace, GuestMemory } from '@pinhole/memory';
import type { QueueSetup } from '../transport/transport.js';
import type { AvailBytes } from './avail-bytes.js';
import type { VirtqueueElement } from './device-element.js';
import type { DeviceQueueState, ElementState } from './device-queue-state.js';
import type { DmaMapper } from './dma-mapper.js';

/** What a queue needs of the device that it belongs to. */
export interface QueueOwner {
  /** True from `fail` to the next reset: the device leaves its queues alone. */
  readonly isBroken: boolean;
  readonly tracer: Tracer;
  /** The guest broke a rule that the device cannot live with. */
  fail(message: string): void;
}

/** How a device's half of a queue is made. */
export interface DeviceQueueOptions {
  readonly owner: QueueOwner;
  /** Names the queue in traces, such as `vd0q0`. */
  readonly id: string;
  /** The most entries; what the size is until the driver chooses. */
  readonly maxSize: number;
  /** Guest memory, as the hypervisor sees it. */
  readonly memory: GuestMemory;
  /** The device's view of memory: of the rings, and of the buffers unless there is a `mapper`. */
  readonly space: DmaSpace;
  /** How buffers are reached; by default through `space`, without a bounce buffer. */
  readonly mapper?: DmaMapper;
  /** What traces give as the size of an element. */
  readonly elementSize?: number;
  /**
   * The driver is a legacy one on a big-endian machine: the ring has its byte order. Split rings
   * only. [VIRTIO v1.2 §2.7.3 "Legacy Interfaces: A Note on Virtqueue Endianness"]
   */
  readonly isBigEndian?: boolean;
}

/**
 * The device's half of a virtqueue, whatever its layout. Nothing in guest memory can make it throw
 * or go round for ever. [VIRTIO v1.2 §2.6 "Virtqueues"]
 */
export interface DeviceQueue {
  /** Names the queue in traces. */
  readonly id: string;
  /** The most entries that the driver may choose. */
  readonly maxSize: number;
  /** Entries in the ring. */
  readonly size: number;
  /** Whether the driver gave the addresses: kicks are heard only then. */
  readonly isConfigured: boolean;
  /** Elements taken and not yet returned. */
  readonly inUse: number;
  /** Where the device goes on taking buffers. */
  readonly lastAvailIdx: number;
  /** Where the device goes on returning buffers. */
  readonly usedIdx: number;
  /** Whether the driver is asked for kicks. */
  readonly isNotificationOn: boolean;
  /** Takes up what the driver accepted. */
  setFeatures(features: bigint): void;
  /** The driver gives size and addresses. */
  configure(setup: QueueSetup): void;
  /** Back to the start, without features. What was popped before must not be returned after. */
  reset(): void;
  /** Asks the driver for kicks, or to spare them: an advice. */
  setNotification(isOn: boolean): void;
  /** Whether nothing waits. */
  isEmpty(): boolean;
  /**
   * From now on `pop` gives at most `count` elements; with one more the device is broken. A ring that
   * lies over itself, or that the device's own writes change, need not become empty.
   */
  limitPops(count: number): void;
  /** Takes the next buffer; nothing if there is none or it is bad: then the device is broken. */
  pop(): VirtqueueElement | undefined;
  /** Returns a buffer with `written` bytes in it: `fill` and `flush`. */
  push(element: VirtqueueElement, written: number): void;
  /** Puts a buffer into the ring, `offset` buffers after those that were flushed. */
  fill(element: VirtqueueElement, written: number, offset: number): void;
  /** Shows the driver `count` filled buffers. */
  flush(count: number): void;
  /** Gives up an element without returning it to the driver. */
  detach(element: VirtqueueElement, written?: number): void;
  /** As if the element popped last had not been. */
  unpop(element: VirtqueueElement): void;
  /**
   * As if a `pop` that began at `lastAvailIdx` and threw had not been: a device's view of memory may
   * throw where it has to wait. [linux v6.1 drivers/vhost/vhost.c vhost_discard_vq_desc]
   */
  discard(lastAvailIdx: number): void;
  /** Whether the driver wants an interrupt for what was flushed. */
  shouldNotify(): boolean;
  /** The queue as plain data, to be put into a file; what it is in the middle of is not lost. */
  save(): DeviceQueueState;
  /**
   * Goes on where another queue was saved; the features must be set already. The elements in flight
   * are restored one by one.
   * @throws VirtioError `E_QUEUE_STATE` for what no queue of this layout and size can be in.
   */
  restore(state: DeviceQueueState): void;
  /** An element in flight as plain data. */
  saveElement(element: VirtqueueElement): ElementState;
  /**
   * Maps the segments of a saved element again; the queue counts it already. If one cannot be
   * mapped any more, the device is broken.
   */
  restoreElement(state: ElementState): VirtqueueElement | undefined;
  /** How many bytes the waiting buffers hold, without taking them, up to both limits. */
  availBytes(maxIn: number, maxOut: number): AvailBytes;
}
