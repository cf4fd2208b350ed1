import { hex } from '@pinhole/base';
import { readU32, writeU32 } from './bytes.js';
import { FdtError } from './errors.js';
import {
  FDT_LAST_COMP_VERSION,
  FDT_MAGIC,
  FDT_VERSION,
  V1_HEADER_SIZE,
  V16_HEADER_SIZE,
  V17_HEADER_SIZE,
} from './params.js';

/** The header's fields; offsets and sizes in bytes. [Devicetree v0.4 §5.2 "Header"] */
export interface FdtHeader {
  totalsize: number;
  offDtStruct: number;
  offDtStrings: number;
  offMemRsvmap: number;
  version: number;
  lastCompVersion: number;
  bootCpuidPhys: number;
  sizeDtStrings: number;
  /** Version 16 does not have it. */
  sizeDtStruct: number | undefined;
}

/**
 * Reads the header alone; the blocks it leads to are within the buffer and aligned.
 * @throws FdtError `E_FDT_TRUNCATED`, `E_FDT_MAGIC`, `E_FDT_VERSION`, `E_FDT_LAYOUT`
 */
export function parseFdtHeader(bytes: Uint8Array): FdtHeader {
  needBytes(bytes, 4, 'magic');
  const magic = readU32(bytes, 0);
  if (magic !== FDT_MAGIC) {
    throw new FdtError('E_FDT_MAGIC', {
      what: 'magic',
      offset: 0,
      expected: hex(FDT_MAGIC),
      found: hex(magic),
    });
  }
  needBytes(bytes, V1_HEADER_SIZE, 'header');
  const version = readU32(bytes, 0x14);
  const lastCompVersion = readU32(bytes, 0x18);
  checkVersion(version, lastCompVersion);
  const headerSize = headerSizeOf(version);
  needBytes(bytes, headerSize, 'header');
  const header: FdtHeader = {
    totalsize: readU32(bytes, 0x04),
    offDtStruct: readU32(bytes, 0x08),
    offDtStrings: readU32(bytes, 0x0c),
    offMemRsvmap: readU32(bytes, 0x10),
    version,
    lastCompVersion,
    bootCpuidPhys: readU32(bytes, 0x1c),
    sizeDtStrings: readU32(bytes, 0x20),
    sizeDtStruct: version >= 17 ? readU32(bytes, 0x24) : undefined,
  };
  if (header.totalsize < headerSize) {
    throw new FdtError('E_FDT_LAYOUT', {
      what: 'totalsize',
      offset: 0x04,
      expected: `at least the ${headerSize} bytes of the header`,
      found: String(header.totalsize),
    });
  }
  if (header.totalsize > bytes.length) {
    throw new FdtError('E_FDT_TRUNCATED', {
      what: 'blob',
      offset: bytes.length,
      expected: `${header.totalsize} bytes (totalsize)`,
      found: String(bytes.length),
    });
  }
  checkBlock(header, 'off_mem_rsvmap', 0x10, header.offMemRsvmap, 0, 8);
  checkBlock(header, 'off_dt_struct', 0x08, header.offDtStruct, header.sizeDtStruct ?? 0, 4);
  checkBlock(header, 'off_dt_strings', 0x0c, header.offDtStrings, header.sizeDtStrings, 1);
  return header;
}

/** Writes the header of a version 17 blob. */
export function writeHeader(bytes: Uint8Array, header: FdtHeader): void {
  const fields = [
    FDT_MAGIC,
    header.totalsize,
    header.offDtStruct,
    header.offDtStrings,
    header.offMemRsvmap,
    header.version,
    header.lastCompVersion,
    header.bootCpuidPhys,
    header.sizeDtStrings,
    header.sizeDtStruct ?? 0,
  ];
  for (const [index, field] of fields.entries()) writeU32(bytes, index * 4, field);
}

/** In bytes. A newer version has at least what 17 has. */
function headerSizeOf(version: number): number {
  return version >= 17 ? V17_HEADER_SIZE : V16_HEADER_SIZE;
}

function needBytes(bytes: Uint8Array, length: number, what: string): void {
  if (bytes.length < length) {
    throw new FdtError('E_FDT_TRUNCATED', {
      what,
      offset: bytes.length,
      expected: `${length} bytes`,
      found: String(bytes.length),
    });
  }
}

/**
 * 17 is what the specification describes; 16 lacks one field; a newer one is read as 17 if it says
 * that it can be. Before 16 nodes had full paths for names and values another alignment.
 * [Devicetree v0.4 §5.1 "Versioning"] [dtc v1.6.1 flattree.c version_table]
 */
function checkVersion(version: number, lastCompVersion: number): void {
  if (version < FDT_LAST_COMP_VERSION) {
    throw new FdtError('E_FDT_VERSION', {
      what: 'version',
      offset: 0x14,
      expected: `${FDT_LAST_COMP_VERSION} or later (dtc converts older ones)`,
      found: String(version),
    });
  }
  if (lastCompVersion > FDT_VERSION || lastCompVersion > version) {
    throw new FdtError('E_FDT_VERSION', {
      what: 'last_comp_version',
      offset: 0x18,
      expected: `at most ${Math.min(FDT_VERSION, version)}`,
      found: String(lastCompVersion),
    });
  }
}

/** [Devicetree v0.4 §5.6 "Alignment"] */
function checkBlock(
  header: FdtHeader,
  what: string,
  offset: number,
  start: number,
  size: number,
  alignment: number,
): void {
  const fail = (expected: string, found: string): never => {
    throw new FdtError('E_FDT_LAYOUT', { what, offset, expected, found });
  };
  if (start % alignment !== 0) fail(`a multiple of ${alignment}`, hex(start));
  const headerSize = headerSizeOf(header.version);
  if (start < headerSize) fail(`an offset behind the header (${hex(headerSize)})`, hex(start));
  if (start + size > header.totalsize) {
    fail(
      `a block within totalsize (${hex(header.totalsize)})`,
      `${hex(start)} to ${hex(start + size)}`,
    );
  }
}
