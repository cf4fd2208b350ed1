/** One broken blob a row: which rule it breaks, what we say, and what dtc does with it. */
import type { FdtErrorCode } from '../src/index.js';
import {
  begin,
  end,
  endNode,
  nop,
  prop,
  type RawHeader,
  rawBlob,
  rootWith,
  word,
} from './raw-blob.js';

interface BrokenBlob {
  rule: string;
  blob: Uint8Array;
  code: FdtErrorCode;
  /** What the message must say. */
  says: RegExp;
  /** What dtc does with it. Where it takes it, we are stricter. */
  dtc: 'refuses' | 'takes' | 'crashes';
}

const row = (
  rule: string,
  code: FdtErrorCode,
  says: RegExp,
  dtc: BrokenBlob['dtc'],
  blob: Uint8Array,
): BrokenBlob => ({ rule, code, says, dtc, blob });
const header = (fields: Partial<RawHeader>) => rawBlob({ header: fields });
const structure = (...tokens: number[][]) => rawBlob({ structure: tokens.flat() });
const inRoot = (...inside: number[][]) => rawBlob({ structure: rootWith(...inside) });
const named = (strings: string, offset = 0) =>
  rawBlob({ strings, structure: rootWith(prop(offset)) });
const node = (name: string) => [...begin(name), ...endNode];
const whole = rawBlob();

export const BROKEN: BrokenBlob[] = [
  // The header.
  row('an empty buffer', 'E_FDT_TRUNCATED', /magic.*found 0/, 'refuses', new Uint8Array()),
  row('half a header', 'E_FDT_TRUNCATED', /28 bytes.*20/, 'refuses', whole.subarray(0, 20)),
  row('36 bytes of version 17', 'E_FDT_TRUNCATED', /40 bytes/, 'refuses', whole.subarray(0, 36)),
  row('cut short by a byte', 'E_FDT_TRUNCATED', /totalsize/, 'refuses', whole.subarray(0, -1)),
  row(
    'another magic',
    'E_FDT_MAGIC',
    /0xd00dfeed.*0xd00dfeee/,
    'refuses',
    header({ magic: 0xd00dfeee }),
  ),
  row('little-endian magic', 'E_FDT_MAGIC', /0xedfe0dd0/, 'refuses', header({ magic: 0xedfe0dd0 })),
  row(
    'version 15',
    'E_FDT_VERSION',
    /16 or later.*15/,
    'refuses',
    header({ version: 15, last_comp_version: 15 }),
  ),
  row(
    'version 3',
    'E_FDT_VERSION',
    /16 or later.*3/,
    'refuses',
    header({ version: 3, last_comp_version: 1 }),
  ),
  row(
    'version 18 that 17 cannot read',
    'E_FDT_VERSION',
    /at most 17.*18/,
    'takes',
    header({ version: 18, last_comp_version: 18 }),
  ),
  row(
    'compatible only with a later one',
    'E_FDT_VERSION',
    /at most 16.*17/,
    'takes',
    header({ version: 16, last_comp_version: 17 }),
  ),
  row(
    'totalsize within the header',
    'E_FDT_LAYOUT',
    /totalsize.*40 bytes.*39/,
    'refuses',
    header({ totalsize: 39 }),
  ),
  row(
    'totalsize beyond the buffer',
    'E_FDT_TRUNCATED',
    /4294967295/,
    'refuses',
    header({ totalsize: 0xffff_ffff }),
  ),
  // Blocks.
  row(
    'structure within the header',
    'E_FDT_LAYOUT',
    /off_dt_struct.*behind the header/,
    'refuses',
    header({ off_dt_struct: 0x24, size_dt_struct: 4 }),
  ),
  row(
    'strings within the header',
    'E_FDT_LAYOUT',
    /off_dt_strings.*behind the header/,
    'takes',
    header({ off_dt_strings: 0, size_dt_strings: 4 }),
  ),
  row(
    'reservations within the header',
    'E_FDT_LAYOUT',
    /off_mem_rsvmap.*behind the header/,
    'takes',
    header({ off_mem_rsvmap: 0x20 }),
  ),
  row(
    'reservations at 4 mod 8',
    'E_FDT_LAYOUT',
    /off_mem_rsvmap.*multiple of 8/,
    'takes',
    rawBlob({ reservations: [0, 0, 0, 0, 0, 0, 0, 0], header: { off_mem_rsvmap: 44 } }),
  ),
  row(
    'structure at 2 mod 4',
    'E_FDT_LAYOUT',
    /off_dt_struct.*multiple of 4/,
    'refuses',
    header({ off_dt_struct: 58 }),
  ),
  row(
    'structure behind the blob',
    'E_FDT_LAYOUT',
    /off_dt_struct.*within totalsize/,
    'refuses',
    header({ off_dt_struct: 0x1000 }),
  ),
  row(
    'structure past the end',
    'E_FDT_LAYOUT',
    /off_dt_struct.*within totalsize/,
    'refuses',
    header({ size_dt_struct: 0x1000 }),
  ),
  row(
    'structure of 4 GiB',
    'E_FDT_LAYOUT',
    /off_dt_struct.*0x100000034/,
    'refuses',
    header({ size_dt_struct: 0xffff_fffc }),
  ),
  row(
    'strings past the end',
    'E_FDT_LAYOUT',
    /off_dt_strings.*within totalsize/,
    'refuses',
    header({ size_dt_strings: 5 }),
  ),
  row(
    'strings that wrap around',
    'E_FDT_LAYOUT',
    /off_dt_strings.*within totalsize/,
    'refuses',
    header({ size_dt_strings: 0xffff_ffff }),
  ),
  row(
    'reservations behind the blob',
    'E_FDT_RESERVATION',
    /end of its space/,
    'refuses',
    rawBlob({ header: { off_mem_rsvmap: 72, totalsize: 76 } }),
  ),
  row(
    'strings over the structure',
    'E_FDT_LAYOUT',
    /strings block.*behind the structure/,
    'takes',
    header({ off_dt_strings: 60 }),
  ),
  row(
    'strings over the reservations',
    'E_FDT_LAYOUT',
    /block.*behind the/,
    'takes',
    header({ off_dt_strings: 40, size_dt_strings: 4 }),
  ),
  row(
    'reservations within a value',
    'E_FDT_LAYOUT',
    /memory reservation block.*behind the structure/,
    'takes',
    rawBlob({ structure: rootWith(prop(0, Array(32).fill(0))), header: { off_mem_rsvmap: 80 } }),
  ),
  // The memory reservation block.
  row(
    'reservations without an end',
    'E_FDT_RESERVATION',
    /two zeros/,
    'refuses',
    rawBlob({ reservations: Array(16).fill(1) }),
  ),
  row(
    'a reservation of no size',
    'E_FDT_RESERVATION',
    /not 0.*0x0000000000001000/,
    'takes',
    rawBlob({ reservations: [0, 0x1000, 0, 0, 0, 0, 0, 0] }),
  ),
  row(
    'a reservation past 2^64',
    'E_FDT_RESERVATION',
    /within 64 bits/,
    'takes',
    rawBlob({ reservations: [0xffff_ffff, 0xffff_f000, 0, 0x1001, 0, 0, 0, 0] }),
  ),
  // Tokens.
  row(
    'no token at all',
    'E_FDT_BOUNDS',
    /a token.*4 bytes.*0 left/,
    'refuses',
    rawBlob({ structure: [] }),
  ),
  row('FDT_END alone', 'E_FDT_STRUCTURE', /root node before/, 'refuses', structure(end)),
  row('token 0', 'E_FDT_TOKEN', /0x0/, 'refuses', inRoot(word(0))),
  row('token 5', 'E_FDT_TOKEN', /0x5/, 'refuses', inRoot(word(5))),
  row('token 1, little-endian', 'E_FDT_TOKEN', /0x1000000/, 'refuses', inRoot(word(0x0100_0000))),
  row(
    'a property before the root',
    'E_FDT_STRUCTURE',
    /a node around it/,
    'refuses',
    structure(prop(0), begin(''), endNode, end),
  ),
  row(
    'a property behind the root',
    'E_FDT_STRUCTURE',
    /a node around it/,
    'refuses',
    structure(begin(''), endNode, prop(0), end),
  ),
  row(
    'an end without a begin',
    'E_FDT_STRUCTURE',
    /a node to end/,
    'refuses',
    structure(endNode, end),
  ),
  row(
    'one end too many',
    'E_FDT_STRUCTURE',
    /a node to end/,
    'refuses',
    structure(begin(''), endNode, endNode, end),
  ),
  row(
    'FDT_END within a node',
    'E_FDT_STRUCTURE',
    /FDT_END_NODE.*1 open/,
    'refuses',
    structure(begin(''), end),
  ),
  row('no FDT_END', 'E_FDT_BOUNDS', /a token/, 'refuses', structure(begin(''), endNode)),
  row(
    'a second root',
    'E_FDT_STRUCTURE',
    /second root/,
    'refuses',
    structure(begin(''), endNode, begin(''), endNode, end),
  ),
  row(
    'a token behind FDT_END',
    'E_FDT_STRUCTURE',
    /last of the 20 bytes.*4 more/,
    'takes',
    structure(begin(''), endNode, end, nop),
  ),
  row(
    'FDT_END twice',
    'E_FDT_STRUCTURE',
    /last of the/,
    'takes',
    structure(begin(''), endNode, end, end),
  ),
  row(
    'a property behind a subnode',
    'E_FDT_STRUCTURE',
    /properties before subnodes/,
    'takes',
    inRoot(node('a'), prop(0)),
  ),
  row(
    'a size that cuts a token',
    'E_FDT_BOUNDS',
    /a token.*2 left/,
    'takes',
    header({ size_dt_struct: 14 }),
  ),
  // Bounds.
  row(
    'a node name without NUL',
    'E_FDT_BOUNDS',
    /NUL of a node name/,
    'refuses',
    rawBlob({ strings: 'reg', structure: [...word(1), ...word(0x61616161)] }),
  ),
  row(
    'a property cut in its head',
    'E_FDT_BOUNDS',
    /length and name offset/,
    'refuses',
    rawBlob({ strings: '', structure: [...begin(''), ...word(3), ...word(0)] }),
  ),
  row(
    'a value past the end',
    'E_FDT_BOUNDS',
    /13 bytes of property 'reg'.*12 left/,
    'refuses',
    rawBlob({ structure: rootWith(prop(0, [1, 2, 3, 4], 13)), strings: 'reg\0', header: {} }),
  ),
  row(
    'a value of 1 GiB',
    'E_FDT_BOUNDS',
    /1073741823 bytes/,
    'refuses',
    inRoot(prop(0, [], 0x3fff_ffff)),
  ),
  row(
    'a value of 4 GiB',
    'E_FDT_BOUNDS',
    /4294967295 bytes/,
    'crashes',
    inRoot(prop(0, [], 0xffff_ffff)),
  ),
  row(
    'padding cut',
    'E_FDT_BOUNDS',
    /padding.*3 bytes.*1 left/,
    'takes',
    rawBlob({
      structure: [...begin(''), ...prop(0, [1]), ...endNode, ...end],
      header: { size_dt_struct: 22 },
    }),
  ),
  // Property names.
  row(
    'a name behind the strings',
    'E_FDT_NAME_OFFSET',
    /within the 4 bytes.*0x4/,
    'refuses',
    named('reg\0', 4),
  ),
  row(
    'a name 4 GiB away',
    'E_FDT_NAME_OFFSET',
    /0xffffffff/,
    'refuses',
    named('reg\0', 0xffff_ffff),
  ),
  row('a name of no strings', 'E_FDT_NAME_OFFSET', /within the 0 bytes/, 'refuses', named('')),
  row('a name that does not end', 'E_FDT_NAME_OFFSET', /ends within/, 'refuses', named('reg')),
  row('an empty property name', 'E_FDT_NAME', /1 or more/, 'takes', named('reg\0', 3)),
  row('a blank in a property name', 'E_FDT_NAME', /'a b'/, 'refuses', named('a b\0')),
  row('an @ in a property name', 'E_FDT_NAME', /'a@b'/, 'refuses', named('a@b\0')),
  row('a byte of 0xff in a property name', 'E_FDT_NAME', /'a\\xff'/, 'refuses', named('a\xff\0')),
  row(
    'a property name of 256 characters',
    'E_FDT_NAME',
    /at most 255/,
    'takes',
    named(`${'a'.repeat(256)}\0`),
  ),
  row(
    'two properties of one name',
    'E_FDT_DUPLICATE',
    /'reg'/,
    'refuses',
    inRoot(prop(0), prop(0)),
  ),
  row(
    'two names that read the same',
    'E_FDT_DUPLICATE',
    /'g'/,
    'refuses',
    rawBlob({ strings: 'reg\0g\0', structure: rootWith(prop(2), prop(4)) }),
  ),
  // Node names.
  row(
    'a root with a name',
    'E_FDT_NAME',
    /none for the root.*'r'/,
    'takes',
    structure(begin('r'), endNode, end),
  ),
  row(
    'a root called /',
    'E_FDT_NAME',
    /none for the root/,
    'refuses',
    structure(begin('/'), endNode, end),
  ),
  row('a node without a name', 'E_FDT_NAME', /1 or more/, 'takes', inRoot(node(''))),
  row('a slash in a node name', 'E_FDT_NAME', /'a\/b'/, 'refuses', inRoot(node('a/b'))),
  row('two @ in a node name', 'E_FDT_NAME', /'a@1@2'/, 'refuses', inRoot(node('a@1@2'))),
  row(
    'a control character in a node name',
    'E_FDT_NAME',
    /'a\\xa'/,
    'refuses',
    inRoot(node('a\n')),
  ),
  row(
    'a node name of 256 characters',
    'E_FDT_NAME',
    /at most 255/,
    'takes',
    inRoot(node('a'.repeat(256))),
  ),
  row(
    'two nodes of one name',
    'E_FDT_DUPLICATE',
    /'a@0'/,
    'refuses',
    inRoot(node('a@0'), node('b'), node('a@0')),
  ),
  row(
    '65 levels',
    'E_FDT_DEPTH',
    /64 levels/,
    'takes',
    inRoot(...Array(64).fill(begin('a')), ...Array(64).fill(endNode)),
  ),
];

const strictRow = (rule: string, code: FdtErrorCode, says: RegExp, blob: Uint8Array): BrokenBlob =>
  row(rule, code, says, 'takes', blob);

/** Only `strict` refuses these. */
export const NOT_TO_THE_LETTER: BrokenBlob[] = [
  strictRow('padding behind a value', 'E_FDT_PADDING', /0xee/, inRoot(prop(0, [1], 1, 0xee))),
  strictRow(
    'padding behind a name',
    'E_FDT_PADDING',
    /0xee/,
    rawBlob({ structure: [...word(1), 0, 0, 0xee, 0, ...endNode, ...end] }),
  ),
  strictRow('a property name of 32', 'E_FDT_NAME', /at most 31/, named(`${'a'.repeat(32)}\0`)),
  strictRow('an asterisk in a property name', 'E_FDT_NAME', /'a\*'/, named('a*\0')),
  strictRow('a node name of 32', 'E_FDT_NAME', /at most 31/, inRoot(node(`${'a'.repeat(32)}@0`))),
  strictRow('a node name from a digit on', 'E_FDT_NAME', /a letter first/, inRoot(node('1a'))),
  strictRow('__symbols__', 'E_FDT_NAME', /a letter first/, inRoot(node('__symbols__'))),
  strictRow('an empty unit address', 'E_FDT_NAME', /unit address/, inRoot(node('a@'))),
  strictRow('a unit address alone', 'E_FDT_NAME', /a letter first/, inRoot(node('@0'))),
  strictRow(
    'reservations that overlap',
    'E_FDT_RESERVATION',
    /not overlap/,
    rawBlob({ reservations: [0, 0x2000, 0, 0x1000, 0, 0x1000, 0, 0x1001, 0, 0, 0, 0] }),
  ),
];
