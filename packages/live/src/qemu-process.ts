import { type ChildProcess, spawn } from 'node:child_process';
import { constants as fsConstants, fstatSync, ftruncateSync, readSync, writeSync } from 'node:fs';
import type { Socket } from 'node:net';
import { constants as osConstants } from 'node:os';
import { LiveError } from './errors.js';
import { closeAll, openNameless } from './nameless-file.js';
import { parseReport, SUPERVISOR, SupervisorFd } from './supervisor.js';
import { waitUntil } from './wait.js';

/** How much of what QEMU said an error tells. */
const LAST_LINES = 8;
const LAST_BYTES = 4096;
/** A killed process is gone within this, or the system is in trouble. */
const KILL_MS = 5_000;

/** Options of {@link QemuProcess}. */
interface QemuProcessOptions {
  /** The program's path. */
  readonly qemu: string;
  readonly args: readonly string[];
  readonly firmware: Uint8Array;
  /** Size of the guest's memory, in bytes. */
  readonly memory: number;
  /** Bound for each wait. */
  readonly timeoutMs: number;
}

/**
 * A running QEMU, its standard input and output, and its guest's memory as a file; without any name
 * in a file system, and not outliving this process. Everything is synchronous: what Node knows of
 * its child processes it learns in its event loop, so this asks the files instead.
 */
export class QemuProcess {
  /** The guest's memory: offset = guest-physical address. */
  readonly ram: number;
  readonly timeoutMs: number;
  readonly #child: ChildProcess;
  readonly #qmpIn: Socket;
  readonly #report: number;
  readonly #stderr: number;
  readonly #qmpOut: number;
  readonly #fds: number[] = [];
  #failure: LiveError | undefined;
  #pid: number | undefined;
  #isGone = false;

  /** @throws LiveError `E_HOST` when there is no shell, no memory file, no process to be had. */
  constructor({ qemu, args, firmware, memory, timeoutMs }: QemuProcessOptions) {
    this.timeoutMs = timeoutMs;
    const open = (where: 'memory' | 'disk', flags = 0): number => {
      const fd = openNameless(where, flags);
      this.#fds.push(fd);
      return fd;
    };
    try {
      this.ram = open('memory');
      ftruncateSync(this.ram, memory);
      const image = open('memory');
      writeSync(image, firmware);
      this.#report = open('memory');
      this.#stderr = open('disk', fsConstants.O_APPEND);
      this.#qmpOut = open('disk', fsConstants.O_APPEND);
      const { ram } = this;
      this.#child = spawn('/bin/sh', ['-c', SUPERVISOR, 'sh', qemu, ...args], {
        // A session of its own: Ctrl-C in a terminal is for us, and we decide about QEMU.
        detached: true,
        stdio: ['pipe', this.#report, this.#stderr, 'pipe', this.#qmpOut, ram, image],
      });
    } catch (error) {
      closeAll(this.#fds);
      throw error;
    }
    this.#child.on('error', () => {});
    if (this.#child.pid === undefined) {
      // Out of processes or descriptors: then there are no pipes, either.
      closeAll(this.#fds);
      throw new LiveError(
        'E_HOST',
        'expected to be able to start /bin/sh, and cannot: too many processes, or too many open files',
      );
    }
    // Nothing here keeps Node from ending, and what the event loop hears of it comes too late to
    // matter: it is known already, or nobody asked.
    const lifeline = this.#child.stdin as Socket;
    this.#qmpIn = this.#child.stdio[SupervisorFd.QMP_IN] as Socket;
    this.#child.unref();
    for (const pipe of [lifeline, this.#qmpIn]) {
      pipe.on('error', () => {});
      pipe.unref();
    }
  }

  /** QEMU's process id. */
  get pid(): number {
    return this.#pid ?? 0;
  }

  /** Throws what ended this machine, if anything has. A flag: costs nothing. */
  check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /**
   * Waits, blocking the thread, until `isDone` says true.
   * @param what - for people: `the doorbell`, `the answer to query-version`.
   * @throws LiveError `E_QEMU_EXITED`, or `E_QEMU_HANG` after `timeoutMs`: QEMU is killed then.
   */
  waitFor(what: string, isDone: () => boolean): void {
    this.check();
    if (waitUntil(isDone, this.timeoutMs, () => this.#throwIfGone())) return;
    this.#throwIfGone();
    throw this.fail(
      'E_QEMU_HANG',
      `waited ${this.timeoutMs} ms for ${what}, in vain; QEMU was killed`,
      { waitedFor: what, timeoutMs: this.timeoutMs },
    );
  }

  /** Ends the machine for good, kills QEMU, and returns the error that each later call throws. */
  fail(code: LiveError['code'], message: string, details: Record<string, unknown> = {}): LiveError {
    if (this.#failure !== undefined) return this.#failure;
    const stderr = this.#lastWords();
    const said = stderr.length > 0 ? `; QEMU said:\n${stderr.join('\n')}` : '';
    this.#failure = new LiveError(code, message + said, { details: { ...details, stderr } });
    this.#end();
    return this.#failure;
  }

  /** Sends bytes to QEMU's standard input. Node hands what fits a pipe's buffer over at once. */
  send(text: string): void {
    this.check();
    this.#qmpIn.write(text);
  }

  /** What QEMU wrote to its standard output from byte `from` on; empty when there is nothing yet. */
  receive(from: number): Buffer {
    return readAll(this.#qmpOut, from);
  }

  /** Sends `farewell`, gives QEMU `ms` to end by itself, and closes. */
  quit(farewell: string, ms: number): void {
    if (this.#failure === undefined) {
      this.send(farewell);
      waitUntil(() => this.#looksGone(), Math.min(ms, this.timeoutMs));
    }
    this.close();
  }

  /** Ends QEMU if it runs, and gives back all that it took. Idempotent. */
  close(): void {
    this.#failure ??= new LiveError('E_CLOSED', 'expected a running machine, found one closed');
    this.#end();
  }

  /** The last lines of what QEMU wrote to its standard error. */
  #lastWords(): string[] {
    const from = Math.max(0, fstatSync(this.#stderr).size - LAST_BYTES);
    const lines = readAll(this.#stderr, from).toString().split('\n');
    return lines.filter((line) => line !== '').slice(-LAST_LINES);
  }

  #throwIfGone(): void {
    if (!this.#looksGone()) return;
    const exit = parseReport(readAll(this.#report, 0).toString()).exit as number;
    const signal = exit > 128 ? signalName(exit - 128) : undefined;
    const how = signal === undefined ? `with exit code ${exit}` : `by ${signal}`;
    const details = signal === undefined ? { exitCode: exit } : { signal };
    throw this.fail('E_QEMU_EXITED', `expected a running QEMU, but it ended ${how}`, details);
  }

  #looksGone(): boolean {
    if (this.#isGone) return true;
    const { pid, exit } = parseReport(readAll(this.#report, 0).toString());
    this.#pid ??= pid;
    this.#isGone = exit !== undefined;
    return this.#isGone;
  }

  #end(): void {
    if (this.#fds.length === 0) return;
    if (!this.#looksGone() && this.#pid !== undefined) {
      try {
        process.kill(this.#pid, 'SIGKILL');
      } catch {}
      waitUntil(() => this.#looksGone(), KILL_MS);
    }
    this.#child.stdin?.destroy();
    this.#qmpIn.destroy();
    closeAll(this.#fds.splice(0));
  }
}

function signalName(number: number): string {
  const names = Object.entries(osConstants.signals);
  return names.find(([, value]) => value === number)?.[0] ?? `signal ${number}`;
}

function readAll(fd: number, from: number): Buffer {
  const pieces: Buffer[] = [];
  for (let at = from; ; ) {
    const piece = Buffer.allocUnsafe(4096);
    const length = readSync(fd, piece, 0, piece.length, at);
    pieces.push(piece.subarray(0, length));
    at += length;
    if (length < piece.length) return Buffer.concat(pieces);
  }
}
