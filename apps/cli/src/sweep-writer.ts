import { closeSync, existsSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import {
  checkSameSweep,
  readSweepFile,
  type SweepHeader,
  type SweepRow,
  sweepHeaderLine,
  sweepRowLine,
} from '@pinhole/machine';
import { InputError } from './exit.js';
import { readWhole, reasonOf } from './files.js';
import type { SweepFormat } from './sweep-output.js';

/** Where rows go as they come. */
export interface SweepTarget {
  readonly format: SweepFormat;
  readonly output?: string;
}

/** NDJSON as it comes, to standard output or a file that may have rows already; else nothing. */
export class SweepWriter {
  readonly #known: ReadonlyMap<number, { readonly row: SweepRow }>;
  readonly #fd: number | undefined;
  readonly #isStream: boolean;

  constructor(header: SweepHeader, { format, output }: SweepTarget) {
    this.#isStream = format === 'ndjson' && output === undefined;
    this.#known = new Map();
    if (format !== 'ndjson') return;
    if (output === undefined) {
      process.stdout.write(sweepHeaderLine(header));
      return;
    }
    const isThere = existsSync(output);
    const text = isThere ? readWhole(output, 'a file of this sweep, or none') : '';
    // A file that was begun and not one line of it written.
    if (text === '' || (!text.includes('\n') && sweepHeaderLine(header).startsWith(text))) {
      this.#fd = openToWrite(output, 'w');
      writeSync(this.#fd, sweepHeaderLine(header));
      return;
    }
    const file = readSweepFile(text, output);
    checkSameSweep(header, file.header, output);
    this.#known = file.rows;
    this.#fd = openToWrite(output, 'r+');
    const whole = Buffer.byteLength(text.slice(0, file.wholeLength));
    ftruncateSync(this.#fd, whole);
    closeSync(this.#fd);
    this.#fd = openToWrite(output, 'a');
    process.stderr.write(`${output}: has ${file.rows.size} points already, and is gone on with\n`);
  }

  /** The row of a point that was there before. */
  known(index: number): SweepRow | undefined {
    return this.#known.get(index)?.row;
  }

  add(row: SweepRow): void {
    if (this.#isStream) process.stdout.write(sweepRowLine(row));
    else if (this.#fd !== undefined) writeSync(this.#fd, sweepRowLine(row));
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
  }
}

function openToWrite(path: string, flags: string): number {
  try {
    return openSync(path, flags);
  } catch (error) {
    throw new InputError(`${path}: cannot be written: it ${reasonOf(error)}`, error);
  }
}
