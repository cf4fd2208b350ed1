import type { FdtNode } from './types.js';
import { encodeCells, encodeStrings, encodeU64s } from './values.js';

/**
 * What a property's value can be given as: a string, a list of strings, a cell, a list of cells, a
 * 64-bit number, raw bytes, or `true` for one that is empty.
 */
export type FdtValue = string | string[] | number | number[] | bigint | Uint8Array | true;

/**
 * A node, in the order given:
 * `createNode('memory@0', { device_type: 'memory', reg: [0, 0, 0, 0x8000_0000] })`.
 *
 * An empty list is an empty value. Names are checked when the tree is written. JavaScript moves names
 * that are whole numbers (`'0'`) to the front of an object: where that matters, fill `properties`.
 * @throws FdtError `E_FDT_VALUE` for a value that does not fit its kind
 */
export function createNode(
  name: string,
  properties: Readonly<Record<string, FdtValue>> = {},
  children: FdtNode[] = [],
): FdtNode {
  return {
    name,
    properties: Object.entries(properties).map(([name, value]) => ({ name, value: encode(value) })),
    children,
  };
}

function encode(value: FdtValue): Uint8Array {
  if (value === true) return new Uint8Array();
  if (value instanceof Uint8Array) return value;
  if (typeof value === 'string') return encodeStrings([value]);
  if (typeof value === 'number') return encodeCells([value]);
  if (typeof value === 'bigint') return encodeU64s([value]);
  return isStrings(value) ? encodeStrings(value) : encodeCells(value);
}

function isStrings(list: string[] | number[]): list is string[] {
  return typeof list[0] === 'string';
}
