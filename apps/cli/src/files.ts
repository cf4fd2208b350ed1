import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import type { DiskSource } from '@pinhole/machine';
import { checkDiskSize } from '@pinhole/qemu';
import { InputError } from './exit.js';

/**
 * Opens a raw disk image, only for reading.
 * @throws InputError when it is missing, a directory, or not a whole number of sectors.
 */
export function openImage(path: string): { name: string; disk: DiskSource; close(): void } {
  const fd = openToRead(path, 'a raw disk image');
  const { size } = fstatSync(fd);
  checkDiskSize(size, path);
  return {
    name: basename(path),
    disk: {
      size,
      read(offset, into) {
        for (let done = 0; done < into.length; ) {
          const count = readSync(fd, into, done, into.length - done, offset + done);
          if (count === 0) throw new InputError(`${path}: became shorter while it was read`);
          done += count;
        }
      },
    },
    close: () => closeSync(fd),
  };
}

/** Opens a regular file; `what` says what was expected there. @throws InputError */
export function openToRead(path: string, what: string): number {
  let fd: number;
  try {
    // A named pipe would otherwise wait for its other end.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw new InputError(`${path}: expected ${what}, but it ${reasonOf(error)}`, error);
  }
  const stat = fstatSync(fd);
  if (stat.isFile()) return fd;
  closeSync(fd);
  const found = stat.isDirectory() ? 'a directory' : 'no regular file';
  throw new InputError(`${path}: expected ${what}, found ${found}`);
}

/** No text that is read whole is longer. Bytes. */
const MAX_TEXT = 2 ** 28;

/** Reads a whole text; `what` says what was expected there. @throws InputError */
export function readWhole(path: string, what: string): string {
  const fd = openToRead(path, what);
  try {
    const { size } = fstatSync(fd);
    if (size > MAX_TEXT) {
      throw new InputError(`${path}: expected at most ${MAX_TEXT} bytes, found ${size}`);
    }
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}

/** Checks, before anything else happens, that a file could be written. @throws InputError */
export function checkWritable(path: string): void {
  const folder = dirname(path);
  if (!existsSync(folder) || !statSync(folder).isDirectory()) {
    throw new InputError(
      `${path}: expected a file in a folder that exists, found no folder ${folder}`,
    );
  }
  if (existsSync(path) && !statSync(path).isFile()) {
    throw new InputError(`${path}: expected a file to write, found something else`);
  }
}

/** Writes a whole file. @throws InputError */
export function writeWhole(path: string, data: string | Uint8Array): void {
  try {
    writeFileSync(path, data);
  } catch (error) {
    throw new InputError(`${path}: cannot be written: it ${reasonOf(error)}`, error);
  }
}

/** Opens a file to write. @throws InputError */
export function openToWrite(path: string, flags: string): number {
  try {
    return openSync(path, flags);
  } catch (error) {
    throw new InputError(`${path}: cannot be written: it ${reasonOf(error)}`, error);
  }
}

/**
 * Writes all of a text.
 * @throws InputError where there is no room; a part may have been written. Its `cause` has the code.
 */
export function writeAll(fd: number, text: string, path: string): void {
  const bytes = Buffer.from(text);
  for (let done = 0; done < bytes.length; ) {
    try {
      done += writeSync(fd, bytes, done);
    } catch (error) {
      // A pipe that is full for now.
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') sleep(10);
      else throw new InputError(`${path}: cannot be written: it ${reasonOf(error)}`, error);
    }
  }
}

function sleep(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

/** What the system says, for people. */
function reasonOf(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  const known: Readonly<Record<string, string>> = {
    ENOENT: 'does not exist',
    EACCES: 'may not be accessed (permission denied)',
    EPERM: 'may not be accessed (permission denied)',
    ENOTDIR: 'lies in something that is not a folder',
    ENOSPC: 'does not fit: the disk is full',
    EISDIR: 'is a directory',
  };
  return known[code] ?? `cannot be opened (${code || String(error)})`;
}
