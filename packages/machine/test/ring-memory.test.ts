/** The memory of a split ring, against what Linux allocated for one of 256 entries. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { SMP_CACHE_BYTES } from '@pinhole/guest';
import { findRecording, type RecordingName } from '@pinhole/recordings';
import { expect, test } from 'vitest';
import type { Architecture } from '../src/architecture.js';
import { architectures } from '../src/architectures/index.js';
import { createSeededDisk } from '../src/disk.js';
import { parseScenario, runScenario } from '../src/index.js';

/** What the guest asks for at once for the rings of a virtio-blk device. */
function modelled(machine: object): number[] {
  const sizes: number[] = [];
  const watched = architectures.map((architecture): Architecture => {
    return {
      ...architecture,
      build(options) {
        const platform = architecture.build(options);
        const { ops } = platform.dma;
        const { allocCoherent } = ops;
        ops.allocCoherent = (length, out) => {
          sizes.push(length);
          return allocCoherent.call(ops, length, out);
        };
        return platform;
      },
    };
  });
  const text = JSON.stringify({
    machine: { memory: '1GiB', ...machine },
    devices: [{ type: 'virtio-blk', iommuPlatform: true }],
    workload: [{ read: { offset: 0, length: 4096, block: 4096 } }],
  });
  const known = { architectures: watched };
  const disk = createSeededDisk(1, 2 ** 16);
  expect(runScenario(parseScenario(text, known), { ...known, disk }).data.completed).toBe(1);
  return sizes;
}

function recorded(name: RecordingName, pattern: RegExp): number[] {
  const log = gunzipSync(readFileSync(findRecording(name).files.guestTrace));
  return [...log.toString('utf8').matchAll(pattern)].map(([, size]) => Number(size));
}

const ALLOC = / dma_alloc: .* size=(\d+) /g;

test.each<[RecordingName, object]>([
  ['linux6.12-pinhole', { arch: 'pseries', ddw: false }],
  ['linux6.12-ddw', { arch: 'pseries' }],
  ['linux6.12-x86-plain', { arch: 'x86-64' }],
  ['linux6.12-x86-intel-iommu', { arch: 'x86-64', iommu: 'intel-iommu' }],
])('%s: as many bytes as Linux asked for', (name, machine) => {
  expect(modelled(machine)).toEqual(recorded(name, ALLOC));
});

test('channel devices align it to 4 KiB: 4096 + 518 bytes, then 2054 from 8192 on', () => {
  expect(modelled({ arch: 's390x' })).toEqual([8192 + 2054]);
});

test('linux6.12-pinhole-rng: the rng is asked for a cache line', () => {
  const sizes = recorded('linux6.12-pinhole-rng', / dma_map_page: 0000:00:01.0 .* size=(\d+) /g);
  expect(new Set(sizes)).toEqual(new Set([SMP_CACHE_BYTES.ppc64]));
});
