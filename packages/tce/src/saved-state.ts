/**
 * The IOMMU's state as JSON: what QEMU's migration stream has of it, and nothing derived.
 * [qemu v7.2 hw/ppc/spapr_iommu.c vmstate_spapr_tce_table]
 */
import { type HiLo, hex, hi32, joinU64, lo32 } from '@pinhole/base';
import { TceError } from './errors.js';
import type { TceTable } from './tce-table.js';

/**
 * Entries that follow each other: the first one's index, how many, the first one's value, and by how
 * much each differs from the one before (modulo 2^64). 64-bit values are `0x...` strings.
 */
export type SavedEntries = readonly [index: number, count: number, tce: string, step: string];

/** One table. A closed window has `nbTable` 0 and no entries. */
export interface SavedTable {
  readonly liobn: number;
  readonly pageShift: number;
  readonly busOffset: string;
  readonly nbTable: number;
  readonly isDefaultWindow: boolean;
  /** Ascending; what is not listed is zero. */
  readonly entries: readonly SavedEntries[];
}

/** One PCI host bridge. */
export interface SavedPhb {
  readonly buid: string;
  readonly isLimited: boolean;
  readonly tables: readonly SavedTable[];
}

/** One VIO device; `table` is null where it has no window. */
export interface SavedVioDevice {
  readonly reg: number;
  readonly bypass: boolean;
  readonly table: SavedTable | null;
}

/** All of a machine's. */
export interface SavedIommu {
  readonly phbs: readonly SavedPhb[];
  readonly vio: readonly SavedVioDevice[];
}

/**
 * What a file may cost, in entries of 8 bytes over all its tables: 256 MiB. A window of 1 TiB in
 * pages of 64 KiB, all of it mapped, is half of that.
 */
const MAX_COST = 2 ** 25;
/** A piece of a table that is not filled as a whole costs as much, once more than a few entries are set. */
const PIECE = 4096;
const FEW = 64;

/** Writes a table down. */
export function saveTable(table: TceTable): SavedTable {
  const entries: SavedEntries[] = [];
  let [first, count] = [0, 0];
  let [start, step, last] = [zero(), zero(), zero()];
  const settle = (): void => {
    if (count > 0) {
      entries.push([
        first,
        count,
        hex(joinU64(start.hi, start.lo)),
        hex(joinU64(step.hi, step.lo)),
      ]);
    }
  };
  table.forEachRun((index, length, hi, lo) => {
    const stepLo = (lo - last.lo) >>> 0;
    const stepHi = (hi - last.hi - (lo < last.lo ? 1 : 0)) >>> 0;
    const isSameStep = stepHi === step.hi && stepLo === step.lo;
    const isNext =
      count > 0 &&
      index === first + count &&
      (count === 1 || isSameStep) &&
      (length === 1 || (stepHi === 0 && stepLo === 0));
    if (isNext) {
      count += length;
      step = isSameStep ? step : { hi: stepHi, lo: stepLo };
    } else {
      settle();
      [first, count, start, step] = [index, length, { hi, lo }, zero()];
    }
    last.hi = hi;
    last.lo = lo;
  });
  settle();
  return {
    liobn: table.liobn,
    pageShift: table.pageShift,
    busOffset: hex(table.busOffset),
    nbTable: table.nbTable,
    isDefaultWindow: table.isDefaultWindow,
    entries,
  };
}

/** Makes a table what was saved. No notifier hears of it; they stay where the window stays. */
export function loadTable(table: TceTable, saved: SavedTable): void {
  const { pageShift, nbTable } = saved;
  const busOffset = BigInt(saved.busOffset);
  const isSameWindow =
    table.pageShift === pageShift && table.busOffset === busOffset && table.nbTable === nbTable;
  if (isSameWindow) table.clear();
  else {
    table.disable();
    if (nbTable > 0) table.enable({ pageShift, busOffset, nbTable });
  }
  table.isDefaultWindow = saved.isDefaultWindow;
  for (const [index, count, tce, step] of saved.entries) {
    let [hi, lo] = [hi32(BigInt(tce)), lo32(BigInt(tce))];
    const [byHi, byLo] = [hi32(BigInt(step)), lo32(BigInt(step))];
    if (byHi === 0 && byLo === 0) table.fillSilently(index, count, hi, lo);
    else {
      for (let i = 0; i < count; i += 1) {
        table.storeHalves(index + i, hi, lo);
        const sum = lo + byLo;
        hi = (hi + byHi + (sum > 0xffff_ffff ? 1 : 0)) >>> 0;
        lo = sum >>> 0;
      }
    }
  }
}

function zero(): HiLo {
  return { hi: 0, lo: 0 };
}

/**
 * Reads a saved IOMMU and checks all of it.
 * @throws TceError `E_SAVED_STATE`: which part, what was expected, what was found.
 */
export function parseSavedIommu(value: unknown): SavedIommu {
  const { phbs, vio } = object(value, 'iommu');
  const budget = { entries: MAX_COST };
  return {
    phbs: array(phbs, 'phbs').map((phb, i) => parsePhb(phb, `phbs[${i}]`, budget)),
    vio: array(vio, 'vio').map((device, i) => parseVio(device, `vio[${i}]`, budget)),
  };
}

/** @throws TceError `E_SAVED_STATE` unless `isRight`. */
export function checkSaved(
  isRight: boolean,
  path: string,
  expected: string,
  found: unknown,
): asserts isRight {
  if (isRight) return;
  const shown = typeof found === 'object' && found !== null ? 'something else' : String(found);
  throw new TceError(
    'E_SAVED_STATE',
    `saved state: ${path}: expected ${expected}, found ${shown.slice(0, 60)}`,
    { details: { path } },
  );
}

/** What a file may still cost. */
interface Budget {
  entries: number;
}

// What a run costs: equal entries are kept once for each whole piece of the table.
function costOf(first: number, length: number, isEqual: boolean): number {
  const pieces = (count: number): number =>
    count <= FEW ? count : Math.ceil(count / PIECE) * PIECE;
  const head = Math.min(length, (PIECE - (first % PIECE)) % PIECE);
  const tail = (length - head) % PIECE;
  return isEqual ? pieces(head) + pieces(tail) : pieces(length);
}

function parsePhb(value: unknown, path: string, budget: Budget): SavedPhb {
  const { buid, isLimited, tables } = object(value, path);
  return {
    buid: u64(buid, `${path}.buid`),
    isLimited: boolean(isLimited, `${path}.isLimited`),
    tables: array(tables, `${path}.tables`).map((table, i) =>
      parseTable(table, `${path}.tables[${i}]`, budget),
    ),
  };
}

function parseVio(value: unknown, path: string, budget: Budget): SavedVioDevice {
  const { reg, bypass, table } = object(value, path);
  return {
    reg: integer(reg, `${path}.reg`, 0, 0xffff_ffff),
    bypass: boolean(bypass, `${path}.bypass`),
    table: table === null ? null : parseTable(table, `${path}.table`, budget),
  };
}

function parseTable(value: unknown, path: string, budget: Budget): SavedTable {
  const table = object(value, path);
  const nbTable = integer(table.nbTable, `${path}.nbTable`, 0, 0xffff_ffff);
  const isOpen = nbTable > 0;
  let end = 0;
  const entries = array(table.entries, `${path}.entries`).map((run, i): SavedEntries => {
    const at = `${path}.entries[${i}]`;
    const [index, count, tce, step] = array(run, at);
    const first = integer(index, `${at}[0] (index)`, end, nbTable - 1);
    const length = integer(count, `${at}[1] (count)`, 1, nbTable - first);
    end = first + length;
    const by = u64(step, `${at}[3] (step)`);
    budget.entries -= costOf(first, length, BigInt(by) === 0n);
    const limit = `what costs at most ${MAX_COST} entries in the file`;
    checkSaved(budget.entries >= 0, at, limit, MAX_COST - budget.entries);
    return [first, length, u64(tce, `${at}[2] (tce)`), by];
  });
  return {
    liobn: integer(table.liobn, `${path}.liobn`, 0, 0xffff_ffff),
    pageShift: integer(table.pageShift, `${path}.pageShift`, isOpen ? 12 : 0, isOpen ? 63 : 0),
    busOffset: u64(table.busOffset, `${path}.busOffset`),
    nbTable,
    isDefaultWindow: boolean(table.isDefaultWindow, `${path}.isDefaultWindow`),
    entries,
  };
}

function object(value: unknown, path: string): Record<string, unknown> {
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
  checkSaved(isObject, path, 'an object', value);
  return value as Record<string, unknown>;
}

function array(value: unknown, path: string): readonly unknown[] {
  checkSaved(Array.isArray(value), path, 'a list', value);
  return value;
}

function integer(value: unknown, path: string, min: number, max: number): number {
  const isRight = Number.isInteger(value) && (value as number) >= min && (value as number) <= max;
  checkSaved(isRight, path, `a whole number from ${min} to ${max}`, value);
  return value as number;
}

function boolean(value: unknown, path: string): boolean {
  checkSaved(typeof value === 'boolean', path, 'true or false', value);
  return value;
}

function u64(value: unknown, path: string): string {
  const isRight = typeof value === 'string' && /^0x[0-9a-f]{1,16}$/i.test(value);
  checkSaved(isRight, path, '"0x" and up to 16 hexadecimal digits', value);
  return value;
}
