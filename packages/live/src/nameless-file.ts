import { randomBytes } from 'node:crypto';
import { closeSync, constants, openSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LiveError } from './errors.js';

/** Linux's flag for a file without a name, as on x86, Arm, RISC-V, POWER and S/390; not in Node. */
const O_TMPFILE = 0o20_000_000 | constants.O_DIRECTORY;

/**
 * Opens a new file for reading and writing that no folder lists: nothing can be left behind, however
 * this process ends. Others get it as an inherited descriptor, or as `/proc/self/fd/N`.
 * @param where - `memory`: not on a disk, where the system has such a place.
 * @throws LiveError `E_HOST` where no temporary file can be made.
 */
export function openNameless(where: 'memory' | 'disk', flags = 0): number {
  let cause: unknown;
  for (const folder of where === 'memory' ? ['/dev/shm', tmpdir()] : [tmpdir(), '/dev/shm']) {
    for (const open of [openTmpfile, openUnlinked]) {
      try {
        return open(folder, flags);
      } catch (error) {
        cause = error;
      }
    }
  }
  throw new LiveError('E_HOST', 'expected to be able to make a temporary file, and cannot', {
    cause,
  });
}

function openTmpfile(folder: string, flags: number): number {
  return openSync(folder, constants.O_RDWR | O_TMPFILE | flags, 0o600);
}

/** For file systems without nameless files: a name, for as short as can be. */
export function openUnlinked(folder: string, flags: number): number {
  const path = join(folder, `pinhole-${randomBytes(8).toString('hex')}`);
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | flags, 0o600);
  unlinkSync(path);
  return fd;
}

/** Closes descriptors; one that is closed already is not an error. */
export function closeAll(fds: readonly number[]): void {
  for (const fd of fds) {
    try {
      closeSync(fd);
    } catch {}
  }
}
