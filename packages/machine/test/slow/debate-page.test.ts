/** docs/THE-DEBATE.md: every figure of it is a run's, and every cell that it names exists. */
import { readFileSync } from 'node:fs';
import { parseCellId } from '@pinhole/machine';
import { beforeAll, expect, test } from 'vitest';
// @ts-expect-error a script without types
import { debatePage } from '../debate/debate-page.mjs';

const read = (path: string): string => readFileSync(new URL(path, import.meta.url), 'utf8');
const template = read('../debate/the-debate.md');
let made = '';

beforeAll(() => {
  made = (debatePage as () => string)();
}, 120_000);

test('docs/THE-DEBATE.md is up to date (npm run docs:debate)', () => {
  expect(read('../../../../docs/THE-DEBATE.md')).toBe(made);
});

test('no figure stands in the template: outcomes, counts and ratios come from runs', () => {
  const written = template.replace(/\{\{.*?\}\}/gs, '');
  expect(written).not.toMatch(/\b\d+(\.\d+)? (hypercalls|IOTLB misses|invalidations|MiB bounced)/);
  expect(written).not.toMatch(/works, but slow:|isolation broken:|contract broken:/);
  expect(template.match(/\{\{/g)?.length).toBeGreaterThan(30);
});

test('every cell that it names exists, and each is in the page as it is', () => {
  const ids = [...made.matchAll(/`([a-z0-9.-]+(?:\/[a-z0-9.-]+){5})`/g)].map(([, id = '']) => id);
  expect(new Set(ids).size).toBeGreaterThan(30);
  for (const id of ids) expect(parseCellId(id).id).toBe(id);
  expect(made).not.toMatch(/\{\{|undefined|NaN|\[object/);
});

test('every message that it speaks of has its source', () => {
  const sections = template.split(/^### /m).slice(1);
  expect(sections.length).toBeGreaterThanOrEqual(15);
  for (const section of sections) {
    const [title = ''] = section.split('\n');
    expect(section, title).toMatch(/^Source: /m);
  }
});
