import { isControl, latin1, utf8, utf8Bytes } from './bytes.js';
import type { ConsoleFact } from './console-facts.js';
import { CONSOLE_PATTERNS, type FactBody } from './console-patterns.js';
import { skipJournal } from './line-prefix.js';
import { LineSplitter } from './lines.js';

const RETURN = 0x0d;
const ESCAPE = 0x1b;
const BELL = 0x07;
const US_PER_SECOND = 1_000_000;

/** What a console reader is given. */
export interface ConsoleReaderOptions {
  onFact(fact: ConsoleFact): void;
  /** The longest line that is read, in bytes; longer ones are skipped. Default 16384. */
  readonly maxLineBytes?: number;
}

/** What was read in all. */
export interface ConsoleSummary {
  readonly lines: number;
  readonly facts: number;
  /** Lines that were too long, or that the end of the input cut. */
  readonly skipped: number;
}

/** A streaming reader: memory does not grow with the input, and no input makes it throw. */
export interface ConsoleReader {
  push(chunk: Uint8Array): void;
  /** Says that nothing more comes. */
  end(): ConsoleSummary;
}

/**
 * Finds what a guest's console says about its DMA: kernel, windows, failures, features. The text may
 * come from a serial console, `dmesg` (also `-T`, `-r`, `-x`), or `journalctl -k`; terminal codes,
 * carriage returns and noise between the lines do not matter. Anything else is passed over.
 *
 * A program in the guest can print whatever it likes: the facts are what the console says, no more.
 */
export function createConsoleReader(options: ConsoleReaderOptions): ConsoleReader {
  let facts = 0;
  let skipped = 0;
  /** The bridge that the firmware lists, until Linux boots. */
  let firmwareBuid: bigint | undefined;
  let pageSize = 0;
  const cleaner = new TextCleaner();

  function found(body: FactBody, line: number, t: number | undefined): void {
    if (body.kind === 'kernel') {
      firmwareBuid = undefined;
      pageSize = 0;
    } else if (body.kind === 'page-size') {
      // Every hash table says it.
      if (body.bytes === pageSize) return;
      pageSize = body.bytes;
    } else if (body.kind === 'host-bridge') {
      firmwareBuid = body.buid;
    }
    facts += 1;
    const hasBuid =
      body.kind === 'pci-device' && body.source === 'firmware' && firmwareBuid !== undefined;
    options.onFact({
      ...body,
      ...(hasBuid ? { buid: firmwareBuid } : {}),
      line,
      ...(t === undefined ? {} : { t }),
    } as ConsoleFact);
  }

  function text(bytes: Uint8Array, start: number, end: number, line: number): void {
    const raw = cleaner.clean(bytes, skipJournal(bytes, start, end), end);
    if (!WORDS.test(raw) && !isBits(raw)) return;
    const { message, t } = splitPrefix(raw);
    for (const { word: needed, regex, toFact } of CONSOLE_PATTERNS) {
      if (!message.includes(needed)) continue;
      const groups = regex.exec(message)?.groups;
      const body = groups === undefined ? undefined : toFact(groups as Record<string, string>);
      if (body !== undefined) {
        found(body, line, t);
        return;
      }
    }
  }

  /** A carriage return starts a line of the terminal over: what stood before it is a text too. */
  function line(bytes: Uint8Array, start: number, end: number, number: number): void {
    let at = start;
    while (at < end) {
      const next = bytes.indexOf(RETURN, at);
      const stop = next < 0 || next > end ? end : next;
      if (stop > at) text(bytes, at, stop, number);
      at = stop + 1;
    }
  }

  function skip(): void {
    skipped += 1;
  }

  const splitter = new LineSplitter({ line, tooLong: skip, cut: skip }, options.maxLineBytes);
  return {
    push: (chunk) => splitter.push(chunk),
    end() {
      splitter.end();
      return { lines: splitter.lines, facts, skipped };
    },
  };
}

/** Reads a whole console that is already in memory. For large ones use `createConsoleReader`. */
export function readConsole(text: string): ConsoleFact[] {
  const facts: ConsoleFact[] = [];
  const reader = createConsoleReader({ onFact: (fact) => facts.push(fact) });
  reader.push(utf8Bytes(text));
  reader.end();
  return facts;
}

/** One of the words that a line with a fact has: most lines are done after this. */
const WORDS = new RegExp(
  CONSOLE_PATTERNS.map(({ word }) => word)
    .filter((word) => word.length > 1)
    .map((word) => word.replaceAll(/[().[\]]/g, '\\$&'))
    .join('|'),
);

/** Whether a text ends as a line of features does. */
function isBits(text: string): boolean {
  return text.length >= 64 && /^[01]{64}$/.test(text.slice(-64));
}

/** printk's time; another writer's text may stand before it on the line. */
const PRINTK_TIME = /\[ *(\d{1,9})\.(\d{6})\](?:\[ *[TC]\d+\])? /;
/** `dmesg -T`, `dmesg --time-format iso`, `journalctl -o short-iso`, and the level of `dmesg -r`. */
const OTHER_PREFIX =
  /^(?:<\d{1,3}>|\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\] |\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d) (?:\S+ kernel: )?)/;

function splitPrefix(text: string): { message: string; t: number | undefined } {
  const match = PRINTK_TIME.exec(text);
  if (match === null) return { message: text.replace(OTHER_PREFIX, ''), t: undefined };
  const t = Number(match[1]) * US_PER_SECOND + Number(match[2]);
  return { message: text.slice(match.index + match[0].length), t };
}

/** Takes the terminal's codes out of a text. */
class TextCleaner {
  #kept = new Uint8Array(1024);

  clean(bytes: Uint8Array, start: number, end: number): string {
    let at = start;
    let isAscii = true;
    while (at < end && !isControl(bytes[at]!)) {
      isAscii &&= bytes[at]! < 0x80;
      at += 1;
    }
    if (at === end) return isAscii ? latin1(bytes, start, end) : utf8(bytes, start, end);
    if (this.#kept.length < end - start) this.#kept = new Uint8Array(end - start);
    const kept = this.#kept;
    let size = 0;
    for (at = start; at < end; at += 1) {
      const byte = bytes[at]!;
      if (byte === ESCAPE) {
        at = skipEscape(bytes, at, end) - 1;
      } else if (!isControl(byte)) {
        kept[size] = byte;
        size += 1;
      }
    }
    return utf8(kept, 0, size);
  }
}

/** The position after an escape sequence. [ECMA-48 5th ed. §5.4 "Control sequences"] */
function skipEscape(bytes: Uint8Array, start: number, end: number): number {
  const kind = bytes[start + 1];
  let at = start + 2;
  if (kind === 0x5b /* [ */) {
    while (at < end && bytes[at]! >= 0x20 && bytes[at]! < 0x40) at += 1;
    return at < end && bytes[at]! >= 0x40 && bytes[at]! < 0x7f ? at + 1 : at;
  }
  if (kind === 0x5d /* ] */) {
    // A title, up to BEL or the next escape.
    while (at < end && bytes[at] !== BELL && bytes[at] !== ESCAPE) at += 1;
    return at < end && bytes[at] === BELL ? at + 1 : at;
  }
  return Math.min(at, end);
}
