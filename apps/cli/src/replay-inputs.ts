import { closeSync, createReadStream, readSync } from 'node:fs';
import { createGunzip } from 'node:zlib';
import { detectFormat, type LogFormat } from '@pinhole/trace';
import { InputError, interrupt } from './exit.js';
import { openToRead } from './files.js';
import type { Progress } from './terminal.js';

const CHUNK = 2 ** 18;
/** Enough to tell what a file is. */
const HEAD = 2 ** 16;

/** A file of a recorded run, plain or gzipped, that can be read more than once. */
export class InputFile {
  readonly path: string;
  /** Why it ended early, if it did. */
  cutShort: string | undefined;
  readonly #isGzip: boolean;

  /** @throws InputError when it cannot be opened; `what` says what was expected. */
  constructor(path: string, what: string) {
    this.path = path;
    const fd = openToRead(path, `${what}, plain or gzipped`);
    const magic = new Uint8Array(2);
    this.#isGzip = readSync(fd, magic, 0, 2, 0) === 2 && magic[0] === 0x1f && magic[1] === 0x8b;
    closeSync(fd);
  }

  /** What it looks like, from its first bytes. */
  async format(): Promise<LogFormat> {
    const parts: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of this.chunks()) {
      parts.push(chunk);
      size += chunk.length;
      if (size >= HEAD) break;
    }
    return detectFormat(Buffer.concat(parts));
  }

  /** The bytes, unpacked. Damage ends it early and is kept in `cutShort`. */
  async *chunks(progress?: Progress): AsyncGenerator<Uint8Array> {
    const file = createReadStream(this.path, { highWaterMark: CHUNK });
    const source = this.#isGzip ? file.pipe(createGunzip({ chunkSize: CHUNK })) : file;
    file.on('error', (error) => source.destroy(error));
    let bytes = 0;
    try {
      for await (const chunk of source) {
        if (interrupt.isRequested) {
          this.cutShort = 'interrupted';
          return;
        }
        bytes += (chunk as Uint8Array).length;
        progress?.show(`${this.path}: ${(bytes / 2 ** 20).toFixed(0)} MiB read`);
        yield chunk as Uint8Array;
      }
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'Z_BUF_ERROR') this.cutShort = 'the gzip file is cut short';
      else if (code?.startsWith('Z_') === true) {
        this.cutShort = `the gzip file is damaged (${code})`;
      } else throw error;
    } finally {
      file.destroy();
    }
  }
}

const NAMES: Readonly<Record<LogFormat, string>> = {
  'qemu-log': "a log of QEMU's trace events",
  ftrace: "an ftrace file of a guest's kernel",
  'trace-cmd': 'what trace-cmd report prints',
  console: 'a console or some other text',
  binary: 'binary data',
  empty: 'nothing',
};
const OPTIONS: Readonly<Partial<Record<LogFormat, string>>> = {
  'qemu-log': '--qemu-trace',
  ftrace: '--guest-trace',
  'trace-cmd': '--guest-trace',
  console: '--console',
};

/** Checks that a file is what its option wants. @throws InputError that says what it is instead. */
export async function checkFormat(
  file: InputFile,
  option: string,
  expected: readonly LogFormat[],
): Promise<LogFormat> {
  const found = await file.format();
  if (expected.includes(found)) return found;
  const wanted = expected.map((format) => NAMES[format]).join(' or ');
  const belongs = OPTIONS[found];
  const hint = belongs === undefined || belongs === option ? '' : `: give it as ${belongs}`;
  const cut = file.cutShort === undefined ? '' : ` (${file.cutShort})`;
  throw new InputError(
    `${option} ${file.path}: expected ${wanted}, found ${NAMES[found]}${hint}${cut}`,
  );
}
