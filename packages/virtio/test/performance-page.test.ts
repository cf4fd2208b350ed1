import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
// @ts-expect-error a script without types
import * as script from './bench/support/performance-page.mjs';

const { performancePage } = script as unknown as { performancePage(): string };

test('docs/PERFORMANCE.md is up to date (npm run docs:performance)', () => {
  const page = readFileSync(new URL('../../../docs/PERFORMANCE.md', import.meta.url), 'utf8');
  expect(page).toBe(performancePage());
});
