import { hex } from '@pinhole/base';
import { align4, latin1, readU32 } from './bytes.js';
import { FdtError, type FdtErrorCode } from './errors.js';
import { checkNodeName, checkPropertyName, quote } from './names.js';
import {
  FDT_BEGIN_NODE,
  FDT_END,
  FDT_END_NODE,
  FDT_NOP,
  FDT_PROP,
  MAX_NAME_LENGTH,
} from './params.js';
import { pathOf } from './path.js';
import type { StringsBlock } from './string-table.js';
import type { FdtNode, FdtOptions } from './types.js';

/** A node that has begun and not ended. */
interface OpenNode {
  node: FdtNode;
  propertyNames: Set<string>;
  childNames: Set<string>;
}

/** Reads a structure block. It keeps its own stack: input cannot overflow ours. */
export class StructureReader {
  private readonly blob: Uint8Array;
  private readonly limit: number;
  private readonly strings: StringsBlock;
  private readonly options: Required<FdtOptions>;
  private readonly open: OpenNode[] = [];
  private root: FdtNode | undefined;
  /** Of the next token. */
  private offset: number;

  /** The block begins at `start` and ends by `limit`, both in bytes from the start of `blob`. */
  constructor(
    blob: Uint8Array,
    start: number,
    limit: number,
    strings: StringsBlock,
    options: Required<FdtOptions>,
  ) {
    this.blob = blob;
    this.offset = start;
    this.limit = limit;
    this.strings = strings;
    this.options = options;
  }

  /**
   * Reads up to and including FDT_END. [Devicetree v0.4 §5.4.2 "Tree structure"]
   * @throws FdtError
   */
  read(): { root: FdtNode; end: number } {
    for (;;) {
      const at = this.offset;
      this.need(4, 'a token');
      const token = readU32(this.blob, at);
      this.offset = at + 4;
      switch (token) {
        case FDT_BEGIN_NODE:
          this.beginNode(at);
          break;
        case FDT_END_NODE:
          this.endNode(at);
          break;
        case FDT_PROP:
          this.property(at);
          break;
        case FDT_NOP:
          break;
        case FDT_END:
          return { root: this.end(at), end: this.offset };
        default:
          throw this.error('E_FDT_TOKEN', at, 'token', '1, 2, 3, 4 or 9', hex(token));
      }
    }
  }

  private beginNode(at: number): void {
    if (this.open.length === 0 && this.root !== undefined) {
      throw this.error(
        'E_FDT_STRUCTURE',
        at,
        'FDT_BEGIN_NODE',
        'FDT_END after the root',
        'a second root',
      );
    }
    const name = this.nodeName();
    checkNodeName(name, this.open.length === 0, this.options.strict, () => this.where(at));
    const parent = this.open.at(-1);
    if (parent?.childNames.has(name)) {
      throw this.error('E_FDT_DUPLICATE', at, 'node', 'a name not used before', quote(name));
    }
    if (this.open.length >= this.options.maxDepth) {
      const { maxDepth } = this.options;
      throw this.error(
        'E_FDT_DEPTH',
        at,
        'node',
        `at most ${maxDepth} levels (maxDepth)`,
        'one more',
      );
    }
    const node: FdtNode = { name, properties: [], children: [] };
    if (parent === undefined) {
      this.root = node;
    } else {
      parent.node.children.push(node);
      parent.childNames.add(name);
    }
    this.open.push({ node, propertyNames: new Set(), childNames: new Set() });
  }

  private endNode(at: number): void {
    if (this.open.pop() === undefined) {
      throw this.error('E_FDT_STRUCTURE', at, 'FDT_END_NODE', 'a node to end', 'none begun');
    }
  }

  private property(at: number): void {
    const parent = this.open.at(-1);
    if (parent === undefined) {
      throw this.error('E_FDT_STRUCTURE', at, 'FDT_PROP', 'a node around it', 'none begun');
    }
    if (parent.node.children.length > 0) {
      // "all property definitions for a particular node precede any subnode definitions"
      throw this.error(
        'E_FDT_STRUCTURE',
        at,
        'FDT_PROP',
        'properties before subnodes',
        'one after',
      );
    }
    this.need(8, 'the length and name offset of a property');
    const length = readU32(this.blob, this.offset);
    const name = this.strings.nameAt(readU32(this.blob, this.offset + 4), () => this.where(at));
    checkPropertyName(name, this.options.strict, () => this.where(at));
    if (parent.propertyNames.has(name)) {
      throw this.error('E_FDT_DUPLICATE', at, 'property', 'a name not used before', quote(name));
    }
    this.offset += 8;
    this.need(length, `the ${length} bytes of property ${quote(name)}`);
    const value = this.blob.subarray(this.offset, this.offset + length);
    this.offset += length;
    this.skipPadding();
    parent.node.properties.push({ name, value });
    parent.propertyNames.add(name);
  }

  private end(at: number): FdtNode {
    if (this.root === undefined) {
      throw this.error('E_FDT_STRUCTURE', at, 'FDT_END', 'a root node before it', 'none');
    }
    if (this.open.length > 0) {
      throw this.error(
        'E_FDT_STRUCTURE',
        at,
        'FDT_END',
        'FDT_END_NODE',
        `${this.open.length} open nodes`,
      );
    }
    return this.root;
  }

  /** Reads a NUL-terminated name and its padding; of one that is too long, the beginning. */
  private nodeName(): string {
    const start = this.offset;
    let end = start;
    for (;;) {
      if (end >= this.limit) this.need(end - start + 1, 'the NUL of a node name');
      if (this.blob[end] === 0 || end - start > MAX_NAME_LENGTH) break;
      end += 1;
    }
    this.offset = end + 1;
    if (end - start <= MAX_NAME_LENGTH) this.skipPadding();
    return latin1(this.blob.subarray(start, end));
  }

  /** [Devicetree v0.4 §5.4.1]: "zeroed padding bytes". libfdt leaves old bytes there. */
  private skipPadding(): void {
    const next = align4(this.offset);
    this.need(next - this.offset, 'padding');
    if (this.options.strict) {
      for (let at = this.offset; at < next; at += 1) {
        const byte = this.blob[at]!;
        if (byte !== 0) throw this.error('E_FDT_PADDING', at, 'padding', '0', hex(byte));
      }
    }
    this.offset = next;
  }

  /** `length` more bytes must be in the block. */
  private need(length: number, what: string): void {
    const left = this.limit - this.offset;
    if (length > left) {
      throw this.error(
        'E_FDT_BOUNDS',
        this.offset,
        what,
        `${length} bytes`,
        `${left} left in the block`,
      );
    }
  }

  private where(offset: number): { offset: number; path?: string } {
    if (this.open.length === 0) return { offset };
    return { offset, path: pathOf(this.open.map(({ node }) => node.name)) };
  }

  private error(
    code: FdtErrorCode,
    offset: number,
    what: string,
    expected: string,
    found: string,
  ): FdtError {
    return new FdtError(code, { what, expected, found, ...this.where(offset) });
  }
}
