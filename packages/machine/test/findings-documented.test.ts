import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { FINDINGS } from '../src/index.js';

test('docs/JSON.md has every finding, with its severity, and no other', () => {
  const page = readFileSync(new URL('../../../docs/JSON.md', import.meta.url), 'utf8');
  const rows = [...page.matchAll(/^\| `([EWI]_[A-Z_]+)` \| (error|warning|info) \| \S/gm)];
  const documented = rows.map(([, code, severity]) => [code, severity]);
  expect(documented).toEqual(Object.entries(FINDINGS).map(([code, kind]) => [code, kind.severity]));
});
