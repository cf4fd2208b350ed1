import { QemuError } from '../../errors.js';

/** Sectors are 512 bytes, whatever the disk. [VIRTIO v1.2 §5.2.6 "Device Operation"] */
export const SECTOR_SIZE = 512;

/**
 * What a disk stores. Synchronous. Offsets and lengths in bytes, inside the disk; a backend that
 * cannot read or write throws, and the device reports an I/O error to the guest.
 */
export interface BlockBackend {
  /** Bytes; a multiple of 512. */
  readonly size: number;
  /** Nothing can be written: QEMU's `read-only=on`. Default false. */
  readonly isReadOnly?: boolean;
  read(offset: number, into: Uint8Array): void;
  write(offset: number, from: Uint8Array): void;
  flush(): void;
  /** The range's contents do not matter any more. Absent: QEMU's `discard=ignore`. */
  discard?(offset: number, length: number): void;
  /** Makes the range read as zeros; it need not stay allocated if `mayUnmap`. Absent: `write`. */
  writeZeroes?(offset: number, length: number, mayUnmap: boolean): void;
}

/**
 * A disk in memory; `bytes` is the disk itself, not a copy.
 * @throws QemuError `E_BACKEND` when the length is not a multiple of 512.
 */
export function createMemoryBackend(bytes: Uint8Array): BlockBackend {
  checkDiskSize(bytes.length, 'memory backend');
  return {
    size: bytes.length,
    read: (offset, into) => into.set(bytes.subarray(offset, offset + into.length)),
    write: (offset, from) => bytes.set(from, offset),
    flush: () => {},
    writeZeroes: (offset, length) => bytes.fill(0, offset, offset + length),
  };
}

/**
 * @param what - names the disk in the message.
 * @throws QemuError `E_BACKEND` when `size` is not a positive multiple of 512.
 */
export function checkDiskSize(size: number, what: string): void {
  if (size > 0 && size % SECTOR_SIZE === 0) return;
  throw new QemuError(
    'E_BACKEND',
    `${what}: expected a raw disk image of a positive multiple of ${SECTOR_SIZE} bytes, found ${size} bytes`,
    { details: { size } },
  );
}
