/**
 * Cuts text that comes in pieces into lines. Of a line that is longer than `max` characters nothing
 * is kept but that it was there: it comes out as `undefined`.
 */
export class LineCutter {
  readonly #max: number;
  #line = '';
  #isTooLong = false;

  constructor(max: number) {
    this.#max = max;
  }

  /** The lines that this piece ends. */
  *push(piece: string): Generator<string | undefined> {
    let start = 0;
    for (;;) {
      const end = piece.indexOf('\n', start);
      this.#add(piece.slice(start, end === -1 ? piece.length : end));
      if (end === -1) return;
      yield this.#take();
      start = end + 1;
    }
  }

  /** The last line, if no line feed ended it. */
  *end(): Generator<string | undefined> {
    if (this.#line !== '' || this.#isTooLong) yield this.#take();
  }

  #add(part: string): void {
    if (this.#line.length + part.length > this.#max) this.#isTooLong = true;
    this.#line = this.#isTooLong ? '' : this.#line + part;
  }

  #take(): string | undefined {
    const line = this.#isTooLong ? undefined : this.#line;
    this.#line = '';
    this.#isTooLong = false;
    return line;
  }
}
