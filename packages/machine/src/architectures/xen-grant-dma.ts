import { type Gpa, type HiLo, invariant } from '@pinhole/base';
import type { GuestPages } from '@pinhole/guest';
import { DmaDirection, type DmaOps, type GuestMemory } from '@pinhole/memory';
import {
  GNTTAB_NR_RESERVED_ENTRIES,
  type GrantTable,
  refOf,
  XEN_GRANT_DMA_ADDR_OFF_HI,
  XEN_PAGE_SIZE,
} from './xen-grant-table.js';

/** Options of {@link createGrantDmaOps}. */
export interface GrantDmaOptions {
  readonly table: GrantTable;
  readonly memory: GuestMemory;
  readonly pages: GuestPages;
  /** Told, in the kernel's words, when the backend keeps a page. */
  readonly onBroken: (message: string) => void;
}

/**
 * Each page of a buffer gets a grant reference, all of them in a row; their number is the bus address.
 * A device whose backend keeps a page that was granted gets nothing more, for good.
 * [linux v6.1 drivers/xen/grant-dma-ops.c xen_grant_dma_map_page, xen_grant_dma_alloc]
 */
export function createGrantDmaOps(options: GrantDmaOptions): DmaOps {
  const { table, memory, pages, onBroken } = options;
  const refs = new GrantReferences(table.size);
  let isBroken = false;

  function grant(gpa: Gpa, length: number, isReadOnly: boolean, out: HiLo): boolean {
    if (isBroken) return false;
    const offset = gpa % XEN_PAGE_SIZE;
    const count = Math.ceil((offset + length) / XEN_PAGE_SIZE);
    const first = refs.take(count);
    if (first === undefined) return false;
    const gfn = Math.floor(gpa / XEN_PAGE_SIZE);
    for (let i = 0; i < count; i += 1) table.grant(first + i, gfn + i, isReadOnly);
    out.hi = XEN_GRANT_DMA_ADDR_OFF_HI + Math.floor(first / 2 ** 20);
    out.lo = (((first << 12) >>> 0) + offset) >>> 0;
    return true;
  }

  function end(hi: number, lo: number, length: number): boolean {
    if (isBroken) return false;
    const first = refOf(hi, lo);
    const count = Math.ceil(((lo % XEN_PAGE_SIZE) + length) / XEN_PAGE_SIZE);
    for (let i = 0; i < count; i += 1) {
      if (table.end(first + i)) continue;
      isBroken = true;
      onBroken('Grant still in use by backend domain, disabled for further use');
      return false;
    }
    refs.give(first, count);
    return true;
  }

  return {
    name: 'xen-grant-dma',
    maxMappingSize: Number.POSITIVE_INFINITY,
    map: (gpa, length, direction, out) =>
      grant(gpa, length, direction === DmaDirection.TO_DEVICE, out),
    unmap(hi, lo, length) {
      end(hi, lo, length);
    },
    allocCoherent(length, out) {
      const bytes = Math.ceil(length / XEN_PAGE_SIZE) * XEN_PAGE_SIZE;
      const gpa = pages.allocPages(bytes);
      if (gpa === undefined) return undefined;
      if (!grant(gpa, bytes, false, out)) {
        pages.freePages(gpa, bytes);
        return undefined;
      }
      memory.fill(gpa, bytes, 0);
      return gpa;
    },
    // Memory whose grant does not end is not given back.
    freeCoherent(gpa, hi, lo, length) {
      const bytes = Math.ceil(length / XEN_PAGE_SIZE) * XEN_PAGE_SIZE;
      if (end(hi, lo, bytes)) pages.freePages(gpa, bytes);
    },
  };
}

/**
 * References that are free, in ascending runs.
 *
 * Deviates from `gnttab_alloc_grant_reference_seq`: the lowest run that is long enough, where Linux
 * takes the one that was freed last. What the numbers are is this model's choice.
 */
class GrantReferences {
  #runs: { first: number; end: number }[];

  constructor(size: number) {
    this.#runs = [{ first: GNTTAB_NR_RESERVED_ENTRIES, end: size }];
  }

  take(count: number): number | undefined {
    const run = this.#runs.find(({ first, end }) => end - first >= count);
    if (run === undefined) return undefined;
    const { first } = run;
    run.first += count;
    if (run.first === run.end) this.#runs = this.#runs.filter((other) => other !== run);
    return first;
  }

  give(first: number, count: number): void {
    const end = first + count;
    const at = this.#runs.findIndex((run) => run.first >= end);
    const next = at < 0 ? this.#runs.length : at;
    const [before, after] = [this.#runs[next - 1], this.#runs[next]];
    invariant(before === undefined || before.end <= first, 'GrantReferences: given back once');
    if (before?.end === first) before.end = end;
    else this.#runs.splice(next, 0, { first, end });
    if (after?.first !== end) return;
    const joined = before?.end === end ? before : this.#runs[next];
    invariant(joined !== undefined, 'GrantReferences: the run that was given back');
    joined.end = after.end;
    this.#runs = this.#runs.filter((run) => run !== after);
  }
}
