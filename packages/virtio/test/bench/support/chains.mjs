// The work that is measured: a queue of 256, chains of 16 B and 4 KiB to read and 1 B to write.
import { NO_TRACE } from '@pinhole/base';
import { createGuestMemory } from '@pinhole/memory';
import {
  createDeviceQueue,
  createDriverQueue,
  featureBit,
  splitRingLayout,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_USED,
  VIRTQ_DESC_F_WRITE,
} from '@pinhole/virtio';

const SIZE = 256;
const PIECES = 3;
/** As many chains as find room in the ring; the packed ring is as long as they are. */
const CHAINS = Math.floor(SIZE / PIECES);
const PACKED_SIZE = CHAINS * PIECES;
/** Times around, each time that something runs. */
const LAPS = 50;
const RING = 0x10_0000;
const TABLES = 0x12_0000;
const BUFFERS = 0x100_0000;
const MEMORY_SIZE = 2 ** 26;
export const LAYOUT = splitRingLayout(SIZE, 128);

const bufferAt = (chain) => BUFFERS + 0x2000 * chain;
const pieces = (chain) => [
  [bufferAt(chain), 16, 0],
  [bufferAt(chain) + 0x1000, 4096, 0],
  [bufferAt(chain) + 16, 1, VIRTQ_DESC_F_WRITE],
];

function newMemory() {
  const memory = createGuestMemory({ regions: [{ base: 0, size: MEMORY_SIZE }] });
  memory.fill(BUFFERS, 0x2000 * CHAINS, 1);
  return memory;
}

/** What of memory the bench itself writes, as one piece. */
function viewOf(memory, gpa) {
  const window = { view: new DataView(new ArrayBuffer(0)), offset: 0, from: 0, to: 0 };
  memory.writeU8(gpa, 0);
  if (!memory.window(gpa, 0x2000, window)) throw new Error('the ring is not in one piece');
  return new DataView(window.view.buffer, window.offset, 0x2000);
}

const owner = {
  isBroken: false,
  tracer: NO_TRACE,
  fail(message) {
    throw new Error(message);
  },
};

function deviceQueue(memory, space, isPacked, setup) {
  const options = { owner, id: 'q', maxSize: SIZE, memory, space };
  const queue = createDeviceQueue(isPacked, options);
  queue.setFeatures(featureBit(VIRTIO_RING_F_EVENT_IDX));
  queue.configure(setup);
  return queue;
}

/** Fills descriptor table and available ring of a split ring at `view`, which shows `RING`. */
export function writeSplitRing(view, tables) {
  const write = (into, at, [addr, length, flags], next, more) => {
    into.setBigUint64(at, BigInt(addr), true);
    into.setUint32(at + 8, length, true);
    into.setUint16(at + 12, more ? flags | VIRTQ_DESC_F_NEXT : flags, true);
    into.setUint16(at + 14, next, true);
  };
  for (let chain = 0; chain < CHAINS; chain += 1) {
    const first = tables === undefined ? PIECES * chain : 0;
    const at = tables === undefined ? 16 * first : 48 * chain;
    pieces(chain).forEach((piece, n) => {
      write(tables ?? view, at + 16 * n, piece, first + n + 1, n < PIECES - 1);
    });
    if (tables === undefined) continue;
    write(view, 16 * chain, [TABLES + at, 16 * PIECES, VIRTQ_DESC_F_INDIRECT], 0, false);
  }
  for (let i = 0; i < SIZE; i += 1) {
    const chain = i % CHAINS;
    const head = tables === undefined ? PIECES * chain : chain;
    view.setUint16(LAYOUT.avail + 4 + 2 * i, head, true);
  }
}

/** Where `writeSplitRing` wants it. */
export const RING_AT = RING;
export { CHAINS, LAPS, SIZE };

/** The device's half of a split ring: pop, walk, push. `hasIo`: header read and status written, too. */
export function splitDevice(makeSpace, { hasIo = false, hasTables = false } = {}) {
  const memory = newMemory();
  const view = viewOf(memory, RING);
  writeSplitRing(view, hasTables ? viewOf(memory, TABLES) : undefined);
  const setup = {
    size: SIZE,
    desc: BigInt(RING),
    avail: BigInt(RING + LAYOUT.avail),
    used: BigInt(RING + LAYOUT.used),
  };
  const queue = deviceQueue(memory, makeSpace(memory), false, setup);
  let idx = 0;
  const offer = () => {
    idx = (idx + CHAINS) & 0xffff;
    view.setUint16(LAYOUT.avail + 2, idx, true);
  };
  return () => serve(queue, offer, hasIo ? memory : undefined);
}

/** The same of a packed ring. */
export function packedDevice(makeSpace) {
  const memory = newMemory();
  const view = viewOf(memory, RING);
  const setup = {
    size: PACKED_SIZE,
    desc: BigInt(RING),
    avail: BigInt(RING + 0x1800),
    used: BigInt(RING + 0x1900),
  };
  const queue = deviceQueue(memory, makeSpace(memory), true, setup);
  for (let chain = 0; chain < CHAINS; chain += 1) {
    pieces(chain).forEach(([addr], n) => {
      view.setBigUint64(48 * chain + 16 * n, BigInt(addr), true);
      view.setUint16(48 * chain + 16 * n + 12, PIECES * chain, true);
    });
  }
  let lap = 0;
  const offer = () => {
    const available = lap % 2 === 0 ? VIRTQ_DESC_F_AVAIL : VIRTQ_DESC_F_USED;
    lap += 1;
    for (let at = 0; at < 48 * CHAINS; at += 48) {
      view.setUint32(at + 8, 16, true);
      view.setUint16(at + 14, available | VIRTQ_DESC_F_NEXT, true);
      view.setUint32(at + 24, 4096, true);
      view.setUint16(at + 30, available | VIRTQ_DESC_F_NEXT, true);
      view.setUint32(at + 40, 1, true);
      view.setUint16(at + 46, available | VIRTQ_DESC_F_WRITE, true);
    }
  };
  return () => serve(queue, offer, undefined);
}

function serve(queue, offer, memory) {
  let bytes = 0;
  for (let lap = 0; lap < LAPS; lap += 1) {
    offer();
    for (;;) {
      const element = queue.pop();
      if (element === undefined) break;
      const count = element.outNum + element.inNum;
      for (let i = 0; i < count; i += 1) bytes += element.length[i];
      if (memory !== undefined) {
        const header = element.gpa[0];
        bytes += memory.readU32Le(header) + memory.readU32Le(header + 8);
        bytes += memory.readU32Le(header + 12);
        memory.writeU8(element.gpa[count - 1], 0);
      }
      queue.push(element, 1);
    }
    queue.shouldNotify();
  }
  if (bytes < 4113 * CHAINS * LAPS) throw new Error('the chains were not walked');
  return CHAINS * LAPS;
}

/** The driver's half: add, and get back what the device returns, which is done here in a few lines. */
export function driverQueue(isPacked) {
  const memory = newMemory();
  let at = RING;
  const dma = {
    name: 'none (physical)',
    maxMappingSize: Number.MAX_SAFE_INTEGER,
    map(gpa, _length, _direction, out) {
      out.hi = 0;
      out.lo = gpa;
      return true;
    },
    unmap() {},
    allocCoherent(_length, out) {
      const gpa = at;
      at += 0x2000;
      out.hi = 0;
      out.lo = gpa;
      return gpa;
    },
    freeCoherent() {},
  };
  const queue = createDriverQueue({
    memory,
    dma,
    tables: { allocate: () => undefined, free() {} },
    size: isPacked ? PACKED_SIZE : SIZE,
    layoutAlign: 128,
    hasIndirect: false,
    hasEventIdx: true,
    isPacked,
  });
  const view = viewOf(memory, RING);
  const buffers = Array.from({ length: CHAINS }, (_, chain) =>
    pieces(chain).map(([gpa, length]) => ({ gpa, length })),
  );
  const out = buffers.map((buffer) => buffer.slice(0, 2));
  const inn = buffers.map((buffer) => buffer.slice(2));
  let usedIdx = 0;
  const useSplit = () => {
    for (let i = 0; i < CHAINS; i += 1, usedIdx += 1) {
      const slot = usedIdx % SIZE;
      const head = view.getUint16(LAYOUT.avail + 4 + 2 * slot, true);
      view.setUint32(LAYOUT.used + 4 + 8 * slot, head, true);
      view.setUint32(LAYOUT.used + 8 + 8 * slot, 1, true);
    }
    usedIdx &= 0xffff;
    view.setUint16(LAYOUT.used + 2, usedIdx, true);
  };
  let lap = 0;
  const usePacked = () => {
    const used = lap % 2 === 0 ? VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED : 0;
    lap += 1;
    for (let i = 0; i < CHAINS; i += 1) view.setUint16(48 * i + 14, used, true);
  };
  const use = isPacked ? usePacked : useSplit;
  return () => {
    let back = 0;
    for (let i = 0; i < LAPS; i += 1) {
      for (let chain = 0; chain < CHAINS; chain += 1) queue.add(out[chain], inn[chain], chain);
      queue.kickPrepare();
      use();
      while (queue.getUsed() !== undefined) back += 1;
      queue.enableCallbacks();
    }
    if (back !== CHAINS * LAPS) throw new Error('buffers are missing');
    return back;
  };
}
