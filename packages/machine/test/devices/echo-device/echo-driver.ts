/** The driver: asks, and waits for the answer. */
import {
  type DriverContext,
  InterruptWork,
  openDevice,
  takeUsed,
  type VirtioDriverOptions,
} from '@pinhole/guest';
import { type DriverQueue, featureBits, type Segment } from '@pinhole/virtio';
import { decodeEchoConfig, ECHO_CONFIG_LOUD, ECHO_F_LOUD, echoConfigParts } from './echo-format.js';

interface Request {
  readonly answer: Segment;
  /** Absent until the device answered. */
  bytes?: Uint8Array;
}

export type EchoProbeResult =
  | { readonly ok: true; readonly driver: EchoDriver }
  | { readonly ok: false; readonly message: string };

export function probeEcho(options: VirtioDriverOptions): EchoProbeResult {
  const opened = openDevice(options, featureBits(ECHO_F_LOUD));
  if (!opened.ok) return opened;
  const { context } = opened;
  const queue = context.openQueue<Request>(0);
  if (typeof queue === 'string') return context.abandon(queue);
  return { ok: true, driver: new EchoDriver(context, queue) };
}

export class EchoDriver {
  readonly maxLength: number;
  readonly #context: DriverContext;
  readonly #queue: DriverQueue<Request>;

  constructor(context: DriverContext, queue: DriverQueue<Request>) {
    this.#context = context;
    this.#queue = queue;
    const config = context.readConfig(echoConfigParts(context.features));
    this.maxLength = decodeEchoConfig(config).maxLength;
    const { memory } = context.options;
    const work = new InterruptWork(() => {
      takeUsed(queue, (request, length) => {
        // The length is the device's word.
        request.bytes = new Uint8Array(Math.min(length, request.answer.length));
        memory.read(request.answer.gpa, request.bytes);
      });
    });
    context.start({ queue: () => work.run() });
  }

  setLoud(isLoud: boolean): void {
    const { transport } = this.#context.options;
    transport.writeConfig(ECHO_CONFIG_LOUD, Uint8Array.of(isLoud ? 1 : 0));
  }

  /** The answer; undefined: there was none. */
  ask(text: string): string | undefined {
    const { memory, pages } = this.#context.options;
    const message = Uint8Array.from(text, (char) => char.charCodeAt(0));
    const { length } = message;
    const gpa = pages.alloc(2 * length);
    if (gpa === undefined) return undefined;
    memory.write(gpa, message);
    const request: Request = { answer: { gpa: gpa + length, length } };
    if (this.#queue.add([{ gpa, length }], [request.answer], request) !== 'ok') return undefined;
    this.#queue.kick();
    if (!this.#context.waitUntil(() => request.bytes !== undefined)) return undefined;
    pages.free(gpa, 2 * length);
    return String.fromCharCode(...(request.bytes ?? []));
  }

  remove(): void {
    this.#context.close(() => {});
  }
}
