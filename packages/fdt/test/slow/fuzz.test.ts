/** Broken blobs by the thousand; each can be had again by its number. */
import { expect, test } from 'vitest';
import { type Fdt, FdtError, parseFdt, writeFdt } from '../../src/index.js';
import { DtcCrash, dtc, hasDtc } from '../dtc.js';
import { mutant } from '../mutate.js';

/** The tree, or why there is none; anything but an `FdtError` is thrown. */
function read(blob: Uint8Array, strict: boolean): Fdt | FdtError {
  try {
    return parseFdt(blob, { strict });
  } catch (error) {
    if (error instanceof FdtError) return error;
    throw error;
  }
}

test('only an FdtError is thrown, and what is taken can be written and read again', () => {
  const codes = new Map<string, number>();
  let taken = 0;
  for (let seed = 0; seed < 3000; seed += 1) {
    const blob = mutant(seed);
    const copy = blob.slice();
    const fdt = read(blob, seed % 8 === 0);
    if (Buffer.compare(blob, copy) !== 0) throw new Error(`mutant ${seed} was written to`);
    if (fdt instanceof FdtError) {
      codes.set(fdt.code, (codes.get(fdt.code) ?? 0) + 1);
      expect(fdt.offset ?? 0, `offset for mutant ${seed}`).toBeLessThanOrEqual(blob.length);
      expect(fdt.message.length, `message for mutant ${seed}`).toBeLessThan(600);
      continue;
    }
    taken += 1;
    const written = writeFdt(fdt);
    if (!sameTree(parseFdt(written), fdt)) throw new Error(`mutant ${seed} reads back otherwise`);
    if (Buffer.compare(writeFdt(parseFdt(written)), written) !== 0)
      throw new Error(`mutant ${seed}`);
  }
  // The mutants are neither all broken nor all whole, and they are broken in every way.
  expect(taken).toBeGreaterThan(300);
  expect([...codes.keys()].sort()).toEqual([
    'E_FDT_BOUNDS',
    'E_FDT_DUPLICATE',
    'E_FDT_LAYOUT',
    'E_FDT_MAGIC',
    'E_FDT_NAME',
    'E_FDT_NAME_OFFSET',
    'E_FDT_PADDING',
    'E_FDT_RESERVATION',
    'E_FDT_STRUCTURE',
    'E_FDT_TOKEN',
    'E_FDT_TRUNCATED',
    'E_FDT_VERSION',
  ]);
});

/** Much faster than `toEqual`, over thousands of trees. */
function sameTree(a: Fdt, b: Fdt): boolean {
  const text = (fdt: Fdt) =>
    JSON.stringify(fdt, (_, value) =>
      typeof value === 'bigint'
        ? String(value)
        : value instanceof Uint8Array
          ? Buffer.from(value).toString('hex')
          : value,
    );
  return text(a) === text(b);
}

/**
 * Where we are stricter than dtc; broken-blobs.ts has an example of each. The rest of the codes say
 * what dtc says too.
 */
const STRICTER = [
  // A reservation without a size; one past 2^64; reservations that end only behind the next block.
  'E_FDT_RESERVATION',
  // Blocks that overlap, are misaligned, or lie in the header.
  'E_FDT_LAYOUT',
  // Versions of the future.
  'E_FDT_VERSION',
  // A property behind a subnode, something behind FDT_END.
  'E_FDT_STRUCTURE',
  // The structure block ends where size_dt_struct says, not where the blob does.
  'E_FDT_BOUNDS',
  // Empty names, and a root that has one.
  'E_FDT_NAME',
];
/** Meaning, not format: we do not look into `name`, `phandle` and what refers to it. */
const FORMAT_ONLY = [
  'name_is_string',
  'name_properties',
  'explicit_phandles',
  'phandle_references',
  'path_references',
].flatMap((check) => ['-E', `no-${check}`, '-W', `no-${check}`]);

/** An assertion of dtc's fails on a `#address-cells` that is not one cell, for one. */
function judge(blob: Uint8Array): Uint8Array | 'crashed' | undefined {
  try {
    return dtc(['-I', 'dtb', '-O', 'dtb', ...FORMAT_ONLY], blob);
  } catch (error) {
    if (error instanceof DtcCrash) return 'crashed';
    throw error;
  }
}

test.skipIf(!hasDtc)('what dtc refuses is refused; what both take is the same', () => {
  let both = 0;
  let neither = 0;
  let crashes = 0;
  for (let seed = 100_000; seed < 100_200; seed += 1) {
    const blob = mutant(seed, 0x00ff_ffff);
    const ours = read(blob, false);
    const theirs = judge(blob);
    if (theirs === 'crashed') {
      crashes += 1;
    } else if (theirs === undefined) {
      neither += 1;
      expect(ours, `mutant ${seed}, which dtc refuses`).toBeInstanceOf(FdtError);
    } else if (ours instanceof FdtError) {
      expect(STRICTER, `mutant ${seed}: ${ours.message}`).toContain(ours.code);
    } else {
      both += 1;
      const same = Buffer.compare(writeFdt(ours), theirs) === 0;
      expect(same, `mutant ${seed} is written as dtc writes it`).toBe(true);
    }
  }
  expect(both).toBeGreaterThan(20);
  expect(neither).toBeGreaterThan(50);
  expect(crashes).toBeLessThan(10);
});
