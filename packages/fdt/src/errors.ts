import { hex, ModelError } from '@pinhole/base';

/**
 * What is wrong with a blob, a tree or a property's value.
 *
 * Reading a blob:
 * - `E_FDT_TRUNCATED`: the buffer ends before the header or before `totalsize`.
 * - `E_FDT_MAGIC`: not a device tree blob.
 * - `E_FDT_VERSION`: older than 16, or not compatible with 17.
 * - `E_FDT_LAYOUT`: a block is misaligned, out of bounds, or overlaps another one or the header.
 * - `E_FDT_TOKEN`: a word of the structure block is no token.
 * - `E_FDT_STRUCTURE`: a token where it may not be: a property after a subnode, a second root, an
 *   end too early, something after the end.
 * - `E_FDT_BOUNDS`: a token, a name or a value runs past the end of its block.
 * - `E_FDT_NAME_OFFSET`: a property's name lies outside of the strings block.
 * - `E_FDT_PADDING`: padding that is not zero (`strict` only).
 *
 * Reading and writing:
 * - `E_FDT_RESERVATION`: an entry of the memory reservation block that cannot be.
 * - `E_FDT_NAME`: a node's or property's name is empty, too long, or has an invalid character.
 * - `E_FDT_DUPLICATE`: two properties or two subnodes of one node have the same name.
 * - `E_FDT_DEPTH`: nodes nest deeper than `maxDepth`; a tree that contains itself does.
 *
 * Writing:
 * - `E_FDT_SIZE`: the blob would not fit 31 bits.
 *
 * Values and paths:
 * - `E_FDT_VALUE`: a value is not what it is decoded as, or cannot be encoded.
 * - `E_FDT_PATH`: a path that cannot be one, or that fits more than one node.
 */
export type FdtErrorCode =
  | 'E_FDT_TRUNCATED'
  | 'E_FDT_MAGIC'
  | 'E_FDT_VERSION'
  | 'E_FDT_LAYOUT'
  | 'E_FDT_TOKEN'
  | 'E_FDT_STRUCTURE'
  | 'E_FDT_BOUNDS'
  | 'E_FDT_NAME_OFFSET'
  | 'E_FDT_PADDING'
  | 'E_FDT_RESERVATION'
  | 'E_FDT_NAME'
  | 'E_FDT_DUPLICATE'
  | 'E_FDT_DEPTH'
  | 'E_FDT_SIZE'
  | 'E_FDT_VALUE'
  | 'E_FDT_PATH';

/** What an `FdtError` is made of. */
export interface FdtErrorInfo {
  /** The thing that is wrong: `totalsize`, `property 'reg'`. */
  what: string;
  expected: string;
  found: string;
  /** In bytes from the start of the blob; absent where there is no blob. */
  offset?: number;
  /** The node concerned: `/cpus/cpu@0`; the middle of a very long path is left out. */
  path?: string;
}

/** A blob that cannot be read, a tree that cannot be written, a value that cannot be decoded. */
export class FdtError extends ModelError<FdtErrorCode> {
  override name = 'FdtError';
  /** In bytes from the start of the blob; absent where there is no blob. */
  readonly offset: number | undefined;
  /** The node concerned, where one is. */
  readonly path: string | undefined;

  constructor(code: FdtErrorCode, info: FdtErrorInfo) {
    const { what, expected, found, offset, path } = info;
    const where = [
      ...(offset === undefined ? [] : [`at offset ${hex(offset)}`]),
      ...(path === undefined ? [] : [`in ${path}`]),
    ].join(' ');
    super(code, `${what}${where && ` ${where}`}: expected ${expected}, found ${found}`, {
      details: { ...info },
    });
    this.offset = offset;
    this.path = path;
  }
}
