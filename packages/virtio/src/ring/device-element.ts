import type { Gpa } from '@pinhole/base';

const FIRST_CAPACITY = 8;

/**
 * A buffer that the device took from the queue: guest memory to read, then guest memory to write,
 * in segments. Reused after it went back to the queue: do not keep it. [qemu v7.2
 * hw/virtio/virtio.c virtqueue_alloc_element]
 */
export class VirtqueueElement {
  /** For traces: stable for the life of the element. */
  readonly id: string;
  /** What names the buffer when it goes back: the index of its first descriptor, or its buffer ID. */
  head = 0;
  /** Ring descriptors that the buffer takes up; 1 in a split ring, where only heads count. */
  ndescs = 1;
  /** Its place among the buffers in flight, where they go back in order. */
  slot = 0;
  /** Segments that the device may read: the first `outNum`. */
  outNum = 0;
  /** Segments that the device may write: the `inNum` after them. */
  inNum = 0;
  /** Where each segment lies; `BOUNCED` for the mapper's bounce buffer. */
  gpa: Float64Array = new Float64Array(FIRST_CAPACITY);
  /** Length of each segment in bytes. */
  length: Uint32Array = new Uint32Array(FIRST_CAPACITY);
  /** The bus address of each segment, as the driver gave it: upper half, lower half. */
  bus: Uint32Array = new Uint32Array(2 * FIRST_CAPACITY);

  constructor(id: string) {
    this.id = id;
  }

  /** Bytes that the device may read. */
  get outBytes(): number {
    return this.#sum(0, this.outNum);
  }

  /** Bytes that the device may write. */
  get inBytes(): number {
    return this.#sum(this.outNum, this.outNum + this.inNum);
  }

  /** Empties the element for the chain that begins at `head`. */
  begin(head: number): void {
    this.head = head;
    this.ndescs = 1;
    this.outNum = 0;
    this.inNum = 0;
  }

  /** Adds a segment. Readable ones come first. */
  append(hi: number, lo: number, gpa: Gpa, length: number, isDeviceWritable: boolean): void {
    const index = this.outNum + this.inNum;
    if (index === this.gpa.length) this.#grow();
    this.gpa[index] = gpa;
    this.length[index] = length;
    this.bus[2 * index] = hi;
    this.bus[2 * index + 1] = lo;
    if (isDeviceWritable) this.inNum += 1;
    else this.outNum += 1;
  }

  #sum(from: number, to: number): number {
    let bytes = 0;
    for (let i = from; i < to; i += 1) bytes += this.length[i]!;
    return bytes;
  }

  #grow(): void {
    const gpa = new Float64Array(this.gpa.length * 2);
    const length = new Uint32Array(gpa.length);
    gpa.set(this.gpa);
    length.set(this.length);
    const bus = new Uint32Array(2 * gpa.length);
    bus.set(this.bus);
    this.bus = bus;
    this.gpa = gpa;
    this.length = length;
  }
}

/** Elements ready for use. As many come to exist as were ever in flight at once. */
export class ElementPool {
  readonly #idPrefix: string;
  readonly #free: VirtqueueElement[] = [];
  #made = 0;

  constructor(idPrefix: string) {
    this.#idPrefix = idPrefix;
  }

  take(head: number): VirtqueueElement {
    const element = this.#free.pop() ?? new VirtqueueElement(`${this.#idPrefix}${this.#made++}`);
    element.begin(head);
    return element;
  }

  give(element: VirtqueueElement): void {
    this.#free.push(element);
  }
}
