import { hex64 } from '@pinhole/base';
import { isU64, readU64, writeU64 } from './bytes.js';
import { FdtError } from './errors.js';
import { RESERVE_ENTRY_SIZE } from './params.js';
import type { FdtReservation } from './types.js';

/**
 * Reads the entries from `start` up to the terminator, which must end by `limit`.
 * [Devicetree v0.4 §5.3.2 "Format"]
 * @throws FdtError `E_FDT_RESERVATION`
 */
export function readReservations(
  blob: Uint8Array,
  start: number,
  limit: number,
): { reservations: FdtReservation[]; end: number } {
  const reservations: FdtReservation[] = [];
  for (let offset = start; ; offset += RESERVE_ENTRY_SIZE) {
    if (offset + RESERVE_ENTRY_SIZE > limit) {
      throw new FdtError('E_FDT_RESERVATION', {
        what: 'memory reservation block',
        offset,
        expected: 'an entry of two zeros to end it',
        found: 'the end of its space',
      });
    }
    const address = readU64(blob, offset);
    const size = readU64(blob, offset + 8);
    if (address === 0n && size === 0n) return { reservations, end: offset + RESERVE_ENTRY_SIZE };
    checkReservation({ address, size }, offset);
    reservations.push({ address, size });
  }
}

/** Writes the entries and the terminator at `offset`. */
export function writeReservations(
  blob: Uint8Array,
  offset: number,
  reservations: FdtReservation[],
): void {
  for (const [index, { address, size }] of reservations.entries()) {
    writeU64(blob, offset + index * RESERVE_ENTRY_SIZE, address);
    writeU64(blob, offset + index * RESERVE_ENTRY_SIZE + 8, size);
  }
}

/**
 * An entry without a size is refused: the specification's terminator has address 0 as well, dtc and
 * libfdt stop at any size of 0, so what follows would be read by some and not by others.
 * @throws FdtError `E_FDT_RESERVATION`
 */
export function checkReservation({ address, size }: FdtReservation, offset?: number): void {
  const fail = (expected: string, found: string): never => {
    const where = offset === undefined ? {} : { offset };
    throw new FdtError('E_FDT_RESERVATION', { what: 'reservation', expected, found, ...where });
  };
  if (!isU64(address) || !isU64(size)) {
    fail('an address and a size of 64 bits', `${address}, ${size}`);
  }
  if (size === 0n) fail('a size that is not 0', `0 at address ${hex64(address)}`);
  if (address + size > 1n << 64n) {
    fail('a region within 64 bits', `${hex64(address)} + ${hex64(size)}`);
  }
}

/**
 * "These given regions shall not overlap each other." [Devicetree v0.4 §5.3.2 "Format"]
 * @throws FdtError `E_FDT_RESERVATION`
 */
export function checkOverlaps(reservations: FdtReservation[]): void {
  const sorted = [...reservations].sort((a, b) => Number(a.address > b.address) || -1);
  let previous: FdtReservation | undefined;
  for (const region of sorted) {
    if (previous && previous.address + previous.size > region.address) {
      throw new FdtError('E_FDT_RESERVATION', {
        what: 'reservations',
        expected: 'regions that do not overlap',
        found: `${show(previous)} and ${show(region)}`,
      });
    }
    previous = region;
  }
}

function show({ address, size }: FdtReservation): string {
  return `${hex64(address)} + ${hex64(size)}`;
}
