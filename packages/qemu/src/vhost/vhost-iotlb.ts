import { EFAULT } from './types.js';

/** Default of the module parameter `max_iotlb_entries`. [linux v6.1.176 drivers/vhost/vhost.c] */
export const VHOST_MAX_IOTLB_ENTRIES = 2048;

const MOST = 2n ** 64n - 1n;

/** A remembered translation. [linux v6.1.176 include/linux/vhost_iotlb.h vhost_iotlb_map] */
export interface IotlbMap {
  /** The first and the last byte on the bus. */
  readonly start: bigint;
  readonly last: bigint;
  /** Where the first byte lies in guest memory. */
  readonly gpa: number;
  /** Bits 0 (read) and 1 (write). */
  readonly perm: number;
}

interface Node extends IotlbMap {
  /** The greatest `last` of this entry and of all before it. */
  reach: bigint;
  /** The neighbours in age; a Set would be slow to find its oldest member. */
  older: Node | undefined;
  newer: Node | undefined;
}

/**
 * What a vhost data plane remembers of an IOMMU: ranges of bus addresses, which may overlap. Full, it
 * drops the oldest, used or not. [linux v6.1.176 drivers/vhost/iotlb.c]
 *
 * Kept as an array in the order of the tree, by first byte and then by age, where Linux has an
 * interval tree.
 */
export class VhostIotlb {
  /** The most entries; 0: no limit, where v6.1.192 refuses every range. */
  readonly limit: number;
  /** Entries that made room for newer ones, and the most entries there ever were. */
  evictions = 0;
  peak = 0;
  readonly #nodes: Node[] = [];
  #oldest: Node | undefined;
  #newest: Node | undefined;
  readonly #onEvict: ((map: IotlbMap) => void) | undefined;

  constructor(limit: number = VHOST_MAX_IOTLB_ENTRIES, onEvict?: (map: IotlbMap) => void) {
    this.limit = limit;
    this.#onEvict = onEvict;
  }

  get size(): number {
    return this.#nodes.length;
  }

  /**
   * Adds a range, beside those that it overlaps: the old ones stay in force. All 64 bits at once
   * become two entries. [linux v6.1.176 drivers/vhost/iotlb.c vhost_iotlb_add_range_ctx]
   * @returns 0, or -EFAULT for a range that ends before it starts.
   */
  add(start: bigint, last: bigint, gpa: number, perm: number): number {
    if (last < start) return -EFAULT;
    if (start === 0n && last === MOST) {
      const middle = last / 2n;
      this.add(start, middle, gpa, perm);
      return this.add(middle + 1n, last, gpa + Number(middle + 1n), perm);
    }
    if (this.limit > 0 && this.size === this.limit) this.#evictOldest();
    const older = this.#newest;
    const node: Node = { start, last, gpa, perm, reach: last, older, newer: undefined };
    if (older === undefined) this.#oldest = node;
    else older.newer = node;
    this.#newest = node;
    const at = this.#firstAfter(start);
    this.#nodes.splice(at, 0, node);
    this.#mend(at);
    if (this.size > this.peak) this.peak = this.size;
    return 0;
  }

  /**
   * Drops every entry that overlaps the range, as a whole.
   * [linux v6.1.176 drivers/vhost/iotlb.c vhost_iotlb_del_range]
   */
  delete(start: bigint, last: bigint): void {
    for (;;) {
      const at = this.#firstReaching(start);
      const node = this.#nodes[at];
      if (node === undefined || node.start > last) return;
      this.#drop(at);
    }
  }

  /**
   * The entry that a device's access to `address` goes by: of those that hold it the one that starts
   * first, and of these the oldest. [linux v6.1.176 drivers/vhost/iotlb.c vhost_iotlb_itree_first]
   */
  find(address: bigint): IotlbMap | undefined {
    const node = this.#nodes[this.#firstReaching(address)];
    return node !== undefined && node.start <= address ? node : undefined;
  }

  clear(): void {
    this.#nodes.length = 0;
    this.#oldest = undefined;
    this.#newest = undefined;
  }

  /** In the order of the tree: for tests and people. */
  entries(): readonly IotlbMap[] {
    return this.#nodes.map(({ start, last, gpa, perm }) => ({ start, last, gpa, perm }));
  }

  #evictOldest(): void {
    const node = this.#oldest;
    if (node === undefined) return;
    let at = this.#firstAfter(node.start) - 1;
    while (this.#nodes[at] !== node) at -= 1;
    this.#drop(at);
    this.evictions += 1;
    this.#onEvict?.(node);
  }

  #drop(at: number): void {
    const { older, newer } = this.#nodes[at] as Node;
    if (older === undefined) this.#oldest = newer;
    else older.newer = newer;
    if (newer === undefined) this.#newest = older;
    else newer.older = older;
    this.#nodes.splice(at, 1);
    this.#mend(at);
  }

  // Makes `reach` right from `at` on. Where nothing overlaps that is one step.
  #mend(at: number): void {
    const nodes = this.#nodes;
    let reach = at === 0 ? -1n : (nodes[at - 1] as Node).reach;
    for (let i = at; i < nodes.length; i += 1) {
      const node = nodes[i] as Node;
      if (node.last > reach) reach = node.last;
      if (i > at && node.reach === reach) return;
      node.reach = reach;
    }
  }

  // The first place whose entry starts after `start`.
  #firstAfter(start: bigint): number {
    return this.#search(({ start: other }) => other > start);
  }

  // The first entry in order that ends at `address` or after it: no one before it does.
  #firstReaching(address: bigint): number {
    return this.#search(({ reach }) => reach >= address);
  }

  #search(isThere: (node: Node) => boolean): number {
    let low = 0;
    let high = this.#nodes.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (isThere(this.#nodes[middle] as Node)) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
