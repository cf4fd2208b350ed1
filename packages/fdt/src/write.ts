import { align4, isU32, writeU32 } from './bytes.js';
import { FdtError } from './errors.js';
import { writeHeader } from './header.js';
import { checkNodeName, checkPropertyName, quote } from './names.js';
import {
  FDT_BEGIN_NODE,
  FDT_END,
  FDT_END_NODE,
  FDT_LAST_COMP_VERSION,
  FDT_MAX_DEPTH,
  FDT_PROP,
  FDT_VERSION,
  MAX_TOTAL_SIZE,
  RESERVE_ENTRY_SIZE,
  V17_HEADER_SIZE,
} from './params.js';
import { pathOf } from './path.js';
import { checkOverlaps, checkReservation, writeReservations } from './reservations.js';
import { StringTable } from './string-table.js';
import type { Fdt, FdtNode, FdtOptions } from './types.js';

/**
 * Writes a blob of version 17, compatible with 16, byte for byte as dtc does: header, memory
 * reservations, structure, strings, nothing between or behind them.
 * [Devicetree v0.4 §5] [dtc v1.6.1 flattree.c dt_to_blob]
 *
 * What is written is what `parseFdt` with the same options reads back.
 * @throws FdtError for a tree that cannot be written: a name, two of one, too deep, too large
 */
export function writeFdt(fdt: Fdt, options: FdtOptions = {}): Uint8Array {
  const { maxDepth = FDT_MAX_DEPTH, strict = false } = options;
  const { root, reservations, bootCpuid } = fdt;
  if (!isU32(bootCpuid)) {
    const found = String(bootCpuid);
    throw new FdtError('E_FDT_VALUE', {
      what: 'bootCpuid',
      expected: 'an unsigned 32-bit integer',
      found,
    });
  }
  for (const reservation of reservations) checkReservation(reservation);
  if (strict) checkOverlaps(reservations);

  const strings = new StringTable();
  const offMemRsvmap = V17_HEADER_SIZE;
  const offDtStruct = offMemRsvmap + (reservations.length + 1) * RESERVE_ENTRY_SIZE;
  const sizeDtStruct = measure(root, strings, { maxDepth, strict });
  const offDtStrings = offDtStruct + sizeDtStruct;
  const totalsize = offDtStrings + strings.size;
  checkSize(totalsize);

  const blob = new Uint8Array(totalsize);
  writeHeader(blob, {
    totalsize,
    offDtStruct,
    offDtStrings,
    offMemRsvmap,
    version: FDT_VERSION,
    lastCompVersion: FDT_LAST_COMP_VERSION,
    bootCpuidPhys: bootCpuid,
    sizeDtStrings: strings.size,
    sizeDtStruct,
  });
  writeReservations(blob, offMemRsvmap, reservations);
  writeStructure(blob, offDtStruct, root, strings);
  strings.writeTo(blob, offDtStrings);
  return blob;
}

/** Calls `enter` before a node's children and `leave` after them; keeps its own stack. */
function walk(root: FdtNode, enter: (open: FdtNode[]) => void, leave: () => void): void {
  const open = [root];
  const next = [0];
  enter(open);
  while (open.length > 0) {
    const child = open.at(-1)!.children[next[open.length - 1]!];
    if (child === undefined) {
      leave();
      open.pop();
      next.pop();
    } else {
      next[open.length - 1]! += 1;
      open.push(child);
      next.push(0);
      enter(open);
    }
  }
}

/** Checks the tree, collects its names, and returns the size of the structure block in bytes. */
function measure(root: FdtNode, strings: StringTable, options: Required<FdtOptions>): number {
  const { maxDepth, strict } = options;
  let size = 4; // FDT_END
  walk(
    root,
    (open) => {
      const where = () => ({ path: pathOf(open.map(({ name }) => name)) });
      const { name, properties, children } = open.at(-1)!;
      checkNodeName(name, open.length === 1, strict, where);
      if (open.length > maxDepth) {
        const expected = `at most ${maxDepth} levels (maxDepth)`;
        throw new FdtError('E_FDT_DEPTH', {
          what: 'node',
          expected,
          found: 'one more',
          ...where(),
        });
      }
      // FDT_BEGIN_NODE, the name with its NUL, FDT_END_NODE.
      size += 4 + align4(name.length + 1) + 4;
      for (const property of properties) {
        checkPropertyName(property.name, strict, where);
        strings.offsetOf(property.name);
        size += 12 + align4(property.value.length);
      }
      checkSize(size);
      checkDistinct('property', properties, where);
      checkDistinct('node', children, where);
    },
    () => {},
  );
  return size;
}

function writeStructure(
  blob: Uint8Array,
  start: number,
  root: FdtNode,
  strings: StringTable,
): void {
  let offset = start;
  const emit = (word: number) => {
    writeU32(blob, offset, word);
    offset += 4;
  };
  walk(
    root,
    (open) => {
      const { name, properties } = open.at(-1)!;
      emit(FDT_BEGIN_NODE);
      for (let index = 0; index < name.length; index += 1) {
        blob[offset + index] = name.charCodeAt(index);
      }
      offset += align4(name.length + 1);
      for (const { name, value } of properties) {
        emit(FDT_PROP);
        emit(value.length);
        emit(strings.offsetOf(name));
        blob.set(value, offset);
        offset += align4(value.length);
      }
    },
    () => emit(FDT_END_NODE),
  );
  emit(FDT_END);
}

function checkDistinct(
  what: string,
  named: { name: string }[],
  where: () => { path: string },
): void {
  const seen = new Set<string>();
  for (const { name } of named) {
    if (seen.has(name)) {
      throw new FdtError('E_FDT_DUPLICATE', {
        what,
        expected: 'a name not used before',
        found: quote(name),
        ...where(),
      });
    }
    seen.add(name);
  }
}

function checkSize(size: number): void {
  if (size > MAX_TOTAL_SIZE) {
    throw new FdtError('E_FDT_SIZE', {
      what: 'blob',
      expected: `at most ${MAX_TOTAL_SIZE} bytes`,
      found: `${size} or more`,
    });
  }
}
