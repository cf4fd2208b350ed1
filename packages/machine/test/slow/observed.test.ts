/** Every cell that ran for real, beside the model's run of it; and docs/REALITY.md, which is made of that. */
import { readFileSync } from 'node:fs';
import { Tracer } from '@pinhole/base';
import * as machine from '@pinhole/machine';
import { expect, test } from 'vitest';
// @ts-expect-error a script without types
import * as compare from '../matrix/observed/compare.mjs';
// @ts-expect-error a script without types
import { realityPage } from '../matrix/observed/reality-page.mjs';

const { compareBoot, compareCell, FACTS, isComparable, readBoots } = compare;

interface Row {
  readonly id: string;
  readonly what: string;
  readonly real: string;
  readonly model: string;
}

const read = (path: string): string => readFileSync(new URL(path, import.meta.url), 'utf8');
const boots: { boot: string; cells: { id: string; qemu: { events: object } }[] }[] = readBoots(
  read('../matrix/observed/observed.jsonl'),
);
const rowsOf = (id: string, rows: object[]): Row[] => rows.map((row) => ({ id, ...row }) as Row);

test('in every cell, every fact is the same', () => {
  const cells = boots.flatMap((boot) => boot.cells);
  const rows = cells.flatMap((cell) => rowsOf(cell.id, compareCell(cell, machine)));
  expect(rows.filter(({ real, model }) => real !== model)).toEqual([]);
  // None is left out but invalidations by VT-d.
  expect(boots).toHaveLength(27);
  expect(cells).toHaveLength(153);
  const left = cells.filter(({ id }) => !isComparable(id, 'IOMMU commands'));
  expect(left.map(({ id }) => id.split('/')[1])).toEqual(Array(18).fill('x86-64-intel-iommu'));
  expect(rows).toHaveLength(cells.length * FACTS.length - left.length);
  const smmu = cells.filter(({ id }) => id.includes('/arm64-smmuv3/'));
  for (const { qemu } of smmu) {
    expect(qemu.events).toHaveProperty('smmuv3_translate_success, interrupt', 17);
  }
  for (const { qemu } of left) expect(qemu.events).not.toHaveProperty('vtd_inv_desc_iotlb_pages');
  // Each count counts something, somewhere.
  const counted = new Set(rows.filter(({ real }) => Number(real) > 0).map(({ what }) => what));
  const zero = ['reads wrong', 'bytes of the image wrong', 'mappings left'];
  const named = ['outcome', 'requests', 'buffers go through the DMA API'];
  expect([...counted, ...zero, ...named].sort()).toEqual([...FACTS].sort());
});

test('in every boot, the windows and the way of invalidation are the same', () => {
  const rows = boots.flatMap((boot) => rowsOf(boot.boot, compareBoot(boot, machine, Tracer)));
  expect(rows.filter(({ real, model }) => real !== model)).toEqual([]);
  expect(rows.map(({ what }) => what).sort()).toEqual([
    ...Array(5).fill('invalidation'),
    ...Array(6).fill('windows made'),
    ...Array(6).fill('windows on offer'),
  ]);
});

test('docs/REALITY.md is up to date (npm run docs:reality), and accounts for every cell', () => {
  const page: string = realityPage();
  expect(read('../../../../docs/REALITY.md')).toBe(page);
  const others = [...page.matchAll(/^\| (\d+) \| /gm)].map(([, count]) => Number(count));
  const sum = others.reduce((total, count) => total + count, 0);
  expect(153 + sum).toBe(machine.matrixCells().length);
});
