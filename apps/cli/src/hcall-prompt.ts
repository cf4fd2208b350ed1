import { createInterface } from 'node:readline';
import type { HcallSession } from '@pinhole/machine';
import { interrupt } from './exit.js';
import { describeAnswer, describeWindows } from './hcall-describe.js';
import { complete, helpText, noteOnCounts, wordsToRequest } from './hcall-words.js';
import { terminalWidth } from './terminal.js';
import { wrap } from './terminal-text.js';

/** The same session for a person: words or JSON, history, completion, answers with names. */
export async function prompt(session: HcallSession): Promise<void> {
  const terminal = createInterface({
    input: process.stdin,
    output: process.stdout,
    prompt: 'hcall> ',
    historySize: 1000,
    removeHistoryDuplicates: true,
    completer: complete,
  });
  terminal.on('SIGINT', () => {
    // As in a shell: a line that was begun is given up; with none, the program is.
    if (terminal.line === '') {
      interrupt.isRequested = true;
      terminal.close();
    } else {
      terminal.write(null, { ctrl: true, name: 'e' });
      terminal.write(null, { ctrl: true, name: 'u' });
    }
  });
  say('The hypercalls of a pseries machine. Type help; Tab completes, arrows go back.');
  terminal.prompt();
  let hasQuit = false;
  for await (const line of terminal) {
    const text = line.trim();
    hasQuit = text === 'quit' || text === 'exit';
    if (hasQuit) break;
    if (text !== '') say(respond(session, text, terminalWidth()));
    terminal.prompt();
  }
  terminal.close();
  // The shell's prompt does not stand behind ours.
  if (!hasQuit) process.stdout.write('\n');
}

function say(text: string): void {
  const width = terminalWidth();
  const lines = text.split('\n').flatMap((line) => {
    const indent = /^ */.exec(line)?.[0] ?? '';
    // What fits stays as it is, with its columns; JSON is to be copied.
    if (line.length <= width || line.startsWith('{')) return [line];
    return wrap(line, width, `${indent}  `, indent);
  });
  process.stdout.write(`${lines.join('\n')}\n`);
}

/** What the prompt answers to a line that is not blank; without the last line feed. */
export function respond(session: HcallSession, text: string, width: number): string {
  const [first = '', topic, ...more] = text.split(/\s+/);
  if ((first === 'help' || first === '?') && more.length === 0) return helpText(topic);
  if (text === 'windows') return describeWindows(session.machine.iommu);
  if (text.startsWith('{')) return ask(session, text, width);
  const request = wordsToRequest(text);
  return typeof request === 'string' ? request : ask(session, JSON.stringify(request), width);
}

function ask(session: HcallSession, json: string, width: number): string {
  const answer = session.answer(json);
  if (answer === undefined) return '';
  if ('error' in answer) return (answer.error as { message: string }).message;
  const request = JSON.parse(json) as Record<string, unknown>;
  const note = noteOnCounts(request);
  return [describeAnswer(answer, request, width), ...(note === undefined ? [] : [note])].join('\n');
}
