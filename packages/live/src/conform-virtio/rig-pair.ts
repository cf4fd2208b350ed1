import { hex } from '@pinhole/base';
import type { NamedRequest } from './requests.js';
import type { RawOutcome, VirtioRig } from './rig.js';
import { DISK_SIZE, type VirtioShape } from './shapes.js';
import type { VirtioSide } from './sides.js';

/** How long a real device may take for what the model's did; and to show that it does nothing. */
const DONE_MS = 10_000;
const NOTHING_MS = 100;
/** What is read of the device configuration. */
const CONFIG_BYTES = 64;

/** Where two sides part. */
export interface Difference {
  readonly what: string;
  readonly model: string;
  readonly reference: string;
}

/** One device on both sides. */
export interface PairMember {
  readonly shape: VirtioShape;
  readonly model: VirtioRig;
  readonly reference: VirtioRig;
}

/** What a batch came to. */
export interface RunResult {
  /** Requests that came back, or never will, as the model has them. */
  readonly ended: readonly { readonly name: string; readonly outcome: RawOutcome }[];
  readonly difference: Difference | undefined;
}

interface Pending {
  readonly name: string;
  readonly model: RawOutcome;
  readonly reference: RawOutcome;
}

/** The same devices on both sides: one, or the two of a network. */
export class RigPair {
  /** Requests so far. */
  requests = 0;
  /** A device needs a reset, or has a request that it will never answer. */
  isBroken = false;
  readonly #members: readonly PairMember[];
  readonly #sides: readonly [VirtioSide, VirtioSide];
  /** Buffers that wait for a frame. */
  #pending: Pending[] = [];

  constructor(members: readonly PairMember[], sides: readonly [VirtioSide, VirtioSide]) {
    this.#members = members;
    this.#sides = sides;
  }

  /** The model first: it knows whether there is anything to wait for. */
  run(batch: readonly NamedRequest[]): RunResult {
    this.requests += batch.length;
    const ours = this.#submit(batch, 'model');
    const left = this.#collect('model');
    const theirs = this.#submit(batch, 'reference');
    const [, side] = this.#sides;
    side.wait(() => this.#collect('reference') <= left, DONE_MS);
    const isNetwork = this.#members.length > 1;
    // What the model left alone, the real device must leave alone, too; frames come before their
    // sender has its buffer back.
    if (left > 0 && !isNetwork) side.wait(() => this.#collect('reference') < left, NOTHING_MS);
    for (const { model, reference } of this.#members) {
      reference.transport.pollInterrupt();
      if (model.needsReset || (left > 0 && !isNetwork)) this.isBroken = true;
      if (isNetwork) continue;
      model.giveUp();
      reference.giveUp();
    }
    for (const [i, { name }] of batch.entries()) {
      const [model, reference] = [ours[i], theirs[i]];
      if (model && reference) this.#pending.push({ name, model, reference });
    }
    return this.#comparePending(isNetwork);
  }

  compareStatus(): Difference | undefined {
    for (const { model, reference } of this.#members) {
      const [ours, theirs] = [model, reference].map((rig) => hex(rig.transport.readStatus()));
      if (ours !== theirs) return { what: 'status', model: ours ?? '', reference: theirs ?? '' };
    }
    return undefined;
  }

  /** Features, configuration, status, sizes of queues. */
  compareDevices(): Difference | undefined {
    for (const { model, reference } of this.#members) {
      const [ours, theirs] = [lookAt(model), lookAt(reference)];
      for (const what of ['features', 'status', 'config', 'queues'] as const) {
        if (ours[what] !== theirs[what]) {
          return { what, model: ours[what], reference: theirs[what] };
        }
      }
    }
    return undefined;
  }

  compareDisks(): Difference | undefined {
    for (const { shape } of this.#members) {
      if (shape.type !== 'blk') continue;
      const [ours, theirs] = this.#sides.map((side) => side.disk(shape));
      const at = firstDifference(ours ?? new Uint8Array(0), theirs ?? new Uint8Array(0));
      if (at < 0) continue;
      const show = (bytes: Uint8Array | undefined): string =>
        `byte ${at} of ${DISK_SIZE}: ${dump(bytes?.slice(at, at + 16) ?? new Uint8Array(0))}`;
      return { what: 'disk', model: show(ours), reference: show(theirs) };
    }
    return undefined;
  }

  close(): void {
    for (const { model, reference } of this.#members) {
      model.close();
      reference.close();
    }
  }

  // All buffers, then a kick for each queue that got one, in that order.
  #submit(batch: readonly NamedRequest[], side: 'model' | 'reference'): RawOutcome[] {
    const kicks = new Set<string>();
    const outcomes = batch.map((request) => {
      const member = request.member ?? 0;
      kicks.add(`${member} ${request.queue}`);
      return this.#rig(member, side).submit(request);
    });
    for (const kick of kicks) {
      const [member = 0, queue = 0] = kick.split(' ').map(Number);
      this.#rig(member, side).kick(queue);
    }
    return outcomes;
  }

  #collect(side: 'model' | 'reference'): number {
    return this.#members.reduce((left, member) => left + member[side].collect(), 0);
  }

  #rig(member: number, side: 'model' | 'reference'): VirtioRig {
    const found = this.#members[member];
    if (found === undefined) throw new Error(`no device ${member} in this pair`);
    return found[side];
  }

  // Buffers of a network that no side used stay.
  #comparePending(isNetwork: boolean): RunResult {
    const isOpen = ({ model, reference }: Pending): boolean =>
      isNetwork && model.used === undefined && reference.used === undefined;
    const ended = this.#pending.filter((one) => !isOpen(one));
    this.#pending = this.#pending.filter(isOpen);
    const differences = ended.map(compareOutcomes);
    return {
      ended: ended.map(({ name, model }) => ({ name, outcome: model })),
      difference: differences.find((difference) => difference !== undefined),
    };
  }
}

function lookAt({
  transport,
  queues,
}: VirtioRig): Record<'features' | 'status' | 'config' | 'queues', string> {
  const bytes = new Uint8Array(CONFIG_BYTES);
  for (let at = 0; at < CONFIG_BYTES; at += 4) {
    transport.readConfig(at, bytes.subarray(at, at + 4));
  }
  return {
    features: hex(transport.readDeviceFeatures()),
    status: hex(transport.readStatus()),
    config: dump(bytes),
    queues: queues.map(({ size }) => size).join(', '),
  };
}

function compareOutcomes({ name, model, reference }: Pending): Difference | undefined {
  if (model.used !== reference.used) {
    const show = (used: number | undefined): string =>
      `${name}: ${used === undefined ? 'no answer' : `used, ${used} bytes`}`;
    return { what: 'outcome', model: show(model.used), reference: show(reference.used) };
  }
  for (const [piece, bytes] of model.inn.entries()) {
    const found = reference.inn[piece] ?? new Uint8Array(0);
    const at = firstDifference(bytes, found);
    if (at < 0) continue;
    const show = (of: Uint8Array): string =>
      `${name}: written piece ${piece} from byte ${at}: ${dump(of.slice(at, at + 16))}`;
    return { what: 'outcome', model: show(bytes), reference: show(found) };
  }
  return undefined;
}

function firstDifference(a: Uint8Array, b: Uint8Array): number {
  if (a.length !== b.length) return Math.min(a.length, b.length);
  return a.findIndex((byte, i) => byte !== b[i]);
}

/** One line for people. */
export function describeRequest({ name, out, inn, faults }: NamedRequest): string {
  const reads = out.map((bytes) => bytes.length).join('+') || '0';
  const writes = inn.join('+') || '0';
  const head = out[0] === undefined ? '' : `, header ${dump(out[0].slice(0, 16))}`;
  const spoilt = (faults ?? []).map(({ piece, how }) => `, piece ${piece} ${how}`).join('');
  return `${name}: reads ${reads}, writes ${writes} bytes${head}${spoilt}`;
}

function dump(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
}
