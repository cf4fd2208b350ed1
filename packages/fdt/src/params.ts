/** The numbers of the format. */

/** First word of a blob. [Devicetree v0.4 §5.2 "Header"] */
export const FDT_MAGIC = 0xd00d_feed;

/** The version that is written, and the newest that is understood. [Devicetree v0.4 §5.1] */
export const FDT_VERSION = 17;

/** Version 17 can be read as this one, but for `size_dt_struct`. [Devicetree v0.4 §5.2 "Header"] */
export const FDT_LAST_COMP_VERSION = 16;

/** Tokens of the structure block. [Devicetree v0.4 §5.4.1 "Lexical structure"] */
export const FDT_BEGIN_NODE = 0x1;
export const FDT_END_NODE = 0x2;
export const FDT_PROP = 0x3;
export const FDT_NOP = 0x4;
export const FDT_END = 0x9;

/** The header up to `last_comp_version`: what every version has. */
export const V1_HEADER_SIZE = 28;
/** Version 16 ends with `size_dt_strings`. */
export const V16_HEADER_SIZE = 36;
/** Version 17 adds `size_dt_struct`. */
export const V17_HEADER_SIZE = 40;

/** One entry of the memory reservation block. [Devicetree v0.4 §5.3.2 "Format"] */
export const RESERVE_ENTRY_SIZE = 16;

/**
 * Default of `maxDepth`, the root counted: as many as Linux has room for.
 * [linux v6.1 drivers/of/fdt.c unflatten_dt_nodes]
 */
export const FDT_MAX_DEPTH = 64;

/**
 * No name is longer. Not from the specification, which says 31 (real trees have longer ones): the
 * bound keeps reading linear, since any number of properties can point into one long string.
 */
export const MAX_NAME_LENGTH = 255;

/** Of a node's name without its unit address, and of a property's. [Devicetree v0.4 §2.2.1, §2.2.4] */
export const SPEC_NAME_LENGTH = 31;

/** libfdt's offsets are signed: it takes no larger blob. [dtc v1.6.1 libfdt/fdt.c fdt_check_header] */
export const MAX_TOTAL_SIZE = 0x7fff_ffff;
