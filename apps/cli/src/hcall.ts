import { once } from 'node:events';
import { addAbortSignal } from 'node:stream';
import { ModelError, parseSize } from '@pinhole/base';
import { type HcallAnswer, HcallSession, MAX_HCALL_LINE, parseMachine } from '@pinhole/machine';
import { InputError, interrupt } from './exit.js';
import { LineCutter } from './hcall-lines.js';
import { prompt } from './hcall-prompt.js';

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
  const session = new HcallSession(parseMachine(settingsOf(options)));
  // Without a terminal on both sides there is nobody to prompt.
  if (process.stdin.isTTY === true && process.stdout.isTTY === true) await prompt(session);
  else await serve(session);
}

function settingsOf({ handler, memory, set }: HcallOptions): string[] {
  const other = set.find((setting) => /^[^=]+=/.test(setting) && !/^machine[.=[]/.test(setting));
  if (other !== undefined) {
    throw new InputError(
      `--set: expected a key of the machine such as machine.ddw=false (there is nothing else here), found "${other}"`,
    );
  }
  let bytes: number;
  try {
    bytes = parseSize(memory);
  } catch (error) {
    if (error instanceof ModelError) throw new InputError(`--memory: ${error.message}`, error);
    throw error;
  }
  return [
    'machine.arch=pseries',
    `machine.memory=${bytes}`,
    `machine.tceHandler=${handler}`,
    ...set,
  ];
}

// A line of JSON in, a line of JSON out.
async function serve(session: HcallSession): Promise<void> {
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  addAbortSignal(stop.signal, process.stdin);
  let answers = '';
  const flush = async (): Promise<void> => {
    const text = answers;
    answers = '';
    // Waits for a slow reader instead of keeping what it has not read.
    if (text !== '' && !process.stdout.write(text)) {
      await once(process.stdout, 'drain', { signal: stop.signal });
    }
  };
  const answer = (line: string | undefined): void => {
    const said: HcallAnswer | undefined =
      line === undefined ? session.skip() : session.answer(line);
    if (said !== undefined) answers += `${JSON.stringify(said)}\n`;
  };
  const lines = new LineCutter(MAX_HCALL_LINE);
  try {
    process.stdin.setEncoding('utf8');
    for await (const chunk of process.stdin as AsyncIterable<string>) {
      for (const line of lines.push(chunk)) {
        answer(line);
        if (answers.length > PIECE) await flush();
      }
      // Who waits for an answer before the next question gets it.
      await flush();
    }
    for (const line of lines.end()) answer(line);
    await flush();
  } catch (error) {
    if (interrupt.isRequested) return;
    const { code, syscall } = error as NodeJS.ErrnoException;
    if (syscall !== 'read') throw error;
    throw new InputError(
      `expected requests on standard input, which cannot be read (${code})`,
      error,
    );
  }
}
