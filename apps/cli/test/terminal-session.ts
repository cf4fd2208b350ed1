import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';

/** Whether a program can be started. */
export const isInstalled = (program: string): boolean =>
  spawnSync(program, ['--version'], { stdio: 'ignore' }).error === undefined;

/** A program at a terminal, as util-linux's `script` makes one: typed to, and read. */
export class TerminalSession {
  readonly #process: ChildProcessWithoutNullStreams;
  #output = '';
  #wake = (): void => {};

  constructor(command: string, cwd: string, env: NodeJS.ProcessEnv) {
    this.#process = spawn('script', ['-qec', command, '/dev/null'], {
      cwd,
      env: { ...process.env, TERM: 'dumb', ...env },
    });
    this.#process.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#output += text;
      this.#wake();
    });
  }

  /** Types `keys` and waits until `pattern` shows after that. @returns what it matched */
  async type(keys: string, pattern: RegExp): Promise<RegExpMatchArray> {
    this.#output = '';
    this.#process.stdin.write(keys);
    const end = Date.now() + 20_000;
    for (;;) {
      const found = this.#output.match(pattern);
      if (found !== null) return found;
      if (Date.now() > end) throw new Error(`waited for ${pattern}, got ${this.#output}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, 500);
      });
    }
  }

  close(): void {
    this.#process.kill('SIGKILL');
  }
}
