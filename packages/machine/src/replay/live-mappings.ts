/** The mappings that drivers hold, as the guest's trace shows them. */
import type { CallStep } from './allocation-order.js';
import type { GuestOperation } from './guest-operations.js';

interface Live {
  readonly device: string;
  readonly size: number;
  readonly direction: number;
  readonly isCoherent: boolean;
  readonly lastCall: CallStep | undefined;
}

/** What an unmapping ended. */
export interface Released {
  /** The last hypercall of the mapping. */
  readonly lastCall: CallStep | undefined;
  /** Nothing like it was mapped: what is there instead. */
  readonly isUnknown: string | undefined;
}

const OLDER: Released = { lastCall: undefined, isUnknown: undefined };

/** Keeps each mapping until it is ended; memory is bounded by what drivers hold at one time. */
export class LiveMappings {
  readonly #live = new Map<bigint, Live[]>();
  /** True for devices whose first event is an allocation: all of their mappings are in the trace. */
  readonly #isWhole = new Map<string, boolean>();

  /** Takes note of the device. */
  see({ device, kind }: GuestOperation): void {
    if (!this.#isWhole.has(device)) this.#isWhole.set(device, kind === 'alloc');
  }

  /** A mapping or an allocation begins. */
  hold(
    { device, size, direction, kind, dmaAddr }: GuestOperation,
    lastCall: CallStep | undefined,
  ): void {
    const live: Live = { device, size, direction, isCoherent: kind === 'alloc', lastCall };
    const others = this.#live.get(dmaAddr);
    if (others === undefined) this.#live.set(dmaAddr, [live]);
    else others.push(live);
  }

  /** It ends: the same device, size and direction, or else it was another one. */
  release({ device, size, direction, kind, dmaAddr }: GuestOperation): Released {
    const held = this.#live.get(dmaAddr) ?? [];
    const at = held.findIndex(
      (live) =>
        live.device === device &&
        live.size === size &&
        live.isCoherent === (kind === 'free') &&
        (live.isCoherent || live.direction === direction),
    );
    if (at >= 0) {
      const [live] = held.splice(at, 1);
      if (held.length === 0) this.#live.delete(dmaAddr);
      return { lastCall: live?.lastCall, isUnknown: undefined };
    }
    const [other] = held;
    // It may have been mapped before the trace began.
    if (other === undefined && this.#isWhole.get(device) !== true) return OLDER;
    this.#live.delete(dmaAddr);
    const isUnknown =
      other === undefined
        ? 'no mapping at this address'
        : `a mapping of ${other.size} bytes, direction ${other.direction}, device ${other.device}`;
    return { lastCall: undefined, isUnknown };
  }
}
