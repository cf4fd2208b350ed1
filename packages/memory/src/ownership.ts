import { type Gpa, invariant } from '@pinhole/base';

/**
 * Which pages of a secure guest the hypervisor may see. All pages begin private; the guest shares
 * pages by ultracall. [linux v6.1 Documentation/powerpc/ultravisor.rst UV_SHARE_PAGE]
 */
export class PageOwnership {
  /** In bytes: the granule of sharing. */
  readonly pageSize: number;
  // Shared memory as disjoint, ascending runs that do not touch; in bytes, whole pages.
  #runs: { start: number; end: number }[] = [];

  constructor(options: { readonly pageSize: number }) {
    invariant(
      options.pageSize > 0 && Number.isInteger(Math.log2(options.pageSize)),
      'PageOwnership: the page size is a power of two',
    );
    this.pageSize = options.pageSize;
  }

  /** How much memory is shared, in bytes. */
  get sharedBytes(): number {
    return this.#runs.reduce((sum, { start, end }) => sum + end - start, 0);
  }

  isShared(gpa: Gpa): boolean {
    return this.#runs.some(({ start, end }) => gpa >= start && gpa < end);
  }

  /** Shares every page that [gpa, gpa + length) touches. */
  share(gpa: Gpa, length: number): void {
    let { start, end } = this.#pages(gpa, length);
    if (start === end) return;
    const apart: { start: number; end: number }[] = [];
    for (const run of this.#runs) {
      if (run.end < start || run.start > end) {
        apart.push(run);
      } else {
        start = Math.min(start, run.start);
        end = Math.max(end, run.end);
      }
    }
    this.#runs = [...apart, { start, end }].sort((a, b) => a.start - b.start);
  }

  /** Makes every page that [gpa, gpa + length) touches private again. */
  unshare(gpa: Gpa, length: number): void {
    const { start, end } = this.#pages(gpa, length);
    this.#runs = this.#runs.flatMap((run) => [
      ...(run.start < start ? [{ start: run.start, end: Math.min(run.end, start) }] : []),
      ...(run.end > end ? [{ start: Math.max(run.start, end), end: run.end }] : []),
    ]);
  }

  /** The shared memory: ascending, disjoint runs. */
  sharedRuns(): { gpa: Gpa; length: number }[] {
    return this.#runs.map(({ start, end }) => ({ gpa: start, length: end - start }));
  }

  /** How many bytes of [gpa, gpa + length) are shared. */
  sharedBytesWithin(gpa: Gpa, length: number): number {
    let bytes = 0;
    for (const { start, end } of this.#runs) {
      bytes += Math.max(0, Math.min(end, gpa + length) - Math.max(start, gpa));
    }
    return bytes;
  }

  #pages(gpa: Gpa, length: number): { start: number; end: number } {
    const start = Math.floor(gpa / this.pageSize) * this.pageSize;
    if (length <= 0) return { start, end: start };
    return { start, end: Math.ceil((gpa + length) / this.pageSize) * this.pageSize };
  }
}
