import { hex } from '@pinhole/base';
import { latin1 } from './bytes.js';
import { FdtError, type FdtErrorInfo } from './errors.js';
import { MAX_NAME_LENGTH } from './params.js';

/** The strings block of a blob that is read. [Devicetree v0.4 §5.5 "Strings Block"] */
export class StringsBlock {
  private readonly bytes: Uint8Array;
  /** Most properties share a few names. */
  private readonly names = new Map<number, string>();

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  /**
   * The string at `offset`, or, of one that is too long, the beginning; it must end in the block.
   * @throws FdtError `E_FDT_NAME_OFFSET`
   */
  nameAt(offset: number, where: () => Pick<FdtErrorInfo, 'offset' | 'path'>): string {
    const known = this.names.get(offset);
    if (known !== undefined) return known;
    const { bytes } = this;
    const fail = (expected: string, found: string): never => {
      throw new FdtError('E_FDT_NAME_OFFSET', {
        what: 'property name',
        expected,
        found,
        ...where(),
      });
    };
    if (offset >= bytes.length) {
      fail(`an offset within the ${bytes.length} bytes of the strings block`, hex(offset));
    }
    let end = offset;
    while (bytes[end] !== 0) {
      end += 1;
      if (end === bytes.length) fail('a string that ends within the strings block', hex(offset));
      if (end - offset > MAX_NAME_LENGTH) break;
    }
    const name = latin1(bytes.subarray(offset, end));
    this.names.set(offset, name);
    return name;
  }
}

/**
 * The strings block of a blob that is written: a name that is there already, or that another one
 * ends with, takes no space. [dtc v1.6.1 flattree.c stringtable_insert]
 */
export class StringTable {
  /** Each string that ends with a NUL in the block, and where it first does. */
  private readonly suffixes = new Map<string, number>();
  private readonly added: string[] = [];
  private length = 0;

  /** In bytes. */
  get size(): number {
    return this.length;
  }

  /** Where `name` is or will be, in bytes from the start of the block. */
  offsetOf(name: string): number {
    const known = this.suffixes.get(name);
    if (known !== undefined) return known;
    const offset = this.length;
    for (let skip = 0; skip <= name.length; skip += 1) {
      const suffix = name.slice(skip);
      // The first place counts: it is the one that a search from the start finds.
      if (!this.suffixes.has(suffix)) this.suffixes.set(suffix, offset + skip);
    }
    this.added.push(name);
    this.length += name.length + 1;
    return offset;
  }

  /** Writes the block at `offset` of a zeroed blob. */
  writeTo(blob: Uint8Array, offset: number): void {
    let at = offset;
    for (const name of this.added) {
      for (let index = 0; index < name.length; index += 1)
        blob[at + index] = name.charCodeAt(index);
      at += name.length + 1;
    }
  }
}
