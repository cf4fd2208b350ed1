import { type Gpa, invariant } from '@pinhole/base';

/**
 * Which pages of a secure guest the hypervisor may see. All pages begin private; the guest shares
 * pages by ultracall. [linux v6.1 Documentation/powerpc/ultravisor.rst UV_SHARE_PAGE]
 */
export class PageOwnership {
  /** In bytes: the granule of sharing. */
  readonly pageSize: number;
  // Shared pages only: secure guests share little.
  readonly #shared = new Set<number>();

  constructor(options: { readonly pageSize: number }) {
    invariant(
      options.pageSize > 0 && Number.isInteger(Math.log2(options.pageSize)),
      'PageOwnership: the page size is a power of two',
    );
    this.pageSize = options.pageSize;
  }

  /** How much memory is shared, in bytes. */
  get sharedBytes(): number {
    return this.#shared.size * this.pageSize;
  }

  isShared(gpa: Gpa): boolean {
    return this.#shared.has(Math.floor(gpa / this.pageSize));
  }

  /** Shares every page that [gpa, gpa + length) touches. */
  share(gpa: Gpa, length: number): void {
    this.#forEachPage(gpa, length, (page) => this.#shared.add(page));
  }

  /** Makes every page that [gpa, gpa + length) touches private again. */
  unshare(gpa: Gpa, length: number): void {
    this.#forEachPage(gpa, length, (page) => this.#shared.delete(page));
  }

  /** The shared pages, ascending, one run a page. */
  sharedRuns(): { gpa: Gpa; length: number }[] {
    const pages = [...this.#shared].sort((a, b) => a - b);
    return pages.map((page) => ({ gpa: page * this.pageSize, length: this.pageSize }));
  }

  /** How many bytes of [gpa, gpa + length) are shared. */
  sharedBytesWithin(gpa: Gpa, length: number): number {
    const end = gpa + length;
    const pages = Math.ceil(end / this.pageSize) - Math.floor(gpa / this.pageSize);
    let bytes = 0;
    const add = (page: number): void => {
      const start = Math.max(gpa, page * this.pageSize);
      bytes += Math.min(end, (page + 1) * this.pageSize) - start;
    };
    if (pages <= this.#shared.size) {
      this.#forEachPage(gpa, length, (page) => {
        if (this.#shared.has(page)) add(page);
      });
    } else {
      for (const page of this.#shared) {
        if (page * this.pageSize < end && (page + 1) * this.pageSize > gpa) add(page);
      }
    }
    return bytes;
  }

  #forEachPage(gpa: Gpa, length: number, visit: (page: number) => void): void {
    if (length <= 0) return;
    const last = Math.floor((gpa + length - 1) / this.pageSize);
    for (let page = Math.floor(gpa / this.pageSize); page <= last; page += 1) visit(page);
  }
}
