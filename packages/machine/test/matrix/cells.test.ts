/** Cells against what the domain notes say of them; here one data plane and one ring of each. */
import { describe, expect, test } from 'vitest';
import { matrixDisk, runCell } from '../../src/matrix/run-cell.js';
import { EXPECTED } from './expected.js';

const disk = matrixDisk();

describe('what cells show', () => {
  test.each(EXPECTED)('$place: $outcome, for $because', ({ place, outcome, also = [], says }) => {
    const { result } = runCell(`${place}/qemu/split`, { disk });
    expect(result.outcome, result.text).toBe(outcome);
    expect(result.also).toEqual(expect.arrayContaining([...also]));
    if (says !== undefined) expect(result.text).toMatch(says);
  });

  test('no two rows speak of the same cell', () => {
    expect(new Set(EXPECTED.map(({ place }) => place)).size).toBe(EXPECTED.length);
  });
});
