import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { DEVICE_WEIGHTS } from './device-op.js';
import { DeviceTarget } from './device-target.js';
import { DRIVER_WEIGHTS } from './driver-op.js';
import { DriverTarget } from './driver-target.js';
import { FINDINGS } from './findings.js';
import { type Found, Fuzzer, type FuzzTarget } from './fuzzer.js';
import { DEVICE_MISTAKES, DRIVER_MISTAKES } from './planted.js';
import type { Weights } from './program.js';
import { TARGETS } from './targets.js';

const STATES = 2048;

function corpus(name: string): Uint8Array[] {
  const text = readFileSync(new URL(`./corpus/${name}.txt`, import.meta.url), 'utf8');
  const lines = text.split('\n').filter((line) => line !== '');
  return lines.map((line) => Uint8Array.from(Buffer.from(line, 'base64')));
}

function fuzzer(
  name: string,
  make: (hits: Uint8Array) => FuzzTarget,
  weights: Weights,
  programs: readonly Uint8Array[],
): Fuzzer {
  const hits = new Uint8Array(STATES);
  return new Fuzzer({
    target: make(hits),
    hits: [hits],
    weights,
    seed: name.length,
    corpus: programs,
  });
}

describe.each(Object.entries(TARGETS))('%s', (name, { make, weights }) => {
  test('no program of the corpus finds anything', () => {
    expect(fuzzer(name, make, weights, corpus(name)).replay()).toBeUndefined();
  });

  test('nor do hundreds of new ones', () => {
    expect(fuzzer(name, make, weights, corpus(name).slice(0, 20)).fuzz(300)).toBeUndefined();
  });
});

test.each(FINDINGS)('%s, found once: %s', (name, _what, program) => {
  expect(() => TARGETS[name]!.make(new Uint8Array(STATES)).run(program)).not.toThrow();
});

// A fuzzer that finds nothing must be one that could have.
describe('a mistake in the queue is found', () => {
  /** From nothing but the seeds' operations. */
  function find(name: string, make: (hits: Uint8Array) => FuzzTarget, weights: Weights): Found {
    const found = fuzzer(name, make, weights, []);
    return found.replay() ?? found.fuzz(20_000) ?? expect.fail(`not found: ${name}`);
  }

  describe.each([
    ['split', false],
    ['packed', true],
  ])('%s device', (_layout, isPacked) => {
    test.each(Object.entries(DEVICE_MISTAKES))('%s', (name, mistake) => {
      const make = (hits: Uint8Array): FuzzTarget => new DeviceTarget(isPacked, hits, mistake);
      expect(find(name, make, DEVICE_WEIGHTS).error).toBeInstanceOf(Error);
    });
  });

  describe.each([
    ['split', false],
    ['packed', true],
  ])('%s driver', (_layout, isPacked) => {
    test.each(Object.entries(DRIVER_MISTAKES))('%s', (name, mistake) => {
      const make = (hits: Uint8Array): FuzzTarget => new DriverTarget(isPacked, hits, mistake);
      expect(find(name, make, DRIVER_WEIGHTS).error).toBeInstanceOf(Error);
    });
  });

  test('and made as short as it gets', () => {
    const mistake = DEVICE_MISTAKES['a used entry with the next name']!;
    const make = (hits: Uint8Array): FuzzTarget => new DeviceTarget(false, hits, mistake);
    const found = fuzzer('', make, DEVICE_WEIGHTS, []);
    const first = found.fuzz(20_000)!;
    const least = found.minimise(first);
    expect(least.error.message).toBe('a buffer that went back is not in the ring');
    expect(least.input.length).toBeLessThanOrEqual(32);
  });
});
