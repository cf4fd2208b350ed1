/** Width of the output: the terminal's, COLUMNS, or 160 for pipes and files. */
export function terminalWidth(): number {
  const columns = process.stdout.columns ?? Number.parseInt(process.env.COLUMNS ?? '', 10);
  return Number.isInteger(columns) && columns > 0 ? Math.max(columns, 40) : 160;
}

/** Colour only on a terminal that did not ask for none. [https://no-color.org] */
export function showsColor(): boolean {
  const { NO_COLOR, TERM } = process.env;
  return process.stdout.isTTY === true && (NO_COLOR ?? '') === '' && TERM !== 'dumb';
}

/** One line on stderr that is written over; only on a terminal, only after a second. */
export class Progress {
  readonly #start = Date.now();
  #hasShown = false;

  show(text: string): void {
    if (process.stderr.isTTY !== true || Date.now() - this.#start < 1000) return;
    process.stderr.write(`\r\u001b[2K${text}`);
    this.#hasShown = true;
  }

  clear(): void {
    if (this.#hasShown) process.stderr.write('\r\u001b[2K');
    this.#hasShown = false;
  }
}
