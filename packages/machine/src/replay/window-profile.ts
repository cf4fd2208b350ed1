/** How a window was used: how full it was over time, and which entries when it was fullest. */
import { IommuTable } from '@pinhole/guest';
import { assumedWindow } from './device-route.js';
import { TCE_PAGE_SHIFT } from './tce-call.js';

/** A buffer's entries, or a part of them: what one hypercall mapped. */
export interface Mapped<T> {
  readonly first: number;
  readonly npages: number;
  /** Entries that are still mapped. */
  left: number;
  isLeaked: boolean;
  readonly of: T;
}

/** What a window is. */
export interface ProfiledWindow {
  readonly liobn: number;
  readonly busOffset: bigint;
  readonly pageShift: number;
  /** Entries. */
  readonly size: number;
  /** The allocator's: the small ones, then the large one, `[start, end)`. Empty: nobody allocates. */
  readonly pools: readonly { readonly start: number; readonly end: number }[];
}

/** A picture of a window: neighbouring entries are one cell. */
export interface WindowPicture {
  /** Of QEMU's log. */
  readonly line: number;
  readonly live: number;
  readonly leaked: number;
  readonly entriesPerCell: number;
  /** By cell: entries that are mapped, and of these the given-up ones. */
  readonly mapped: readonly number[];
  readonly given: readonly number[];
}

/** A window of 4 KiB pages with the pools that Linux makes of it. */
export function windowWithPools(window: {
  readonly liobn: number;
  readonly busOffset: bigint;
  readonly size: number;
}): ProfiledWindow {
  const { liobn, busOffset, size } = window;
  const table = new IommuTable({ liobn, busOffset, size, pageShift: TCE_PAGE_SHIFT });
  const pools = table.pools.map(({ start, end }) => ({ start, end }));
  return { liobn, busOffset, size, pageShift: TCE_PAGE_SHIFT, pools };
}

const MAX_CELLS = 2048;
const MAX_POINTS = 512;

/** One window's use. Memory: its live entries, and a bounded number of cells and points. */
export class WindowProfile<T> implements ProfiledWindow {
  readonly liobn: number;
  readonly busOffset: bigint;
  readonly pageShift: number;
  readonly size: number;
  readonly pools: ProfiledWindow['pools'];
  readonly entriesPerCell: number;
  readonly occupancy: Occupancy = new Occupancy();
  readonly #entries = new Map<number, Mapped<T>>();
  readonly #mapped: Uint32Array;
  readonly #given: Uint32Array;
  #leaked = 0;
  #peak = 0;
  #isFullest = false;
  #line = 0;
  #picture: WindowPicture | undefined;

  constructor(window: ProfiledWindow) {
    this.liobn = window.liobn;
    this.busOffset = window.busOffset;
    this.pageShift = window.pageShift;
    this.size = window.size;
    this.pools = window.pools;
    let entriesPerCell = 1;
    while (this.size > entriesPerCell * MAX_CELLS) entriesPerCell *= 2;
    this.entriesPerCell = entriesPerCell;
    const cells = Math.ceil(this.size / entriesPerCell);
    this.#mapped = new Uint32Array(cells);
    this.#given = new Uint32Array(cells);
  }

  /** A window that no other source describes. */
  static assumed<T>(liobn: number): WindowProfile<T> {
    return new WindowProfile(windowWithPools(assumedWindow(liobn)));
  }

  get live(): number {
    return this.#entries.size;
  }

  get peak(): number {
    return this.#peak;
  }

  get leaked(): number {
    return this.#leaked;
  }

  entryOf(ioba: bigint): number {
    return Number((ioba - this.busOffset) >> BigInt(this.pageShift));
  }

  at(entry: number): Mapped<T> | undefined {
    return this.#entries.get(entry);
  }

  /** Whatever is mapped, each as often as it has entries. */
  get all(): Iterable<Mapped<T>> {
    return this.#entries.values();
  }

  map(first: number, npages: number, line: number, of: T): Mapped<T> | undefined {
    if (first < 0 || first + npages > this.size) return undefined;
    this.unmap(first, npages, line);
    const mapped: Mapped<T> = { first, npages, left: npages, isLeaked: false, of };
    for (let i = first; i < first + npages; i += 1) {
      this.#entries.set(i, mapped);
      this.#add(this.#mapped, i, 1);
    }
    if (this.live > this.#peak) {
      this.#peak = this.live;
      this.#isFullest = true;
    }
    this.#note(line);
    return mapped;
  }

  /** @returns what was mapped there: each once. */
  unmap(first: number, npages: number, line: number): ReadonlySet<Mapped<T>> {
    const gone = new Set<Mapped<T>>();
    if (this.#entries.size === 0) return gone;
    const isWide = npages > this.#entries.size;
    const inside = isWide
      ? [...this.#entries.keys()].filter((i) => i >= first && i < first + npages)
      : Array.from({ length: npages }, (_, i) => first + i);
    for (const i of inside) {
      const mapped = this.#entries.get(i);
      if (mapped === undefined) continue;
      this.#keepFullest();
      this.#entries.delete(i);
      this.#add(this.#mapped, i, -1);
      if (mapped.isLeaked) {
        this.#add(this.#given, i, -1);
        this.#leaked -= 1;
      }
      mapped.left -= 1;
      gone.add(mapped);
    }
    if (gone.size > 0) this.#note(line);
    return gone;
  }

  /** The driver gave these up; they stay. */
  giveUp(first: number, npages: number, line: number): void {
    for (let i = first; i < first + npages; i += 1) {
      const mapped = this.#entries.get(i);
      if (mapped === undefined || mapped.isLeaked) continue;
      mapped.isLeaked = true;
      for (let own = mapped.first; own < mapped.first + mapped.npages; own += 1) {
        if (this.#entries.get(own) !== mapped) continue;
        this.#add(this.#given, own, 1);
        this.#leaked += 1;
      }
    }
    this.#note(line);
  }

  /** The window as it was when it was fullest; what was given up later counts as given up. */
  picture(): WindowPicture {
    this.#keepFullest();
    return this.#picture ?? this.#take();
  }

  #keepFullest(): void {
    if (!this.#isFullest) return;
    this.#isFullest = false;
    this.#picture = this.#take();
  }

  #take(): WindowPicture {
    return {
      line: this.#line,
      live: this.live,
      leaked: this.#leaked,
      entriesPerCell: this.entriesPerCell,
      mapped: [...this.#mapped],
      given: [...this.#given],
    };
  }

  #note(line: number): void {
    this.#line = line;
    this.occupancy.note(line, this.live, this.#leaked);
  }

  #add(cells: Uint32Array, entry: number, change: number): void {
    const cell = Math.floor(entry / this.entriesPerCell);
    cells[cell] = (cells[cell] ?? 0) + change;
  }
}

/** How full a window was over the lines of a log: at most so many points, however long the log. */
export class Occupancy {
  /** Lines that one point stands for. */
  step = 1;
  /** The most entries that were live within each point, and of these the given-up ones. */
  readonly live: number[] = [];
  readonly given: number[] = [];
  #last = { live: 0, given: 0 };

  note(line: number, live: number, given: number): void {
    this.until(line);
    const at = Math.floor(line / this.step);
    this.live[at] = Math.max(this.live[at] ?? 0, live);
    this.given[at] = Math.max(this.given[at] ?? 0, given);
    this.#last = { live, given };
  }

  /** Nothing changed up to this line. */
  until(line: number): void {
    while (line >= this.step * MAX_POINTS) this.#halve();
    for (let at = this.live.length; at <= Math.floor(line / this.step); at += 1) {
      this.live.push(this.#last.live);
      this.given.push(this.#last.given);
    }
  }

  #halve(): void {
    for (const points of [this.live, this.given]) {
      const half = Math.ceil(points.length / 2);
      for (let i = 0; i < half; i += 1) {
        points[i] = Math.max(points[2 * i] ?? 0, points[2 * i + 1] ?? 0);
      }
      points.length = half;
    }
    this.step *= 2;
  }
}
