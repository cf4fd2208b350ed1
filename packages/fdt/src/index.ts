export type { FdtErrorCode, FdtErrorInfo } from './errors.js';
export { FdtError } from './errors.js';
export type { FdtHeader } from './header.js';
export { parseFdtHeader } from './header.js';
export type { FdtValue } from './node.js';
export { createNode } from './node.js';
export { FDT_MAGIC, FDT_MAX_DEPTH } from './params.js';
export { parseFdt } from './parse.js';
export { findNode, findProperty } from './path.js';
export type { Fdt, FdtNode, FdtOptions, FdtProperty, FdtReservation } from './types.js';
export {
  decodeCells,
  decodeString,
  decodeStrings,
  decodeU32,
  decodeU64,
  encodeCells,
  encodeStrings,
  encodeU64s,
} from './values.js';
export { writeFdt } from './write.js';
