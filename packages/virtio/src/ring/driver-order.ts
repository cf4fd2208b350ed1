/**
 * The buffers in flight in the order in which they were added, for a device that promised to return
 * them so (VIRTIO_F_IN_ORDER). Such a device may name one buffer for a whole batch: those before it
 * are done as well, and were filled to the last byte.
 * [VIRTIO v1.2 §2.7.9 "In-order use of descriptors", §2.8.8 "In-order use of descriptors"]
 */
export class DriverOrder {
  readonly #size: number;
  readonly #heads: Uint16Array;
  // By head: its place in `heads`, and the bytes that the device may write.
  readonly #place: Uint16Array;
  readonly #inBytes: Float64Array;
  #first = 0;
  #count = 0;
  #batchLast = -1;
  #batchLength = 0;

  constructor(size: number) {
    this.#size = size;
    this.#heads = new Uint16Array(size);
    this.#place = new Uint16Array(size);
    this.#inBytes = new Float64Array(size);
  }

  reset(): void {
    this.#first = 0;
    this.#count = 0;
    this.#batchLast = -1;
  }

  push(head: number, inBytes: number): void {
    const place = (this.#first + this.#count) % this.#size;
    this.#heads[place] = head;
    this.#place[head] = place;
    this.#inBytes[head] = inBytes;
    this.#count += 1;
  }

  /** Buffers before this one, which is in flight. */
  before(head: number): number {
    return (this.#place[head]! - this.#first + this.#size) % this.#size;
  }

  /** Whether a batch was begun and there is more of it. */
  get isInBatch(): boolean {
    return this.#batchLast >= 0;
  }

  /** The device named this buffer as the last of a batch, with so many bytes in it. */
  beginBatch(last: number, length: number): void {
    this.#batchLast = last;
    this.#batchLength = length;
  }

  /** The next buffer of the batch. */
  get first(): number {
    return this.#heads[this.#first]!;
  }

  /** Takes the next buffer of the batch, and says how many bytes are in it. */
  shift(): number {
    const head = this.first;
    this.#first = (this.#first + 1) % this.#size;
    this.#count -= 1;
    if (head !== this.#batchLast) return this.#inBytes[head]!;
    this.#batchLast = -1;
    return this.#batchLength;
  }
}
