import { expect, test } from 'vitest';
import { waitUntil } from './wait.js';

test('ends as soon as it is done', () => {
  let looks = 0;
  expect(waitUntil(() => ++looks === 3, 1000)).toBe(true);
  expect(looks).toBe(3);
});

test('ends when the time is over, but not before', () => {
  const start = performance.now();
  expect(waitUntil(() => false, 20)).toBe(false);
  expect(performance.now() - start).toBeGreaterThanOrEqual(20);
});

test('an error of the meanwhile ends it', () => {
  const meanwhile = (): void => {
    throw new Error('dead');
  };
  expect(() => waitUntil(() => false, 10_000, meanwhile)).toThrow('dead');
});
