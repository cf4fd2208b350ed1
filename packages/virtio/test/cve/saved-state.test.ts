/**
 * Published holes of QEMU that takes a machine's state from a file or a peer, met by ours. Each
 * comment names the text that was read; docs/VIRTIO-CVES.md has the table.
 */
import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import { expect, test } from 'vitest';
import {
  negotiateFeatures,
  VIRTIO_CONFIG_S_NEEDS_RESET,
  VIRTIO_ID_BLOCK,
} from '../../src/index.js';
import { DirectDevice } from '../support/direct-transport.js';
import { BUFFERS, createPair, segments } from '../support/pair.js';

type Saved = ReturnType<DirectDevice['save']>;

function device(queues = 2): DirectDevice {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 20 }] });
  return new DirectDevice({
    deviceId: VIRTIO_ID_BLOCK,
    features: 1n << 32n,
    config: new Uint8Array(8),
    memory,
    space: createSystemMemorySpace(memory),
    queues: Array.from({ length: queues }, () => ({ maxSize: 16, handleOutput: () => {} })),
    usesEventFds: false,
  });
}

function saved(): Saved {
  const core = device();
  negotiateFeatures(core, { supported: 1n << 32n });
  core.setupQueue(0, { size: 16, desc: 0x1000n, avail: 0x2000n, used: 0x3000n });
  return core.save();
}

// CVE-2013-4151, record of the CVE list: "The virtio_load function [...] allows remote attackers to
// execute arbitrary code via a crafted savevm image, which triggers an out-of-bounds write."
test('CVE-2013-4151: a state with more queues than the device has is refused', () => {
  const state = saved();
  for (const count of [0, 1, 3, 1000]) {
    const queues = Array.from({ length: count }, () => state.queues[0]!);
    expect(() => device().restore({ ...state, queues })).toThrow(
      expect.objectContaining({ code: 'E_DEVICE_STATE' }),
    );
  }
  const target = device();
  target.restore(state);
  expect(target.save()).toEqual(state);
});

// CVE-2013-6399, record of the CVE list: "Array index error in the virtio_load function".
test.each([
  ['a size of 0', { size: 0 }],
  ['a size beyond all queues', { size: 65_536 }],
  ['a size that is no number', { size: Number.NaN }],
  ['an index beyond 16 bits', { lastAvailIdx: 65_536 }],
  ['a negative index', { usedIdx: -1 }],
  ['indices further apart than the queue is long', { lastAvailIdx: 17, usedIdx: 0 }],
  ['more in flight than was taken', { lastAvailIdx: 2, usedIdx: 0, inUse: 3 }],
  ['fewer than none in flight', { inUse: -1 }],
] as const)('CVE-2013-6399: a state with %s is refused', (_, wrong) => {
  const state = saved();
  const [first, second] = state.queues;
  const queues = [{ ...first!, ring: { ...first!.ring, ...wrong } }, second!];
  expect(() => device().restore({ ...state, queues })).toThrow(
    expect.objectContaining({ code: 'E_QUEUE_STATE' }),
  );
});

// CVE-2014-0182, record of the CVE list: "Heap-based buffer overflow in the virtio_load function [...]
// via a crafted config length in a savevm image."
test('CVE-2014-0182: a state with another length of configuration is refused', () => {
  const state = saved();
  for (const length of [0, 7, 9, 100_000]) {
    const config = new Array<number>(length).fill(0xff);
    expect(() => device().restore({ ...state, config })).toThrow(
      expect.objectContaining({ code: 'E_DEVICE_STATE' }),
    );
  }
});

// CVE-2013-4535, record of the CVE list: "The virtqueue_map_sg function [...] via a crafted savevm
// image, related to virtio-block or virtio-serial read."; Integer Signedness Error.
test('CVE-2013-4535: an element in flight that no queue could have given is refused or needs a reset', () => {
  const pair = createPair();
  pair.driver.add(segments(BUFFERS, [16]), segments(BUFFERS * 2, [512]), 1);
  const good = pair.device.saveElement(pair.device.pop()!);
  for (const wrong of [
    { head: -1 },
    { head: 65_536 },
    { ndescs: 0 },
    { ndescs: 2 },
    { place: 1 },
  ]) {
    expect(() => pair.device.restoreElement({ ...good, ...wrong })).toThrow(
      expect.objectContaining({ code: 'E_QUEUE_STATE' }),
    );
  }
  const out = Array.from({ length: 1025 }, () => ({ address: '0x1000000', length: 1 }));
  expect(() => pair.device.restoreElement({ ...good, out })).toThrow(/at most 1024 segments/);
  expect(pair.core.errors).toEqual([]);
  for (const out of [
    [{ address: '0xffffffffffffffff', length: 16 }],
    [{ address: '0x0', length: 0xffff_ffff }],
  ]) {
    const fresh = createPair();
    fresh.driver.add(segments(BUFFERS, [16]), segments(BUFFERS * 2, [512]), 1);
    fresh.device.pop();
    expect(fresh.device.restoreElement({ ...good, out })).toBeUndefined();
    expect(fresh.core.readStatus() & VIRTIO_CONFIG_S_NEEDS_RESET).not.toBe(0);
  }
});
