/**
 * Published holes of device sides (QEMU, Linux vhost, monitors built on rust-vmm), met by our
 * device's half of a queue: what the driver of the advisory does, and what comes of it here. Each
 * comment names the text that was read; docs/VIRTIO-CVES.md has the table.
 */
import { DmaStatus, type Translation } from '@pinhole/memory';
import { expect, test } from 'vitest';
import {
  createSpaceMapper,
  type DeviceQueue,
  featureBits,
  VIRTIO_CONFIG_S_NEEDS_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_ID_BLOCK,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  type VirtqueueElement,
} from '../../src/index.js';
import { DirectDevice } from '../support/direct-transport.js';
import { BUFFERS, createPair, type Pair } from '../support/pair.js';
import { bytesAt, type Desc, faced, offer, writeDescs } from './support.js';

const NEXT = VIRTQ_DESC_F_NEXT;
const WRITE = VIRTQ_DESC_F_WRITE;
const INDIRECT = VIRTQ_DESC_F_INDIRECT;
const TABLE = BUFFERS - 0x10_0000;

/** The device took nothing, says what is wrong, and waits for its reset. */
function expectNeedsReset(pair: Pair, message: string): void {
  expect(pair.core.errors).toEqual([message]);
  expect(pair.core.readStatus() & VIRTIO_CONFIG_S_NEEDS_RESET).not.toBe(0);
  expect(pair.device.inUse).toBe(0);
}

// CVE-2011-2212, record of the CVE list: "Buffer overflow in the virtio subsystem in qemu-kvm [...]
// via a crafted indirect descriptor related to 'virtqueue in and out requests.'"
test.each([
  ['readable', 0],
  ['writable', WRITE],
])(
  'CVE-2011-2212: an indirect table of more %s buffers than fit an element needs a reset',
  (_, flag) => {
    const pair = faced([[TABLE, 16 * 2000, INDIRECT]]);
    writeDescs(
      pair,
      TABLE,
      Array.from(
        { length: 2000 },
        (_x, i): Desc => [BUFFERS, 1, flag | (i < 1999 ? NEXT : 0), i + 1],
      ),
    );
    expect(pair.device.pop()).toBeUndefined();
    expectNeedsReset(pair, 'virtio: too many write descriptors in indirect table');
  },
);

// CVE-2011-2512, record of the CVE list: "does not properly validate the virtqueue number [...] via
// a negative number in the Queue Notify field of the Virtio Header, which bypasses a signed comparison."
test('CVE-2011-2512: a kick of a queue with a negative or too large number is nobody’s', () => {
  const kicked: string[] = [];
  const pair = createPair({ handleOutput: (queue) => kicked.push(queue.id) });
  for (const index of [-1, -0x8000, 1, 0xffff, 0x800_00000, 0xffff_ffff, Number.NaN]) {
    pair.core.notifyQueue(index);
    pair.core.setupQueue(index, { size: 8, desc: 0x1000n, avail: 0x2000n, used: 0x3000n });
    expect(pair.core.queueMaxSize(index)).toBe(0);
  }
  expect([kicked, pair.core.errors]).toEqual([[], []]);
});

// CVE-2013-0311, oss-security 2013-02-20: "If a single descriptor crosses a region, the second chunk
// length should be decremented by size translated so far, instead it includes the full descriptor length."
test('CVE-2013-0311: the pieces of a buffer across regions are as long as the buffer, no more', () => {
  const pair = createPair({ isBehindIommu: true });
  pair.driver.add([], [{ gpa: BUFFERS + 100, length: 3 * 4096 }], 1);
  const bus = [...pair.dma.live.keys()][0]!;
  // The pages lie apart, the last at the very end of memory.
  pair.iommu.set(bus + 4096, BUFFERS + 0x10_0000, 3);
  pair.iommu.set(bus + 8192, 2 ** 26 - 4096, 3);
  const element = pair.device.pop()!;
  expect(element.inNum).toBe(4);
  expect([...element.length.subarray(0, 4)]).toEqual([4096 - 100, 4096, 4096, 100]);
  expect(element.inBytes).toBe(3 * 4096);
});

// CVE-2014-0055, record of the CVE list: "The get_rx_bufs function in drivers/vhost/net.c [...] does
// not properly handle vhost_get_vq_desc errors, which allows guest OS users to cause a denial of service".
test('CVE-2014-0055: after a buffer that cannot be taken the device stops; no error passes for a buffer', () => {
  const taken: VirtqueueElement[] = [];
  const pair = createPair({
    handleOutput(queue) {
      for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
        taken.push(element);
      }
    },
  });
  const good: Desc = [BUFFERS, 1526, WRITE];
  writeDescs(pair, pair.driver.ringGpa, [good, [BUFFERS, 16, NEXT, 99], good]);
  for (const head of [0, 1, 2]) offer(pair, head);
  pair.core.notifyQueue(0);
  expect(taken.map(({ head }) => head)).toEqual([0]);
  expect(pair.core.errors).toEqual(['Desc next is 99']);
  pair.core.notifyQueue(0);
  expect(taken.length).toBe(1);
});

// CVE-2016-5403, oss-security (P J P): "a malicious guest user could submit more requests than the
// virtqueue size permits, without waiting for their completion. This requires reusing vring
// descriptors in more than one request [...] unbounded memory allocation controlled by the guest."
test('CVE-2016-5403: more requests than the queue has entries need a reset', () => {
  const pair = createPair({ size: 8 });
  writeDescs(pair, pair.driver.ringGpa, [[BUFFERS, 16, 0]]);
  let taken = 0;
  for (let i = 0; i < 1000; i += 1) {
    offer(pair, 0);
    if (pair.device.pop() !== undefined) taken += 1;
  }
  expect([taken, pair.device.inUse]).toEqual([8, 8]);
  expect(pair.core.errors).toEqual(['Virtqueue size exceeded']);
});

// CVE-2016-6490, oss-security 2016-07-28: "an infinite loop issue. It could occur if the guest was
// to set the I/O descriptor buffer length to be zero."
test.each([
  ['alone', [[BUFFERS, 0, 0]]],
  [
    'after others',
    [
      [BUFFERS, 16, NEXT, 1],
      [BUFFERS, 0, WRITE],
    ],
  ],
  ['where nothing is', [[2n ** 64n - 1n, 0, WRITE]]],
] as const)(
  'CVE-2016-6490: a buffer of length 0 ends the walk and needs a reset: %s',
  (_, ring) => {
    const pair = faced(ring);
    expect(pair.device.pop()).toBeUndefined();
    expectNeedsReset(pair, 'virtio: zero sized buffers are not allowed');
  },
);

// CVE-2016-7422, record of the CVE list: "The virtqueue_map_desc function [...] (NULL pointer
// dereference and QEMU process crash) via a large I/O descriptor buffer length value."
test('CVE-2016-7422: a buffer larger than memory cannot be mapped and needs a reset', () => {
  for (const [addr, flags] of [
    [BUFFERS, WRITE],
    [BUFFERS, 0],
    [2n ** 64n - 16n, WRITE],
    [2 ** 26 - 1, 0],
  ] as const) {
    const pair = faced([[addr, 0xffff_ffff, flags]]);
    expect(pair.device.pop()).toBeUndefined();
    expectNeedsReset(pair, 'virtio: bogus descriptor or out of resources');
  }
});

// CVE-2017-17381, record of the CVE list: "divide-by-zero error and QEMU process crash [...] by
// unsetting vring alignment while updating Virtio rings."
test('CVE-2017-17381: rings without size or place do not reach a division', () => {
  const popped: unknown[] = [];
  const handleOutput = (queue: DeviceQueue): void => {
    popped.push(queue.pop(), queue.isEmpty(), queue.shouldNotify());
    queue.setNotification(true);
  };
  const pair = createPair({ handleOutput });
  for (const setup of [
    { size: 0, desc: 0n, avail: 0n, used: 0n },
    { size: 0, desc: 0x1000n, avail: 0n, used: 0n },
    { size: 0, desc: 0x1000n, avail: 0x2000n, used: 0n },
  ]) {
    pair.core.setupQueue(0, setup);
    expect(pair.device.size).toBe(8);
    pair.core.notifyQueue(0);
    expect(pair.device.availBytes(100, 100)).toEqual({ inBytes: 0, outBytes: 0 });
  }
  expect(popped.filter((value) => typeof value === 'object')).toEqual([]);
  expect(pair.core.errors).toEqual([]);
});

// CVE-2019-3900, commit "vhost_net: fix possible infinite loop" (e2412c07f8f3, as it went to the
// stable trees): "theoretical TOCTOU attack if guest moving avail index back and forth".
test('CVE-2019-3900: a driver that adds while the device takes gets a queue full of work for a kick', () => {
  let taken = 0;
  const pair = createPair({
    isBehindIommu: true,
    hasEventIdx: false,
    handleOutput(queue) {
      while (queue.pop() !== undefined) taken += 1;
    },
  });
  pair.iommu.set(0x800_0000, BUFFERS, 3);
  writeDescs(pair, pair.driver.ringGpa, [[0x800_0000, 16, 0]]);
  // Each access of the device finds one more buffer.
  let isMoving = false;
  pair.iommu.onTranslate = () => {
    if (isMoving) return;
    isMoving = true;
    offer(pair, 0);
    isMoving = false;
  };
  pair.core.notifyQueue(0);
  expect([taken, pair.device.inUse]).toEqual([8, 8]);
  expect(pair.core.isBroken).toBe(true);
});

// CVE-2019-14835, commit 060423bfdee3 "vhost: make sure log_num < in_num" (as it went to 3.16): "if a
// malicious guest creates a vring desc with desc.len = 0, it may cause the host kernel to crash by
// overflowing the log array."
test('CVE-2019-14835: a table of writable buffers of length 0 adds nothing to the element', () => {
  const seen: number[] = [];
  const pair = faced([[TABLE, 16 * 1000, INDIRECT]]);
  writeDescs(pair, TABLE, [
    [BUFFERS, 16, WRITE | NEXT, 1],
    ...Array.from({ length: 999 }, (_, i): Desc => [BUFFERS, 0, WRITE | NEXT, i + 2]),
  ]);
  const element = pair.device.pop();
  if (element !== undefined) seen.push(element.inNum);
  expect(seen).toEqual([]);
  expectNeedsReset(pair, 'virtio: zero sized buffers are not allowed');
});

/** A device whose mapper counts what is mapped now. */
function counted(): { pair: Pair; queue: DeviceQueue; core: DirectDevice; live(): number } {
  const pair = createPair();
  const inner = createSpaceMapper(pair.space);
  let live = 0;
  const core = new DirectDevice({
    deviceId: VIRTIO_ID_BLOCK,
    features: featureBits(VIRTIO_F_VERSION_1),
    memory: pair.memory,
    space: pair.space,
    mapper: {
      map(hi, lo, length, isWritable, out): boolean {
        const isMapped = inner.map(hi, lo, length, isWritable, out);
        if (isMapped) live += 1;
        return isMapped;
      },
      unmap(): void {
        live -= 1;
      },
    },
    queues: [{ maxSize: 8, handleOutput: () => {} }],
  });
  core.setupQueue(0, pair.driver.setup);
  return { pair, core, queue: core.queues[0]!, live: () => live };
}

// CVE-2022-26353, commit abe300d9d894 "virtio-net: fix map leaking on error during receive" (qemu-devel
// 2022-03-10): "it forgot to unmap the cached elements on error which will lead to leaking of mapping".
test('CVE-2022-26353: whatever ends a buffer ends its mappings: return, giving up, a bad chain', () => {
  const { pair, queue, core, live } = counted();
  const chain = (last: Desc): Desc[] => [
    [BUFFERS, 16, NEXT, 1],
    [BUFFERS, 512, WRITE | NEXT, 2],
    last,
  ];
  writeDescs(pair, pair.driver.ringGpa, chain([BUFFERS + 4096, 1, WRITE]));
  offer(pair, 0);
  queue.push(queue.pop()!, 513);
  expect(live()).toBe(0);
  offer(pair, 0);
  queue.detach(queue.pop()!);
  expect([live(), queue.inUse]).toEqual([0, 0]);
  offer(pair, 0);
  queue.unpop(queue.pop()!);
  expect([live(), queue.inUse]).toEqual([0, 0]);
  // The third descriptor is bad: the two before it were mapped already.
  writeDescs(pair, pair.driver.ringGpa, chain([2n ** 40n, 1, WRITE]));
  expect(queue.pop()).toBeUndefined();
  expect(core.errors).toEqual(['virtio: bogus descriptor or out of resources']);
  expect([live(), queue.inUse]).toEqual([0, 0]);
});

// CVE-2021-3748, record of the CVE list: "when the descriptor's address belongs to the non direct
// access region, due to num_buffers being set after the virtqueue elem has been unmapped".
test('CVE-2021-3748: a buffer is unmapped once, when it goes back, and not before', () => {
  const { pair, queue, live } = counted();
  writeDescs(pair, pair.driver.ringGpa, [
    [BUFFERS, 64, WRITE],
    [BUFFERS + 4096, 64, WRITE],
  ]);
  offer(pair, 0);
  offer(pair, 1);
  const [first, second] = [queue.pop()!, queue.pop()!];
  expect(live()).toBe(2);
  // A packet over two buffers: its header, in the first, is written last.
  queue.fill(second, 64, 1);
  expect(live()).toBe(1);
  queue.fill(first, 64, 0);
  expect(live()).toBe(0);
  queue.flush(2);
  expect(queue.inUse).toBe(0);
});

// CVE-2023-41051 (vm-memory, GHSA-49hh-fprx-m68g), record of the CVE list: "out-of-bounds memory access
// if the VolatileMemory::get_slice function returns a VolatileSlice whose length is less than the
// function's count argument".
test('CVE-2023-41051: of a translation that grants less than was asked, no more is used', () => {
  const pair = createPair({ isBehindIommu: true });
  pair.driver.add([], [{ gpa: BUFFERS, length: 64 }], 1);
  const bus = [...pair.dma.live.keys()][0]!;
  const granted: number[] = [];
  const { translate } = pair.iommu;
  pair.iommu.translate = function limited(hi, lo, length, access, out: Translation): DmaStatus {
    const status = translate.call(this, hi, lo, length, access, out);
    if (status !== DmaStatus.OK || lo < bus || lo >= bus + 64) return status;
    // Five bytes at a time, and each piece somewhere else.
    out.length = Math.min(out.length, 5);
    out.gpa += granted.length * 0x1000;
    granted.push(out.length);
    return status;
  };
  const element = pair.device.pop()!;
  expect(element.inBytes).toBe(64);
  expect(Math.max(...element.length.subarray(0, element.inNum))).toBe(5);
});

// CVE-2026-5747 (Firecracker), record of the CVE list: "via modification of virtio queue configuration
// registers after device activation"; "process panic via divide-by-zero" (CWE-369), CWE-787.
test.each([0, 3, 1000, 1025, 65_535, 2 ** 31])(
  'CVE-2026-5747: a size of %i for a queue at work moves no write out of its used ring',
  (size) => {
    const pair = createPair({ size: 8 });
    writeDescs(pair, pair.driver.ringGpa, [[BUFFERS, 16, WRITE]]);
    for (let i = 0; i < 8; i += 1) offer(pair, 0);
    const elements = Array.from({ length: 8 }, () => pair.device.pop()!);
    const used = Number(pair.driver.setup.used);
    pair.core.setupQueue(0, { ...pair.driver.setup, size });
    const end = used + 6 + 8 * pair.device.size;
    const before = [bytesAt(pair, used - 4096, 4096), bytesAt(pair, end, 65_536)];
    for (const element of elements) pair.device.push(element, 16);
    expect([bytesAt(pair, used - 4096, 4096), bytesAt(pair, end, 65_536)]).toEqual(before);
    expect(pair.device.size).toBe(size > 0 && size <= 1024 ? size : 8);
    expect(pair.device.usedIdx).toBe(8);
  },
);
