/**
 * Whether the other side wants to hear of it, when an index went from `oldIdx` to `newIdx` and its
 * `event` field says `eventIdx`. All are free-running 16-bit numbers; the test is whether the step
 * passed the entry `eventIdx`. [linux v6.1 include/uapi/linux/virtio_ring.h vring_need_event]
 */
export function vringNeedEvent(eventIdx: number, newIdx: number, oldIdx: number): boolean {
  return ((newIdx - eventIdx - 1) & 0xffff) < ((newIdx - oldIdx) & 0xffff);
}
