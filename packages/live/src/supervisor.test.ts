import { expect, test } from 'vitest';
import { parseReport } from './supervisor.js';

test.each([
  ['', undefined, undefined],
  ['pid 12', undefined, undefined],
  ['pid 123\n', 123, undefined],
  ['pid 123\nexit 13', 123, undefined],
  ['pid 123\nexit 137\n', 123, 137],
])('%j', (text, pid, exit) => {
  expect(parseReport(text)).toEqual({ pid, exit });
});
