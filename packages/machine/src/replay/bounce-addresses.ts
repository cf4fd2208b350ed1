/** Bounce buffers of a recorded guest: each slot, predicted. */
import { hex } from '@pinhole/base';
import { SwiotlbSlots } from '@pinhole/guest';
import { type Disagreement, differs } from './address-model.js';
import { type BouncedBuffer, DMA_MAPPING_ERROR, type GuestOperation } from './guest-operations.js';

/** A pool of bounce buffers, as the files tell it. */
export interface BouncePool {
  readonly base: number;
  /** Bytes. */
  readonly bytes: number;
  readonly areas: number;
  /** Which file says where it is. */
  readonly from: string;
  /** Nothing was mapped before the trace began. */
  readonly isFresh: boolean;
}

/** What a guest bounced. */
export interface BounceUse {
  maps: number;
  bytes: number;
  /** Slots in use at most, and at the end. */
  peak: number;
  live: number;
  /** Mappings that found no room. */
  full: number;
}

/** Follows the pool: which slot the kernel's search gives to each buffer. */
export class BounceAddresses {
  readonly pool: BouncePool;
  readonly slots: SwiotlbSlots;
  readonly use: BounceUse = { maps: 0, bytes: 0, peak: 0, live: 0, full: 0 };
  /** Addresses that fit, though the model's search would have given others: what was mapped before
   * the trace began is not known. */
  consistent = 0;
  readonly #masks = new Map<string, bigint>();
  #isForced: boolean | undefined;

  constructor(
    pool: BouncePool,
    pageSize: number,
    search: ConstructorParameters<typeof SwiotlbSlots>[0]['search'],
  ) {
    this.pool = pool;
    this.slots = new SwiotlbSlots({
      base: pool.base,
      size: pool.bytes,
      pageSize,
      cpus: pool.areas,
      ...(search === undefined ? {} : { search }),
    });
  }

  /** A buffer that the kernel bounces. */
  begin(operation: GuestOperation, buffer: BouncedBuffer): Disagreement | undefined {
    const { gpa = 0, size, cpu, dmaAddr } = operation;
    this.use.maps += 1;
    this.use.bytes += size;
    const wrong = this.#check(operation, buffer);
    const slot = this.slots.alloc(gpa, size, cpu);
    const expected = slot < 0 ? DMA_MAPPING_ERROR : BigInt(slot);
    if (dmaAddr === DMA_MAPPING_ERROR) this.use.full += 1;
    const isRight = expected === dmaAddr || this.#follow(slot, operation);
    this.use.live = this.slots.used;
    this.use.peak = Math.max(this.use.peak, this.slots.used);
    return isRight ? wrong : { what: 'address', recorded: show(dmaAddr), model: show(expected) };
  }

  /** A mapping in the pool ends. */
  end({ dmaAddr }: GuestOperation): void {
    this.slots.free(Number(dmaAddr));
    this.use.live = this.slots.used;
  }

  /** Whether an address is one of the pool's. */
  contains(address: bigint): boolean {
    return address < 2n ** 53n && this.slots.contains(Number(address));
  }

  // Goes on as the trace does. True: it may be right, since others may have been mapped before.
  #follow(predicted: number, { dmaAddr, size }: GuestOperation): boolean {
    if (dmaAddr === DMA_MAPPING_ERROR) {
      if (predicted >= 0) this.slots.free(predicted);
      return false;
    }
    const { used } = this.slots;
    if (predicted >= 0) this.slots.free(predicted);
    const isFree = dmaAddr < 2n ** 53n && this.slots.observe(Number(dmaAddr), size);
    if (!isFree || this.pool.isFresh) return false;
    this.consistent += used > 0 ? 1 : 0;
    return true;
  }

  #check(operation: GuestOperation, buffer: BouncedBuffer): Disagreement | undefined {
    const { device, gpa, size } = operation;
    const { mask, address, isForced } = buffer;
    const knownMask = this.#masks.get(device) ?? mask;
    if (this.#masks.size < MAX_DEVICES) this.#masks.set(device, knownMask);
    this.#isForced ??= isForced;
    const isReachable = address + BigInt(buffer.size) - 1n <= mask;
    return (
      differs('swiotlb_bounced: device', buffer.device, device) ??
      differs('swiotlb_bounced: address', hex(address), gpa === undefined ? undefined : hex(gpa)) ??
      differs('swiotlb_bounced: size', `${buffer.size}`, `${size}`) ??
      differs('swiotlb_bounced: mask', hex(mask), hex(knownMask)) ??
      differs('swiotlb_bounced: forced', `${isForced}`, `${this.#isForced}`) ??
      (isForced || !isReachable
        ? undefined
        : { what: 'bounce buffer', recorded: 'used', model: 'none: the device reaches the buffer' })
    );
  }
}

const MAX_DEVICES = 4096;

function show(address: bigint): string {
  return address === DMA_MAPPING_ERROR ? 'no room' : hex(address);
}
