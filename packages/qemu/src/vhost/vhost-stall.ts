import { hex } from '@pinhole/base';
import { DmaAccess } from '@pinhole/memory';

/** Why a data plane cannot go on. */
export type StallReason =
  /** It asked for a translation, and QEMU has none to give: it says nothing at all. */
  | 'no translation'
  /** It has one that does not let it do this, and does not ask for another (-EPERM). */
  | 'no permission'
  /** It has one that leads to no memory (-EFAULT). */
  | 'no memory';

/**
 * Ends what a queue was doing: the translation of an address does not come. No error of the model, and
 * nobody but the queue that waits sees it.
 */
export class VhostStall extends Error {
  override name = 'VhostStall';
  readonly iova: bigint;
  readonly access: DmaAccess;
  readonly reason: StallReason;

  constructor(iova: bigint, access: DmaAccess, reason: StallReason) {
    const verb = access === DmaAccess.WRITE ? 'write' : 'read';
    super(`vhost: ${reason} to ${verb} at bus address ${hex(iova)}`);
    this.iova = iova;
    this.access = access;
    this.reason = reason;
  }
}
