import { expect, test } from 'vitest';
import { editDistance, nearestName } from '../src/index.js';

test('the distance is the number of letters to change, insert or drop', () => {
  expect(editDistance('', 'abc')).toBe(3);
  expect(editDistance('kitten', 'sitting')).toBe(3);
  expect(editDistance('kick', 'kick')).toBe(0);
});

test('a mistyped name finds the one that was meant, and nothing where none is near', () => {
  expect(nearestName('hcallinqemu', ['hcallInKvm', 'hcallInQemu'])).toBe('hcallInQemu');
  expect(nearestName('kik', ['kick', 'interrupt'])).toBe('kick');
  expect(nearestName('something else', ['kick', 'interrupt'])).toBeUndefined();
  expect(nearestName('x'.repeat(1e6), ['kick'])).toBeUndefined();
});
