import { ModelError } from '@pinhole/base';
import { CommanderError } from 'commander';
import { plain } from './terminal-text.js';

/** Exit codes. Documented in the README. */
export const EXIT = { OK: 0, FAILED: 1, INPUT: 2, BUG: 70, INTERRUPTED: 130 } as const;

/** What each of them says. */
export const EXIT_MEANINGS: readonly (readonly [code: number, meaning: string])[] = [
  [EXIT.OK, 'ok'],
  [EXIT.FAILED, 'an expectation failed or an error was found'],
  [EXIT.INPUT, 'bad usage or input'],
  [EXIT.BUG, 'a bug in pinhole'],
  [EXIT.INTERRUPTED, 'interrupted'],
];

/** A mistake in the input that the command found itself. */
export class InputError extends ModelError<'E_INPUT'> {
  constructor(message: string, cause?: unknown) {
    super('E_INPUT', message, cause === undefined ? {} : { cause });
    this.name = 'InputError';
  }
}

/** Set by Ctrl-C. Long work looks at it between steps, and shows what it has. */
export const interrupt = { isRequested: false };

/** Runs a command and turns whatever happens into an exit code and a message. */
export async function runToExit(command: () => Promise<unknown>): Promise<void> {
  // Nobody reads on: nothing is left to say, and that is no error.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (isUnread(error)) process.exit(EXIT.OK);
    process.stderr.write(
      `pinhole: the output cannot be written (${error.code ?? error.message})\n`,
    );
    process.exit(EXIT.INPUT);
  });
  process.stderr.on('error', (error) => {
    if (isUnread(error)) process.exit(EXIT.OK);
  });
  process.on('SIGINT', () => {
    // The second time means now.
    if (interrupt.isRequested) process.exit(EXIT.INTERRUPTED);
    interrupt.isRequested = true;
  });
  try {
    await command();
    if (interrupt.isRequested) process.exitCode = EXIT.INTERRUPTED;
  } catch (error) {
    process.exitCode = report(error);
  }
}

function isUnread(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.code === 'EPIPE';
}

function report(error: unknown): number {
  // Commander has said it already.
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.OK : EXIT.INPUT;
  // A trace goes to standard error, too.
  if (error instanceof InputError && isUnread(error.cause)) return EXIT.OK;
  if (error instanceof ModelError) {
    // What a message quotes of a file must not steer the terminal.
    const lines = error.message.split('\n').map(plain);
    process.stderr.write(`pinhole: ${lines.join('\n')}\n`);
    return EXIT.INPUT;
  }
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(
    `pinhole: internal error: ${message}\nThis is a bug in Pinhole: please report it with the command that led to it.\n`,
  );
  return EXIT.BUG;
}
