/** Random channel programs for a virtio device, good and bad ones. */
import type { Rng } from '@pinhole/base';
import type { GuestMemory } from '@pinhole/memory';
import { Ccw } from '@pinhole/virtio';
import { MEMORY_SIZE, type ProgramCommand, USER } from './s390x-machine.js';

/** Where payloads lie: a slot for each command of a program. */
export const PAYLOADS: number = USER;
export const PAYLOADS_SIZE = 0x800;
const SLOT = 0x200;
/** Commands of a program, at most. */
const LENGTH = 3;
/** Rings lie anywhere in memory that stays zero: kicked or not, there is nothing to do. */
const RINGS = USER + 0x10_0000;

/** What the campaign may ask, so that QEMU's known shortfalls stay out of it. */
export interface Limits {
  /** The revision in force; -1: none. */
  readonly revision: number;
  /** A device that takes revision 0, and for revision 0 whatever comes before one. */
  readonly isTransitional: boolean;
}

const CODES = Object.values(Ccw);
/** Commands of every channel device, and TRANSFER IN CHANNEL: the model has none of them. */
const BASIC: readonly number[] = [0x03, 0x04, 0x08, 0xe4];

/** Makes a program and writes its payloads into both memories. */
export function randomProgram(
  rng: Rng,
  limits: Limits,
  memories: readonly GuestMemory[],
): ProgramCommand[] {
  const program: ProgramCommand[] = [];
  let { revision } = limits;
  for (let i = 0; i < LENGTH; i += 1) {
    const code = pickCode(rng, { ...limits, revision });
    const payload = payloadOf(rng, code, limits);
    const at = PAYLOADS + i * SLOT + rng.below(8);
    for (const memory of memories) memory.write(at, payload);
    const address = pickAddress(rng, code, at);
    const count = pickCount(rng, payload.length);
    const isChained = rng.below(3) === 0 && i < LENGTH - 1;
    // Behind a short one QEMU writes what it last read or wrote, whatever the device has by now.
    if (code === Ccw.WRITE_CONF) {
      program.push({
        code: Ccw.READ_CONF,
        address: PAYLOADS + LENGTH * SLOT,
        count: 1,
        isChained: true,
      });
    }
    program.push({ code, address, count, suppressesLength: rng.below(3) === 0, isChained });
    if (!isChained) break;
    // It may have been set by this command: then it is one of those that are.
    if (code === Ccw.SET_VIRTIO_REV && revision < 0) revision = payload[1] ?? 0;
  }
  return program;
}

function pickCode(rng: Rng, { revision, isTransitional }: Limits): number {
  if (revision < 0 && (isTransitional || rng.below(2) === 0)) return Ccw.SET_VIRTIO_REV;
  if (rng.below(12) === 0) {
    const code = rng.below(256);
    if (!BASIC.includes(code) && !(CODES as number[]).includes(code)) return code;
  }
  const code = CODES[rng.below(CODES.length)] ?? Ccw.READ_CONF;
  return code === Ccw.READ_STATUS && revision === 1 ? Ccw.WRITE_STATUS : code;
}

/** As long as the command has it, with contents that mean something most of the time. */
function payloadOf(rng: Rng, code: number, { isTransitional }: Limits): Uint8Array {
  const u16 = (value: number): number[] => [(value >> 8) & 0xff, value & 0xff];
  const u64 = (value: number): number[] => [0, 0, 0, 0, ...u16(value >>> 16), ...u16(value)];
  const ring = (): number => RINGS + rng.below(0x10_0000);
  const index = (): number => [1, 2, 1023, 1024, rng.below(65_536)][rng.below(10)] ?? 0;
  const indicator = (): number =>
    [0, USER + 0x2000 + rng.below(64)][rng.below(3) === 0 ? 0 : 1] ?? 0;
  const some = (length: number): number[] => Array.from({ length }, () => rng.below(256));
  switch (code) {
    case Ccw.SET_VIRTIO_REV: {
      const known = [1, 2, 2, 2, 3, 0x100][rng.below(6)] ?? 2;
      return Uint8Array.from([...u16(rng.below(6) === 0 && !isTransitional ? 0 : known), 0, 0]);
    }
    case Ccw.WRITE_FEAT:
      // VERSION_1 and ACCESS_PLATFORM are the first two bits of the second half.
      if (rng.below(2) === 0) return Uint8Array.of(rng.below(4), 0, 0, 0, 1);
      return Uint8Array.from([...some(4), rng.below(3)]);
    case Ccw.READ_FEAT:
      return Uint8Array.from([...some(4), rng.below(3)]);
    case Ccw.READ_STATUS:
      return Uint8Array.from(some(1));
    case Ccw.WRITE_STATUS:
      return Uint8Array.of([0, 1, 3, 11, 15, rng.below(128)][rng.below(6)] ?? 0);
    case Ccw.READ_VQ_CONF:
      return Uint8Array.from([...u16(index()), ...some(2)]);
    case Ccw.SET_VQ: {
      const size = [0, 1, 3, 16, 64, 256, 257, 1024, 1025, rng.below(65_536)][rng.below(10)] ?? 0;
      const desc = rng.below(8) === 0 ? 0 : ring();
      const block = [...u64(desc), ...some(4), ...u16(index()), ...u16(size)];
      return Uint8Array.from([...block, ...u64(ring()), ...u64(ring())]);
    }
    case Ccw.SET_IND:
    case Ccw.SET_CONF_IND:
      return Uint8Array.from(u64(indicator()));
    case Ccw.SET_IND_ADAPTER:
      return Uint8Array.from([...u64(indicator()), ...u64(indicator()), ...u64(rng.below(99)), 3]);
    default:
      return Uint8Array.from(some(rng.below(70)));
  }
}

function pickAddress(rng: Rng, code: number, at: number): number {
  // QEMU stores the status without a look at whether there is memory.
  const bad = [0, MEMORY_SIZE - 1, MEMORY_SIZE, 0x7fff_fff0];
  if (rng.below(10) > 0 || code === Ccw.READ_STATUS) return at;
  return bad[rng.below(bad.length)] ?? 0;
}

function pickCount(rng: Rng, right: number): number {
  if (rng.below(3) > 0) return right;
  return [0, 1, right - 1, right + 1, right + 7, SLOT, 65_535][rng.below(7)] ?? right;
}
