import { hex } from '@pinhole/base';
import { FdtError } from './errors.js';
import { type FdtHeader, parseFdtHeader } from './header.js';
import { FDT_MAX_DEPTH } from './params.js';
import { checkOverlaps, readReservations } from './reservations.js';
import { StringsBlock } from './string-table.js';
import { StructureReader } from './structure-reader.js';
import type { Fdt, FdtOptions } from './types.js';

/** A stretch of the blob, in bytes from its start. */
interface Block {
  what: string;
  start: number;
  end: number;
}

/**
 * Reads a device tree blob of version 16, 17, or a later one that is compatible with these. Bytes
 * behind `totalsize` are ignored. [Devicetree v0.4 §5 "Flattened Devicetree (DTB) Format"]
 *
 * The blob is copied once, and values are views of that copy: the tree takes memory and time in
 * proportion to the blob, whatever is in it, and later writes to `bytes` do not reach the tree.
 * @throws FdtError with the offset, the node, what was expected and what was found
 */
export function parseFdt(bytes: Uint8Array, options: FdtOptions = {}): Fdt {
  const { maxDepth = FDT_MAX_DEPTH, strict = false } = options;
  const header = parseFdtHeader(bytes);
  const blob = new Uint8Array(bytes.subarray(0, header.totalsize));
  const { offMemRsvmap, offDtStruct, offDtStrings, sizeDtStrings, sizeDtStruct } = header;

  const { reservations, end: reservationsEnd } = readReservations(
    blob,
    offMemRsvmap,
    spaceEnd(header, offMemRsvmap),
  );
  if (strict) checkOverlaps(reservations);

  const strings = { what: 'strings', start: offDtStrings, end: offDtStrings + sizeDtStrings };
  const limit =
    sizeDtStruct === undefined ? spaceEnd(header, offDtStruct) : offDtStruct + sizeDtStruct;
  const names = new StringsBlock(blob.subarray(strings.start, strings.end));
  const reader = new StructureReader(blob, offDtStruct, limit, names, { maxDepth, strict });
  const { root, end } = reader.read();
  if (sizeDtStruct !== undefined && end !== limit) {
    throw new FdtError('E_FDT_STRUCTURE', {
      what: 'FDT_END',
      offset: end,
      expected: `to be the last of the ${sizeDtStruct} bytes of the structure block`,
      found: `${limit - end} more bytes`,
    });
  }
  checkDisjoint([
    { what: 'memory reservation', start: offMemRsvmap, end: reservationsEnd },
    { what: 'structure', start: offDtStruct, end },
    strings,
  ]);
  return { root, reservations, bootCpuid: header.bootCpuidPhys };
}

/** Where a block that starts at `start` and does not say its size must end. */
function spaceEnd(header: FdtHeader, start: number): number {
  const starts = [header.offMemRsvmap, header.offDtStruct];
  if (header.sizeDtStrings > 0) starts.push(header.offDtStrings);
  return Math.min(header.totalsize, ...starts.filter((other) => other > start));
}

function checkDisjoint(blocks: Block[]): void {
  const sorted = blocks.filter(({ start, end }) => end > start).sort((a, b) => a.start - b.start);
  for (const [index, block] of sorted.entries()) {
    const next = sorted[index + 1];
    if (next && next.start < block.end) {
      throw new FdtError('E_FDT_LAYOUT', {
        what: `${next.what} block`,
        offset: next.start,
        expected: `a start behind the ${block.what} block`,
        found: `${hex(next.start)}, before its end at ${hex(block.end)}`,
      });
    }
  }
}
