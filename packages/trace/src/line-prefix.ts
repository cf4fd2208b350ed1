/** What programs that keep logs put before a line. */

import { skipDigits } from './event-line.js';

const SPACE = 0x20;
const COLON = 0x3a;
const DOT = 0x2e;
const MONTHS = 'JanFebMarAprMayJunJulAugSepOctNovDec';

/** The position after the prefix of a line of QEMU's log, or `start` when it has none. */
export function skipQemuPrefix(bytes: Uint8Array, start: number, end: number): number {
  const first = bytes[start]!;
  // Most lines start with the event's name.
  if (first >= 0x61 && first <= 0x7a) return start;
  const at = skipJournal(bytes, start, end);
  const thread = skipThread(bytes, at, end);
  return thread > at ? thread : skipIsoTime(bytes, at, end);
}

/**
 * `thread@seconds.microseconds:`, of `-msg timestamp=on` before 10.1.
 * [qemu v7.2 scripts/tracetool/backend/log.py generate_h]
 */
function skipThread(bytes: Uint8Array, start: number, end: number): number {
  const at = skipDigits(bytes, start, end);
  if (at === start || at === end || bytes[at] !== 0x40 /* @ */) return start;
  const dot = skipDigits(bytes, at + 1, end);
  if (dot === at + 1 || dot === end || bytes[dot] !== DOT) return start;
  const colon = skipDigits(bytes, dot + 1, end);
  const isComplete = colon === dot + 7 && colon < end && bytes[colon] === COLON;
  return isComplete ? colon + 1 : start;
}

/**
 * `2026-11-24T12:00:00.123456Z ` of `-msg timestamp=on`, from 10.1 on; GLib leaves out a fraction of
 * zero. [qemu v10.1 util/log.c qemu_log]
 */
function skipIsoTime(bytes: Uint8Array, start: number, end: number): number {
  let at = skipShape(bytes, start, end, '0000-00-00T00:00:00');
  if (at < 0) return start;
  if (at < end && bytes[at] === DOT) at = skipShape(bytes, at, end, '.000000');
  if (at < 0 || at + 1 >= end || bytes[at] !== 0x5a /* Z */ || bytes[at + 1] !== SPACE) {
    return start;
  }
  return at + 2;
}

/**
 * `Nov 24 12:00:00 host program[123]: ` of syslog and of `journalctl`'s short format. The position
 * after it, or `start` when the line has no such thing.
 */
export function skipJournal(bytes: Uint8Array, start: number, end: number): number {
  if (!isMonth(bytes, start, end)) return start;
  let at = skipShape(bytes, start + 3, end, ' 00 00:00:00');
  // Syslog pads the day with a space.
  if (at < 0) at = skipShape(bytes, start + 3, end, '  0 00:00:00');
  if (at < 0) return start;
  if (at < end && bytes[at] === DOT) at = skipShape(bytes, at, end, '.000000');
  if (at < 0 || at >= end || bytes[at] !== SPACE) return start;
  const host = at + 1;
  const program = skipWord(bytes, host, end) + 1;
  if (program === host + 1 || program >= end) return start;
  const colon = skipWord(bytes, program, end) - 1;
  if (colon <= program || bytes[colon] !== COLON || colon + 1 >= end) return start;
  return colon + 2;
}

function isMonth(bytes: Uint8Array, start: number, end: number): boolean {
  if (start + 3 > end) return false;
  const month = String.fromCharCode(bytes[start]!, bytes[start + 1]!, bytes[start + 2]!);
  return MONTHS.indexOf(month) % 3 === 0;
}

/** The position of the space after a word. */
function skipWord(bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  while (at < end && bytes[at] !== SPACE) at += 1;
  return at;
}

/** The position after text of this shape, where 0 stands for a digit; -1 when it is not there. */
function skipShape(bytes: Uint8Array, start: number, end: number, shape: string): number {
  if (start + shape.length > end) return -1;
  for (let i = 0; i < shape.length; i += 1) {
    const byte = bytes[start + i]!;
    const isDigit = (byte - 0x30) >>> 0 <= 9;
    if (shape[i] === '0' ? !isDigit : byte !== shape.charCodeAt(i)) return -1;
  }
  return start + shape.length;
}
