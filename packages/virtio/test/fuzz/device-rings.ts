import type { QueueSetup } from '../../src/transport/transport.js';
import type { CheckedMemory } from './checked-memory.js';
import type { RingSpace } from './checked-space.js';
import { MEMORY_SIZE } from './program.js';

const SIZES = [8, 1, 2, 4, 16, 64, 3, 5, 13, 32, 7, 256, 9, 100, 1024, 32_768];

/** The queue size that a byte stands for. */
export function sizeOf(byte: number): number {
  // The largest ones are slow, and seldom.
  return SIZES[byte < 240 ? byte % 12 : byte & 15] ?? 8;
}

/** The byte for a queue size. */
export function byteOfSize(size: number): number {
  const index = Math.max(SIZES.indexOf(size), 0);
  return index < 12 ? index : 240 + index;
}

const FAR = 2n ** 60n;
const TOP = 2n ** 64n;

/**
 * Where a driver, more or less in its right mind, puts the parts of a queue of this size: `where` 0 is
 * sane.
 */
export function placeRings(size: number, where: number): QueueSetup {
  const isSmall = size <= 64;
  const desc = isSmall ? 0x3000n : 0x10_0000n;
  const avail = isSmall ? 0x5000n : 0x1d_0000n;
  const used = isSmall ? 0x6000n : 0x18_0000n;
  switch (where & 31) {
    case 1:
      return { size, desc: desc + 0xff8n, avail: avail + 0xffen, used: used + 0xffcn };
    case 2:
      return { size, desc: 0n, avail, used };
    case 3:
      return { size, desc, avail: 0n, used };
    case 4:
      return { size, desc, avail, used: 0n };
    case 5:
      return { size, desc: FAR, avail, used };
    case 6:
      return { size, desc, avail: FAR, used };
    case 7:
      return { size, desc, avail, used: FAR };
    case 8:
      return { size, desc: BigInt(MEMORY_SIZE) - 16n, avail, used };
    case 9:
      return { size, desc, avail: BigInt(MEMORY_SIZE) - 4n, used };
    case 10:
      return { size, desc, avail, used: BigInt(MEMORY_SIZE) - 4n };
    case 11:
      return { size, desc, avail: desc, used };
    case 12:
      return { size, desc, avail, used: desc };
    case 13:
      return { size, desc, avail, used: avail };
    case 14:
      return { size, desc: TOP - 16n, avail, used };
    case 15:
      return { size, desc, avail: TOP - 8n, used: TOP - 8n };
    case 16:
      return { size, desc, avail: 0x6_0000n, used };
    case 17:
      return { size, desc: 0x8000n, avail: 0x8400n, used: 0x8800n };
    case 18:
      return { size, desc: desc + 1n, avail: avail + 1n, used: used + 1n };
    case 19:
      // The end of the bus addresses that are looked up.
      return { size, desc, avail, used: 0x40_0000n - 8n };
    case 20:
      return { size, desc, avail: 0x30_0000n, used: 0x30_1000n };
    default:
      return { size, desc, avail, used };
  }
}

/** Tells the space what the parts are. */
export function noteRings(
  space: RingSpace,
  setup: QueueSetup,
  isPacked: boolean,
  hasEventIdx: boolean,
): void {
  const { size } = setup;
  const [desc, avail, used] = space.areas;
  const event = hasEventIdx ? 2 : 0;
  desc.start = Number(setup.desc);
  desc.end = desc.start + 16 * size;
  desc.access = isPacked ? 3 : 1;
  avail.start = Number(setup.avail);
  avail.end = avail.start + (isPacked ? 4 : 4 + 2 * size + event);
  avail.access = 1;
  used.start = Number(setup.used);
  used.end = used.start + (isPacked ? 4 : 4 + 8 * size + event);
  used.access = 3;
}

/** What a hostile driver writes at once. */
export function putDescriptor(
  memory: CheckedMemory,
  at: number,
  address: { hi: number; lo: number },
  length: number,
  third: number,
  fourth: number,
): void {
  memory.put64(at, address.hi, address.lo);
  memory.put32(at + 8, length);
  memory.put16(at + 12, third);
  memory.put16(at + 14, fourth);
}
