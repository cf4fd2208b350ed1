import { type Gpa, invariant, type Rng } from '@pinhole/base';

/** A run of guest memory. */
export interface GuestRun {
  readonly gpa: Gpa;
  readonly length: number;
}

/** Options of {@link GuestPages}. */
export interface GuestPagesOptions {
  /** Bytes, a power of two. */
  readonly pageSize: number;
  /** Memory for the kernel's own objects. */
  readonly kernel: { readonly base: Gpa; readonly size: number };
  /** Memory for user pages; disjoint from `kernel`. */
  readonly user: { readonly base: Gpa; readonly size: number };
  readonly rng: Rng;
}

const SLAB_MIN = 32;

/**
 * Where the guest kernel's memory comes from. Not Linux's page allocator: addresses of pages are
 * this model's choice, what is done with them is not. User memory comes in short contiguous runs,
 * as on a machine that has been up for a while; the seed decides how long they are.
 */
export class GuestPages {
  readonly pageSize: number;
  readonly #rng: Rng;
  readonly #kernelEnd: Gpa;
  readonly #userEnd: Gpa;
  #kernelNext: Gpa;
  #userNext: Gpa;
  /** Free objects by size class, and free page runs by length. */
  readonly #free = new Map<number, Gpa[]>();

  constructor(options: GuestPagesOptions) {
    this.pageSize = options.pageSize;
    this.#rng = options.rng;
    this.#kernelNext = options.kernel.base;
    this.#kernelEnd = options.kernel.base + options.kernel.size;
    this.#userNext = options.user.base;
    this.#userEnd = options.user.base + options.user.size;
  }

  /**
   * Contiguous pages for the kernel, at least `length` bytes, aligned to `align` (default: the
   * allocation's own size rounded up to a power of two). `undefined`: out of memory.
   */
  allocPages(length: number, align?: number): Gpa | undefined {
    const bytes = Math.max(this.pageSize, 2 ** Math.ceil(Math.log2(length)));
    const free = this.#free.get(bytes);
    if (align === undefined && free !== undefined && free.length > 0) return free.pop();
    const alignment = align ?? bytes;
    const gpa = Math.ceil(this.#kernelNext / alignment) * alignment;
    if (gpa + bytes > this.#kernelEnd) return undefined;
    this.#kernelNext = gpa + bytes;
    return gpa;
  }

  /** Gives pages back; `length` as it was asked for. */
  freePages(gpa: Gpa, length: number): void {
    this.#putBack(Math.max(this.pageSize, 2 ** Math.ceil(Math.log2(length))), gpa);
  }

  /** A small kernel object (kmalloc): never crosses a page if it fits one. */
  alloc(length: number): Gpa | undefined {
    const size = Math.max(SLAB_MIN, 2 ** Math.ceil(Math.log2(length)));
    if (size >= this.pageSize) return this.allocPages(length);
    const free = this.#free.get(size);
    const reused = free?.pop();
    if (reused !== undefined) return reused;
    const page = this.allocPages(this.pageSize);
    if (page === undefined) return undefined;
    for (let at = page + this.pageSize - size; at > page; at -= size) this.#putBack(size, at);
    return page;
  }

  /** Frees what `alloc` gave. */
  free(gpa: Gpa, length: number): void {
    const size = Math.max(SLAB_MIN, 2 ** Math.ceil(Math.log2(length)));
    this.#putBack(size >= this.pageSize ? Math.max(size, this.pageSize) : size, gpa);
  }

  /** Pages of a user buffer, in order: contiguous runs of 1 to 32 pages with gaps between. */
  allocUser(length: number): GuestRun[] | undefined {
    const runs: GuestRun[] = [];
    let left = length;
    while (left > 0) {
      const pages = Math.min(1 + this.#rng.below(32), Math.ceil(left / this.pageSize));
      // The gap: a page in use by someone else.
      const gpa = this.#userNext + this.pageSize;
      const bytes = pages * this.pageSize;
      if (gpa + bytes > this.#userEnd) return undefined;
      this.#userNext = gpa + bytes;
      runs.push({ gpa, length: Math.min(left, bytes) });
      left -= bytes;
    }
    return runs;
  }

  #putBack(size: number, gpa: Gpa): void {
    invariant(gpa >= 0, 'GuestPages: frees what it gave');
    const free = this.#free.get(size);
    if (free === undefined) this.#free.set(size, [gpa]);
    else free.push(gpa);
  }
}
