import {
  type DeviceQueue,
  VIRTIO_NET_HDR_SIZE,
  VIRTIO_NET_LEGACY_HDR_SIZE,
  VIRTQUEUE_MAX_SIZE,
  type VirtqueueElement,
} from '@pinhole/virtio';
import type { ElementBytes } from '../../element-bytes.js';

/** Where `num_buffers` stands in the header. [VIRTIO v1.2 §5.1.6 "Device Operation"] */
const NUM_BUFFERS_OFFSET = 10;
/** The header of a packet without offloads, up to `num_buffers`. */
const PLAIN_HEADER = new Uint8Array(VIRTIO_NET_LEGACY_HDR_SIZE);

/** What the driver negotiated about received packets. */
export interface ReceiveMode {
  /** 12 bytes, or 10. */
  readonly headerSize: number;
  readonly isMergeable: boolean;
}

/** `full`: not enough buffers, keep the frame. `dropped`: it fits no buffer. */
export type ReceiveResult = 'received' | 'dropped' | 'full' | { readonly fault: string };

/**
 * Whether buffers wait for a packet. If not, the driver is asked to say when there are.
 * [qemu v7.2 hw/net/virtio-net.c virtio_net_has_buffers]
 */
function hasBuffers(queue: DeviceQueue, isMergeable: boolean, size: number): boolean {
  const isShort = (): boolean =>
    queue.isEmpty() || (isMergeable && queue.availBytes(size, 0).inBytes < size);
  if (isShort()) {
    queue.setNotification(true);
    if (isShort()) return false;
  }
  queue.setNotification(false);
  return true;
}

/**
 * Puts a frame into the buffers of a receive queue: one, or if they can be merged as many as it
 * takes, shown to the driver together. [qemu v7.2 hw/net/virtio-net.c virtio_net_receive_rcu]
 *
 * Deviates: a first buffer that is too short for the header breaks the device; QEMU aborts. As in
 * QEMU `num_buffers` is written only if buffers can be merged; the specification wants a 1 there.
 */
export function receiveFrame(
  queue: DeviceQueue,
  bytes: ElementBytes,
  frame: Uint8Array,
  accepts: (frame: Uint8Array) => boolean,
  { headerSize, isMergeable }: ReceiveMode,
): ReceiveResult {
  if (!hasBuffers(queue, isMergeable, frame.length + headerSize)) return 'full';
  if (!accepts(frame)) return 'dropped';
  const used: { element: VirtqueueElement; length: number }[] = [];
  const giveUp = (result: ReceiveResult): ReceiveResult => {
    for (const { element, length } of used) queue.detach(element, length);
    return result;
  };
  for (let done = 0; done < frame.length; ) {
    if (used.length === VIRTQUEUE_MAX_SIZE) {
      return giveUp({ fault: 'virtio-net unexpected long buffer chain' });
    }
    const element = queue.pop();
    if (element === undefined) {
      const fault = `virtio-net unexpected empty queue: i ${used.length} mergeable ${isMergeable ? 1 : 0} offset ${done}, size ${frame.length}`;
      return giveUp(used.length > 0 ? { fault } : 'dropped');
    }
    if (element.inNum < 1) {
      queue.detach(element);
      return giveUp({ fault: 'virtio-net receive queue contains no in buffers' });
    }
    const start = used.length === 0 ? headerSize : 0;
    if (element.inBytes < start) {
      queue.detach(element);
      return giveUp({ fault: 'virtio-net receive buffer too short for the header' });
    }
    if (start > 0) bytes.writeIn(element, 0, PLAIN_HEADER);
    const copied = bytes.writeIn(element, start, frame.subarray(done));
    done += copied;
    if (!isMergeable && done < frame.length) {
      queue.unpop(element);
      return 'dropped';
    }
    used.push({ element, length: start + copied });
  }
  const first = used[0];
  if (isMergeable && first !== undefined && headerSize === VIRTIO_NET_HDR_SIZE) {
    const count = Uint8Array.of(used.length & 0xff, used.length >> 8);
    bytes.writeIn(first.element, NUM_BUFFERS_OFFSET, count);
  }
  used.forEach(({ element, length }, i) => {
    queue.fill(element, length, i);
  });
  queue.flush(used.length);
  return 'received';
}
