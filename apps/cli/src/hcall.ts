import { createInterface } from 'node:readline';
import { parseSize } from '@pinhole/base';
import { type HcallAnswer, HcallSession, MAX_HCALL_LINE, parseMachine } from '@pinhole/machine';
import { interrupt } from './exit.js';
import { FIRST_WORDS, helpText, wordsToRequest } from './hcall-words.js';

/** Options of `pinhole hcall`. */
export interface HcallOptions {
  readonly handler: 'qemu' | 'kvm';
  readonly memory: string;
  readonly set: readonly string[];
}

/** Answers are handed to the pipe in pieces of about so many characters. */
const PIECE = 65_536;

/** `pinhole hcall`: the model's hypercalls for other programs, or at a prompt. */
export async function hcall(options: HcallOptions): Promise<void> {
  const machine = parseMachine([
    'machine.arch=pseries',
    `machine.memory=${parseSize(options.memory)}`,
    `machine.tceHandler=${options.handler}`,
    ...options.set,
  ]);
  const session = new HcallSession(machine);
  if (process.stdin.isTTY === true) await prompt(session);
  else await serve(session);
}

// A line of JSON in, a line of JSON out.
async function serve(session: HcallSession): Promise<void> {
  let answers = '';
  const flush = async (): Promise<void> => {
    if (answers === '') return;
    const text = answers;
    answers = '';
    // Waits for a slow reader instead of keeping what it has not read.
    if (!process.stdout.write(text)) {
      await new Promise((resolve) => process.stdout.once('drain', resolve));
    }
  };
  const say = (answer: HcallAnswer | undefined): void => {
    if (answer !== undefined) answers += `${JSON.stringify(answer)}\n`;
  };
  let line = '';
  let isTooLong = false;
  process.stdin.setEncoding('utf8');
  for await (const chunk of process.stdin as AsyncIterable<string>) {
    if (interrupt.isRequested) break;
    const parts = chunk.split('\n');
    for (let i = 0; i < parts.length; i += 1) {
      const part = parts[i] as string;
      if (line.length + part.length > MAX_HCALL_LINE) isTooLong = true;
      line = isTooLong ? '' : line + part;
      if (i === parts.length - 1) break;
      say(isTooLong ? session.skip() : session.answer(line));
      line = '';
      isTooLong = false;
      if (answers.length > PIECE) await flush();
    }
    // Who waits for an answer before the next question gets it.
    await flush();
  }
  if (isTooLong) say(session.skip());
  else if (line !== '' && !interrupt.isRequested) say(session.answer(line));
  await flush();
}

async function prompt(session: HcallSession): Promise<void> {
  const terminal = createInterface({
    input: process.stdin,
    output: process.stdout,
    prompt: 'hcall> ',
    historySize: 1000,
    removeHistoryDuplicates: true,
    completer: (line: string): [string[], string] => {
      if (line.includes(' ')) return [[], line];
      return [FIRST_WORDS.filter((word) => word.startsWith(line)).map((word) => `${word} `), line];
    },
  });
  process.stdout.write('The hypercalls of a pseries machine. help, Tab and the arrow keys help.\n');
  terminal.on('SIGINT', () => terminal.close());
  terminal.prompt();
  for await (const line of terminal) {
    const text = line.trim();
    if (text === 'quit' || text === 'exit') break;
    if (text !== '') process.stdout.write(respond(session, text));
    terminal.prompt();
  }
  terminal.close();
}

function respond(session: HcallSession, text: string): string {
  if (text === 'help' || text === '?') return helpText();
  if (text === 'windows') return describeWindows(session);
  const request = text.startsWith('{') ? text : wordsToRequest(text);
  const isWrong = typeof request === 'string' && !text.startsWith('{');
  if (isWrong) return `${request}\n`;
  const answer = session.answer(typeof request === 'string' ? request : JSON.stringify(request));
  return answer === undefined ? '' : describe(answer);
}

const RETURNS: Readonly<Record<number, string>> = {
  0: 'H_SUCCESS',
  [-2]: 'H_FUNCTION',
  [-4]: 'H_PARAMETER',
};

function describe(answer: HcallAnswer): string {
  if ('error' in answer) return `${(answer.error as { message: string }).message}\n`;
  if ('ret' in answer) {
    const { ret, out } = answer as { ret: number; out: readonly string[] };
    return `${ret} ${RETURNS[ret] ?? ''}${out.map((value, i) => `  r${i + 4} = ${value}`).join('')}\n`;
  }
  if ('rets' in answer) {
    const [status, ...rest] = (answer as { rets: readonly (number | null)[] }).rets;
    const cells = rest.map((cell) => (cell === null ? '-' : `0x${cell.toString(16)}`));
    return `status ${status ?? '-'}${cells.length > 0 ? `: ${cells.join(' ')}` : ''}\n`;
  }
  return Object.keys(answer).length === 0
    ? 'done\n'
    : `${Object.values(answer).map(String).join(' ')}\n`;
}

function describeWindows({ machine }: HcallSession): string {
  const { phbs, vio } = machine.iommu;
  const tables = [
    ...phbs.flatMap(({ name, tables }) => tables.map((table) => ({ name, table }))),
    ...vio.flatMap(({ name, table }) => (table === undefined ? [] : [{ name, table }])),
  ];
  const rows = tables
    .filter(({ table }) => table.isEnabled)
    .map(({ name, table }) => {
      const { liobn, busOffset, nbTable, pageShift, live } = table;
      return `LIOBN 0x${liobn.toString(16)}: ${nbTable} pages of 2^${pageShift} bytes at 0x${busOffset.toString(16)}, ${live} mapped (${name})`;
    });
  return `${rows.join('\n') || 'no window is open'}\n`;
}
