import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
// @ts-expect-error a script without types
import { recordingsPage } from '../recordings-table.mjs';

test('docs/RECORDINGS.md is up to date (npm run docs:recordings)', () => {
  const page = readFileSync(new URL('../../../../docs/RECORDINGS.md', import.meta.url), 'utf8');
  expect(page).toBe((recordingsPage as () => string)());
}, 60_000);
