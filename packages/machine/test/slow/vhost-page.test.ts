import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
// @ts-expect-error a script without types
import { vhostPage } from '../vhost/vhost-page.mjs';

test('docs/VHOST.md is up to date (npm run docs:vhost)', () => {
  const page = readFileSync(new URL('../../../../docs/VHOST.md', import.meta.url), 'utf8');
  expect(page).toBe((vhostPage as () => string)());
}, 300_000);
