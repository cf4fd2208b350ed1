import { LiveError } from './errors.js';
import type { QemuProcess } from './qemu-process.js';

/** The version that a QMP greeting names. [qemu v7.2 qapi/control.json VersionInfo] */
interface VersionInfo {
  readonly qemu: { readonly major: number; readonly minor: number; readonly micro: number };
}

interface Message {
  readonly QMP?: { readonly version: VersionInfo };
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
}

/**
 * QEMU's machine protocol over its standard input and output, one command at a time. Events are
 * skipped. [qemu v7.2 docs/interop/qmp-spec.txt]
 */
export class Qmp {
  readonly #process: QemuProcess;
  #position = 0;
  #lastId = 0;

  constructor(process: QemuProcess) {
    this.#process = process;
  }

  /** Waits for the greeting and ends the negotiation of capabilities. Returns QEMU's version. */
  start(): readonly [number, number, number] {
    const greeting = this.#next("QEMU's QMP greeting", ({ QMP }) => QMP !== undefined);
    const { major, minor, micro } = (greeting.QMP as { version: VersionInfo }).version.qemu;
    this.execute('qmp_capabilities');
    return [major, minor, micro];
  }

  /**
   * Carries out a command and returns what it returns.
   * @throws LiveError `E_QMP` when QEMU refuses it.
   */
  execute(command: string, args?: Readonly<Record<string, unknown>>): unknown {
    const id = ++this.#lastId;
    this.#process.send(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    const answer = this.#next(`the answer to the QMP command ${command}`, (m) => m.id === id);
    if (answer.error === undefined) return answer.return;
    throw new LiveError('E_QMP', `QEMU refused ${command}: ${answer.error.desc}`, {
      details: { command, class: answer.error.class },
    });
  }

  /** The next message for which `isIt` says true; those before it are dropped. */
  #next(what: string, isIt: (message: Message) => boolean): Message {
    let found: Message | undefined;
    this.#process.waitFor(what, () => {
      const bytes = this.#process.receive(this.#position);
      for (let start = 0; found === undefined; ) {
        const end = bytes.indexOf('\n', start);
        if (end < 0) break;
        const message = parseMessage(bytes.toString('utf8', start, end));
        this.#position += end + 1 - start;
        start = end + 1;
        if (isIt(message)) found = message;
      }
      return found !== undefined;
    });
    return found as unknown as Message;
  }
}

/** What is no message (a program that is not QEMU, a device on standard output) is skipped. */
function parseMessage(line: string): Message {
  try {
    const message: unknown = JSON.parse(line);
    return typeof message === 'object' && message !== null ? message : {};
  } catch {
    return {};
  }
}
