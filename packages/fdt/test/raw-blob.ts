/** Blobs put together by hand, right or wrong in any place. Shares no code with the package. */

export const word = (value: number): number[] => [
  (value >>> 24) & 0xff,
  (value >>> 16) & 0xff,
  (value >>> 8) & 0xff,
  value & 0xff,
];
const text = (value: string): number[] => [...value].map((c) => c.charCodeAt(0));
const pad = (bytes: number[], fill = 0): number[] => {
  const padded = [...bytes];
  while (padded.length % 4 !== 0) padded.push(fill);
  return padded;
};

export const begin = (name: string): number[] => [...word(1), ...pad([...text(name), 0])];
export const endNode: number[] = word(2);
/** `length` and `fill` can lie about the value and its padding. */
export const prop = (
  nameOffset: number,
  value: number[] = [],
  length: number = value.length,
  fill = 0,
): number[] => [...word(3), ...word(length), ...word(nameOffset), ...pad(value, fill)];
export const nop: number[] = word(4);
export const end: number[] = word(9);

/** The fields of the header, as the specification names them. */
export interface RawHeader {
  magic: number;
  totalsize: number;
  off_dt_struct: number;
  off_dt_strings: number;
  off_mem_rsvmap: number;
  version: number;
  last_comp_version: number;
  boot_cpuid_phys: number;
  size_dt_strings: number;
  size_dt_struct: number;
}

export interface RawBlob {
  /** Default: a root with nothing in it. */
  structure?: number[];
  strings?: string;
  /** Words of the memory reservation block. */
  reservations?: number[];
  /** Fields that differ from what the layout would have. */
  header?: Partial<RawHeader>;
}

/** Header, reservations, structure, strings, in this order. */
export function rawBlob(options: RawBlob = {}): Uint8Array {
  const structure = options.structure ?? [...begin(''), ...endNode, ...end];
  const strings = text(options.strings ?? 'reg\0');
  const reservations = (options.reservations ?? [0, 0, 0, 0]).flatMap(word);
  const offStruct = 40 + reservations.length;
  const offStrings = offStruct + structure.length;
  const header: RawHeader = {
    magic: 0xd00dfeed,
    totalsize: offStrings + strings.length,
    off_dt_struct: offStruct,
    off_dt_strings: offStrings,
    off_mem_rsvmap: 40,
    version: 17,
    last_comp_version: 16,
    boot_cpuid_phys: 0,
    size_dt_strings: strings.length,
    size_dt_struct: structure.length,
    ...options.header,
  };
  return Uint8Array.from([
    ...Object.values(header).flatMap(word),
    ...reservations,
    ...structure,
    ...strings,
  ]);
}

/** A structure block of a root with `inside` in it. */
export const rootWith = (...inside: number[][]): number[] => [
  ...begin(''),
  ...inside.flat(),
  ...endNode,
  ...end,
];
