import { ModelError } from '@pinhole/base';

/**
 * - `E_HOST`: this computer cannot run a live machine (not Linux, not little-endian, no room).
 * - `E_QEMU_MISSING`: there is no such program, or it may not be executed.
 * - `E_QEMU_NOT_PPC`: the program is not QEMU, or a QEMU without the pseries machine.
 * - `E_QEMU_VERSION`: a QEMU older than the oldest supported one.
 * - `E_QEMU_EXITED`: QEMU ended, at the start or later; `details` has exit code, signal and the end
 *   of what it said.
 * - `E_QEMU_HANG`: QEMU did not do in time what was waited for. It has been killed.
 * - `E_GUEST_RESET`: a call made the machine reset itself: the answers are lost.
 * - `E_QMP`: QEMU refused a QMP command; `details` has its class.
 * - `E_DEVICE_TREE`: no device tree where QEMU put it: the guest's memory was overwritten.
 * - `E_PCI_WINDOW`: no room for a BAR in the host bridge's 32-bit window.
 * - `E_LIVE_USAGE`: calls in a wrong order, or arguments outside their range.
 * - `E_CLOSED`: the machine was closed.
 */
export type LiveErrorCode =
  | 'E_HOST'
  | 'E_QEMU_MISSING'
  | 'E_QEMU_NOT_PPC'
  | 'E_QEMU_VERSION'
  | 'E_QEMU_EXITED'
  | 'E_QEMU_HANG'
  | 'E_GUEST_RESET'
  | 'E_QMP'
  | 'E_DEVICE_TREE'
  | 'E_PCI_WINDOW'
  | 'E_LIVE_USAGE'
  | 'E_CLOSED';

/** What goes wrong between us and a real QEMU. Once QEMU is dead, each call throws the same one. */
export class LiveError extends ModelError<LiveErrorCode> {
  override name = 'LiveError';
}
