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
export const FIRST_WORDS: readonly string[] = [
  ...HCALL_NAMES.values(),
  ...Object.keys(RTAS_TOKENS),
  ...['write', 'read', 'reset', 'windows', 'help', 'quit'],
];

/** What `help` says. */
export function helpText(): string {
  const calls = Object.entries(CALLS).map(([name, { args }]) => `  ${name} ${args}`);
  return `${[
    'Hypercalls and RTAS calls; numbers are decimal or 0x...:',
    ...calls,
    '  ... nret=6              of an RTAS call: how many cells it may answer with',
    '  0x123 ARGS              a hypercall by its number',
    'The machine:',
    '  write GPA HEX           put bytes into guest memory',
    '  read GPA LENGTH         show guest memory',
    '  reset                   windows as at the start; memory stays',
    '  windows                 the windows that are open',
    '  help, quit              (or Ctrl-D)',
    'A line that starts with { is JSON, as the program reads it from a pipe.',
  ].join('\n')}\n`;
}

/**
 * A line of words as a request in JSON; numbers stay text, for the session to check. A string says
 * what is wrong.
 */
export function wordsToRequest(line: string): Record<string, unknown> | string {
  const [first = '', ...rest] = line.trim().split(/\s+/);
  const call = Object.hasOwn(CALLS, first) ? CALLS[first] : undefined;
  if (first === 'reset' && rest.length === 0) return { reset: true };
  if (first === 'write' || first === 'read') return memoryRequest(first, rest);
  if (call?.nret !== undefined) {
    const nret = rest.filter((word) => word.startsWith('nret='));
    const args = rest.filter((word) => !word.startsWith('nret='));
    const count = nret.length === 0 ? call.nret : Number(nret.at(-1)?.slice(5));
    return { rtas: first, args, nret: count };
  }
  if (call !== undefined || /^(0x[0-9a-f]+|\d+)$/i.test(first)) return { op: first, args: rest };
  return `expected ${FIRST_WORDS.join(', ')} or a number, found "${first.slice(0, 40)}"; help says more`;
}

function memoryRequest(
  what: 'write' | 'read',
  [gpa = '', second = '', ...more]: readonly string[],
): Record<string, unknown> | string {
  if (gpa === '' || second === '' || more.length > 0) {
    return what === 'write' ? 'expected write GPA HEX' : 'expected read GPA LENGTH';
  }
  if (what === 'write') return { write: { gpa, hex: second.replace(/^0x/i, '') } };
  return { read: { gpa, length: Number(second) } };
}
