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

// Before 5.0 there was no packed ring: vring_transport_features had no case for it.
test.each([
  ['linux-4.18', false, false],
  ['rfc-2018', false, false],
  ['always-flag', false, false],
  ['linux-5.10', true, false],
  ['linux-6.1', true, true],
])('%s offered a packed ring and RING_RESET takes what it knows', (policy, packed, reset) => {
  const { report } = runCell(`${policy}/x86-64/no-flag/normal/qemu/packed`, { disk });
  const names = report?.negotiated?.names ?? [];
  expect(names).toContain('VIRTIO_F_VERSION_1');
  expect(names.includes('VIRTIO_F_RING_PACKED')).toBe(packed);
  expect(names.includes('VIRTIO_F_RING_RESET')).toBe(reset);
});
