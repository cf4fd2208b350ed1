import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
// @ts-expect-error a script without types
import * as script from './conformance-table.mjs';

interface Claims {
  claims: { id: string; title: string }[];
  mistakes: string[];
}
const { conformancePage, readClaims, readConformance } = script as unknown as {
  conformancePage(): string;
  readClaims(source: string): Claims;
  readConformance(): { mistakes: string[]; rows: { id: string }[] };
};

test('docs/VIRTIO-CONFORMANCE.md is up to date (npm run docs:conformance)', () => {
  const page = readFileSync(
    new URL('../../../../docs/VIRTIO-CONFORMANCE.md', import.meta.url),
    'utf8',
  );
  expect(page).toBe(conformancePage());
});

test('each statement has a test or a reason, not both; each claim names a statement', () => {
  expect(readConformance().mistakes).toEqual([]);
});

describe('a claim', () => {
  const id = 'driver-2.1.1-1';

  test('ends the title of a test', () => {
    expect(readClaims(`test('never [${id}]', () => {});`)).toEqual({
      claims: [{ id, title: 'never' }],
      mistakes: [],
    });
    expect(readClaims(`test('a [${id}] [device-6.2-1]', f);`).claims).toHaveLength(2);
    expect(readClaims(`test.each(rows)(\n  '%s [${id}, device-6.2-1]',`).claims).toEqual([
      { id, title: '%s' },
      { id: 'device-6.2-1', title: '%s' },
    ]);
    expect(readClaims(`test('it\\\\'s so [${id}]', f);`).claims).toEqual([
      { id, title: "it's so" },
    ]);
    expect(readClaims(`test.each([\n  ['a row [${id}]', 1],\n])('%s', f);`).claims).toHaveLength(1);
  });

  test.each([
    ['in a comment', `// see [${id}].`],
    ['of a group', `describe('all [${id}]', () => {`],
    ['in the middle of a title', `test('[${id}] never', () => {});`],
    ['beside a test that is skipped', `test('a [${id}]', f);\ntest.skip('b', g);`],
    ['by a test that is skipped', `test.skip('a [${id}]', f);`],
  ])('%s is a mistake', (_name, source) => {
    expect(readClaims(source).mistakes).toHaveLength(1);
  });
});
