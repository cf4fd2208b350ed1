import { TraceError } from './errors.js';

const NEWLINE = 0x0a;
const RETURN = 0x0d;
/** Longer than any line that QEMU or ftrace prints. */
const DEFAULT_MAX_LINE_BYTES = 16_384;

/** What a splitter tells. The bytes are only valid during the call. */
export interface LineHandler {
  line(bytes: Uint8Array, start: number, end: number, number: number): void;
  /** A line longer than the limit; the bytes are its start. */
  tooLong(bytes: Uint8Array, start: number, end: number, number: number): void;
  /** The input ended inside this line. Even if it reads well, its last number may be cut. */
  cut(bytes: Uint8Array, start: number, end: number, number: number): void;
}

/** Cuts chunks into lines: any chunking gives the same lines, in memory bounded by the limit. */
export class LineSplitter {
  readonly #handler: LineHandler;
  readonly #limit: number;
  /** The start of a line whose end has not come yet; never more than the limit. */
  #held: Uint8Array = new Uint8Array(0);
  #heldBytes = 0;
  /** Bytes of the unfinished line, kept or not. */
  #pending = 0;
  #lines = 0;

  /** @throws TraceError `E_TRACE_OPTION` when the limit is not a positive integer. */
  constructor(handler: LineHandler, maxLineBytes: number = DEFAULT_MAX_LINE_BYTES) {
    if (!Number.isSafeInteger(maxLineBytes) || maxLineBytes < 1) {
      throw new TraceError(
        'E_TRACE_OPTION',
        `maxLineBytes: expected a positive integer, found ${maxLineBytes}`,
      );
    }
    this.#handler = handler;
    this.#limit = maxLineBytes;
  }

  /** Lines begun so far. */
  get lines(): number {
    return this.#lines + (this.#pending > 0 ? 1 : 0);
  }

  push(chunk: Uint8Array): void {
    let start = 0;
    let newline = chunk.indexOf(NEWLINE);
    while (newline >= 0) {
      this.#lines += 1;
      if (this.#pending > 0) this.#finishHeld(chunk, start, newline);
      else this.#deliver(chunk, start, newline, newline - start);
      start = newline + 1;
      newline = chunk.indexOf(NEWLINE, start);
    }
    this.#hold(chunk, start, chunk.length);
  }

  end(): void {
    if (this.#pending === 0) return;
    this.#lines += 1;
    this.#handler.cut(this.#held, 0, this.#heldBytes, this.#lines);
    this.#release();
  }

  #finishHeld(chunk: Uint8Array, start: number, end: number): void {
    this.#hold(chunk, start, end);
    const length = this.#pending;
    const bytes = this.#heldBytes;
    this.#release();
    this.#deliver(this.#held, 0, bytes, length);
  }

  #deliver(bytes: Uint8Array, start: number, end: number, length: number): void {
    if (length > this.#limit) {
      this.#handler.tooLong(bytes, start, Math.min(end, start + this.#limit), this.#lines);
    } else {
      const text = end > start && bytes[end - 1] === RETURN ? end - 1 : end;
      this.#handler.line(bytes, start, text, this.#lines);
    }
  }

  #hold(chunk: Uint8Array, start: number, end: number): void {
    this.#pending += end - start;
    const kept = Math.min(end - start, this.#limit - this.#heldBytes);
    if (kept <= 0) return;
    const size = this.#heldBytes + kept;
    if (size > this.#held.length) {
      const grown = new Uint8Array(Math.min(this.#limit, Math.max(size, 2 * this.#held.length)));
      grown.set(this.#held.subarray(0, this.#heldBytes));
      this.#held = grown;
    }
    this.#held.set(chunk.subarray(start, start + kept), this.#heldBytes);
    this.#heldBytes = size;
  }

  #release(): void {
    this.#pending = 0;
    this.#heldBytes = 0;
  }
}
