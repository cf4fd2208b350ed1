import { readFileSync } from 'node:fs';
import { beforeAll, expect, test } from 'vitest';
// @ts-expect-error a script without types
import { costsPage } from '../costs-page.mjs';

let made: string;
beforeAll(() => {
  made = (costsPage as () => string)();
});

test('docs/COSTS.md is up to date (npm run docs:costs)', () => {
  const page = readFileSync(new URL('../../../../docs/COSTS.md', import.meta.url), 'utf8');
  expect(page).toBe(made);
});

test('the checks of the vhost figures lie inside, and are made with measured constants', () => {
  const rows = made.split('\n').filter((row) => row.startsWith('| vhost-user, '));
  expect(rows).toHaveLength(2);
  for (const row of rows) {
    const [, , , inside, assumed, use] = row
      .split('|')
      .map((text) => text.trim())
      .slice(1);
    expect({ inside, assumed, use }).toEqual({ inside: 'yes', assumed: '0 %', use: 'check' });
  }
});
