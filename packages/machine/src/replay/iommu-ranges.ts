/** What an IOMMU's domain maps, as the guest's trace tells: `map` and `unmap`. */
import { hex } from '@pinhole/base';
import type { Disagreement } from './address-model.js';
import type { IommuRange } from './guest-operations.js';

/** A range that is mapped. */
export interface MappedRange {
  readonly line: number;
  readonly iova: bigint;
  readonly pages: number;
  /** Of its first page. */
  readonly gpa: bigint;
  /** A driver's mapping lies in it. */
  isOwned: boolean;
}

const PAGE_SHIFT = 12n;
const PAGE = 1n << PAGE_SHIFT;
/** Pages of one range at most: 1 GiB. */
const MAX_PAGES = 2 ** 18;
/** Pages that are followed at one time: 16 GiB. */
const MAX_LIVE = 2 ** 22;

/** Keeps what is mapped, by page. Memory is bounded by it. */
export class IommuRanges {
  /** Ranges that were mapped while they were in use. */
  doubleMaps = 0;
  firstDoubleMap: { readonly line: number; readonly iova: bigint } | undefined;
  maps = 0;
  unmaps = 0;
  /** Pages mapped at most. */
  peak = 0;
  /** More was mapped than is followed: nothing can be said any more. */
  isOverfull = false;
  readonly #pages = new Map<bigint, MappedRange>();

  /** Pages that are mapped. */
  get live(): number {
    return this.#pages.size;
  }

  /** The range that has this address. */
  at(iova: bigint): MappedRange | undefined {
    return this.#pages.get(iova >> PAGE_SHIFT);
  }

  /** Ranges that no driver's mapping lies in, in the order in which they were mapped. */
  unowned(): MappedRange[] {
    const ranges = new Set(this.#pages.values());
    return [...ranges].filter(({ isOwned }) => !isOwned);
  }

  /** A `map` or an `unmap` of the trace: what is wrong with it, if anything. */
  take(range: IommuRange): Disagreement | undefined {
    const { kind, iova, end, size, gpa, unmapped } = range;
    const wrongEnd = iova + BigInt(size) === end ? undefined : hex(iova + BigInt(size));
    if (wrongEnd !== undefined) {
      return { what: `${kind}: end`, recorded: hex(end), model: wrongEnd };
    }
    if (iova % PAGE !== 0n || gpa % PAGE !== 0n || size % Number(PAGE) !== 0 || size <= 0) {
      return { what: `${kind}: range`, recorded: `${hex(iova)}, ${size} bytes`, model: 'pages' };
    }
    if (size / Number(PAGE) > MAX_PAGES) {
      return { what: `${kind}: size`, recorded: `${size}`, model: 'at most 1 GiB' };
    }
    if (this.isOverfull) return undefined;
    if (kind === 'map') {
      this.#map(range);
      return undefined;
    }
    const found = this.#unmap(range);
    if (found !== size)
      return { what: 'unmap', recorded: `${size} bytes`, model: `${found} are mapped` };
    if (unmapped === size) return undefined;
    return { what: 'unmap: unmapped_size', recorded: `${unmapped}`, model: `${size}` };
  }

  #map({ line, iova, size, gpa }: IommuRange): void {
    this.maps += 1;
    const pages = size / Number(PAGE);
    const range: MappedRange = { line, iova, pages, gpa, isOwned: false };
    const first = iova >> PAGE_SHIFT;
    for (let i = 0; i < pages; i += 1) {
      const page = first + BigInt(i);
      if (this.#pages.has(page)) {
        this.doubleMaps += 1;
        this.firstDoubleMap ??= { line, iova: page << PAGE_SHIFT };
      }
      this.#pages.set(page, range);
    }
    this.peak = Math.max(this.peak, this.#pages.size);
    if (this.#pages.size <= MAX_LIVE) return;
    this.isOverfull = true;
    this.#pages.clear();
  }

  #unmap({ iova, size }: IommuRange): number {
    this.unmaps += 1;
    const first = iova >> PAGE_SHIFT;
    let found = 0;
    for (let i = 0n; i < BigInt(size) >> PAGE_SHIFT; i += 1n) {
      if (this.#pages.delete(first + i)) found += Number(PAGE);
    }
    return found;
  }
}
