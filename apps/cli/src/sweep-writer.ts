import { closeSync, existsSync, ftruncateSync } from 'node:fs';
import {
  checkSameSweep,
  readSweepFile,
  type SweepHeader,
  type SweepRow,
  sweepChecksum,
  sweepHeaderLine,
  sweepRowLine,
} from '@pinhole/machine';
import { openToWrite, readWhole, writeAll } from './files.js';
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
  readonly #path: string;
  readonly #isStream: boolean;
  readonly #checksum: string;

  constructor(header: SweepHeader, { format, output }: SweepTarget) {
    this.#isStream = format === 'ndjson' && output === undefined;
    this.#known = new Map();
    this.#path = output ?? '';
    this.#checksum = sweepChecksum(header);
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
      writeAll(this.#fd, sweepHeaderLine(header), output);
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
    const line = sweepRowLine(row, this.#checksum);
    if (this.#isStream) process.stdout.write(line);
    else if (this.#fd !== undefined) writeAll(this.#fd, line, this.#path);
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
  }
}
