/** The guest's virtio-rng driver on QEMU's virtio-rng. */
import { createRng } from '@pinhole/base';
import { probeVirtioRng } from '@pinhole/guest';
import { createRngBackend, VirtioRng } from '@pinhole/qemu';
import { describe, expect, test } from 'vitest';
import { connect, createBench, RINGS } from './bench.js';

describe.each(RINGS)('%s', (_name, rings) => {
  test('the bytes are those of the backend, in order', () => {
    const bench = createBench(rings);
    const rng = new VirtioRng({ ...bench.device, backend: createRngBackend(createRng(3)) });
    const probed = probeVirtioRng(bench.driver(connect(rng.core)));
    if (!probed.ok) throw new Error(probed.message);
    const found = new Uint8Array(1000);
    for (let at = 0; at < 1000; at += 7) probed.driver.read(found.subarray(at, at + 7));
    const expected = new Uint8Array(1000);
    createRngBackend(createRng(3)).fill(expected);
    expect(Buffer.compare(found, expected)).toBe(0);
  });

  test('a quota that is used up: the driver waits for the next period', () => {
    const bench = createBench(rings);
    const backend = createRngBackend(createRng(3));
    const rng = new VirtioRng({ ...bench.device, backend, maxBytes: 64 });
    let periods = 0;
    const probed = probeVirtioRng(
      bench.driver(connect(rng.core), () => {
        periods += 1;
        rng.startPeriod();
        return periods < 10;
      }),
    );
    if (!probed.ok) throw new Error(probed.message);
    expect(probed.driver.read(new Uint8Array(256))).toBe(256);
    expect(periods).toBe(3);
  });
});
