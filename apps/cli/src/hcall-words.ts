import { HCALL_NAMES, RTAS_TOKENS } from '@pinhole/hcall';

/** What each call takes, as words; and of RTAS calls how many cells they answer with. */
const CALLS: Readonly<Record<string, { readonly args: string; readonly nret?: number }>> = {
  H_PUT_TCE: { args: 'LIOBN IOBA TCE' },
  H_GET_TCE: { args: 'LIOBN IOBA' },
  H_STUFF_TCE: { args: 'LIOBN IOBA TCE NPAGES' },
  H_PUT_TCE_INDIRECT: { args: 'LIOBN IOBA LIST NPAGES' },
  KVMPPC_H_RTAS: { args: 'BUFFER' },
  'ibm,query-pe-dma-window': { args: 'CONFIG_ADDR BUID_HI BUID_LO', nret: 5 },
  'ibm,create-pe-dma-window': {
    args: 'CONFIG_ADDR BUID_HI BUID_LO PAGE_SHIFT WINDOW_SHIFT',
    nret: 4,
  },
  'ibm,remove-pe-dma-window': { args: 'LIOBN', nret: 1 },
  'ibm,reset-pe-dma-window': { args: 'CONFIG_ADDR BUID_HI BUID_LO', nret: 1 },
  'ibm,set-tce-bypass': { args: 'UNIT ENABLE', nret: 1 },
};

/** Words that begin a line. */
const FIRST_WORDS: readonly string[] = [
  ...HCALL_NAMES.values(),
  ...Object.keys(RTAS_TOKENS),
  ...['rtas', 'write', 'read', 'reset', 'windows', 'help', 'quit'],
];

const HELP = `Calls; numbers are decimal or 0x...:
${Object.entries(CALLS)
  .map(([name, { args }]) => `  ${name} ${args}`)
  .join('\n')}
  ... nret=6:         of an RTAS call, how many cells it is to answer with
  0x123 ARGS:         a hypercall by its number
  rtas 0x2026 ARGS:   an RTAS call by its token
The machine:
  write GPA HEX:      put bytes into guest memory
  read GPA LENGTH:    show guest memory
  reset:              windows as at the start; memory stays
  windows:            the windows that are open
  help [CALL], quit:  (or Ctrl-D)
The first host bridge is BUID 0x8000000 0x20000000, its windows LIOBN 0x80000000 and 0x80000001.
A line that starts with { is JSON, as from a pipe: {"save":true} for one.`;

/** What `help` says, in all or about one call. */
export function helpText(topic?: string): string {
  if (topic === undefined) return HELP;
  const call = Object.hasOwn(CALLS, topic) ? CALLS[topic] : undefined;
  if (call === undefined) return unknownWord(topic, Object.keys(CALLS));
  const { args, nret } = call;
  return `${topic} ${args}${nret === undefined ? '' : `  (answers ${nret} cells: nret=${nret})`}`;
}

/** Completes the first word of a line, and the second after `help`. */
export function complete(line: string): [string[], string] {
  const isHelp = /^help\s+\S*$/.test(line);
  if (/\s/.test(line) && !isHelp) return [[], line];
  const start = isHelp ? line.replace(/^help\s+/, '') : line;
  const words = isHelp ? Object.keys(CALLS) : FIRST_WORDS;
  return [words.filter((word) => word.startsWith(start)).map((word) => `${word} `), start];
}

/**
 * A line of words as a request in JSON; numbers stay text, for the session to check. A string says
 * what is wrong.
 */
export function wordsToRequest(line: string): Record<string, unknown> | string {
  const [first = '', ...rest] = line.trim().split(/\s+/);
  if (first === 'reset') {
    return rest.length === 0 ? { reset: true } : `expected reset alone, found ${quote(rest)}`;
  }
  if (first === 'write' || first === 'read') return memoryRequest(first, rest);
  if (first === 'rtas') {
    const [token, ...words] = rest;
    return token === undefined ? 'expected rtas TOKEN ARGS nret=4' : rtasRequest(token, words);
  }
  if (Object.hasOwn(RTAS_TOKENS, first)) return rtasRequest(first, rest);
  if (Object.hasOwn(CALLS, first) || /^\d/.test(first)) return { op: first, args: rest };
  return unknownWord(first, [...FIRST_WORDS, 'a number']);
}

/** What a person should know of a call whose counts are not the usual ones. */
export function noteOnCounts(request: Readonly<Record<string, unknown>>): string | undefined {
  const name = String(request.op ?? request.rtas);
  const call = Object.hasOwn(CALLS, name) ? CALLS[name] : undefined;
  if (call === undefined) return undefined;
  const expected = call.args.split(' ').length;
  const found = Array.isArray(request.args) ? request.args.length : 0;
  if (found === expected) return undefined;
  const outcome = found < expected ? 'what is missing was read as 0' : 'the rest was not looked at';
  const takes = `(${name} takes ${call.args}`;
  return call.nret === undefined ? `${takes}: ${outcome})` : `${takes}: found ${found})`;
}

function rtasRequest(name: string, words: readonly string[]): Record<string, unknown> {
  const nret = words.findLast((word) => word.startsWith('nret='))?.slice('nret='.length);
  const args = words.filter((word) => !word.startsWith('nret='));
  return { rtas: name, args, nret: nret ?? CALLS[name]?.nret ?? 1 };
}

function memoryRequest(
  what: 'write' | 'read',
  [gpa, second, ...more]: readonly string[],
): Record<string, unknown> | string {
  if (gpa === undefined || second === undefined) {
    return what === 'write' ? 'expected write GPA HEX' : 'expected read GPA LENGTH';
  }
  // Bytes may be typed as they are shown: in groups.
  if (what === 'write')
    return { write: { gpa, hex: [second, ...more].join('').replace(/^0x/i, '') } };
  if (more.length > 0) return `expected read GPA LENGTH, found ${quote(more)} behind it`;
  return { read: { gpa, length: second } };
}

function quote(words: readonly string[]): string {
  return JSON.stringify(words.join(' ').slice(0, 40));
}

// A name that is nearly right is told.
function unknownWord(found: string, known: readonly string[]): string {
  const same = known.find((word) => word.toLowerCase() === found.toLowerCase());
  if (same !== undefined) return `expected ${same}, found ${quote([found])}`;
  return `found ${quote([found])}, expected one of ${known.join(', ')}; help says more`;
}
