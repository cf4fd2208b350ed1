import { createRng, hex, type Rng } from '@pinhole/base';
import type { Accident } from '../conform/accidents.js';
import { deathOf } from '../conform/finding.js';
import { compareFaults, describeFault, type FaultComparison } from './faults.js';
import { type NamedRequest, RequestGenerator } from './requests.js';
import { type RawOutcome, UNWRITTEN, type VirtioRig } from './rig.js';
import { DISK_SIZE, shapeName, type VirtioShape } from './shapes.js';
import { SideGuest, type VirtioSide } from './sides.js';

/** Requests to one device before the next one has its turn. */
const EPISODE = 60;
/** How long a real device may take for what the model's did; and to show that it does nothing. */
const DONE_MS = 10_000;
const NOTHING_MS = 100;
/** A campaign ends with so many differences. */
const MAX_FINDINGS = 3;
/** What is read of the device configuration. */
const CONFIG_BYTES = 64;

/** Where model and device part. */
export interface VirtioFinding {
  /** The device, as `shapeName` has it. */
  readonly device: string;
  readonly seed: number;
  /** How many requests the device had had since it was started. */
  readonly request: number;
  /** What differs: `outcome`, `status`, `config`, `features`, `disk`, `fault`; or `exit`, `hang`. */
  readonly what: string;
  /** The requests that were in flight. */
  readonly requests: readonly string[];
  readonly model: string;
  readonly reference: string;
}

/** How often a kind of request ended in a way. */
export interface VirtioCoverageRow {
  readonly request: string;
  /** `status 0`, `no answer`, `device needs reset`. */
  readonly outcome: string;
  readonly count: number;
}

/** How a campaign stands. */
export interface VirtioCampaignResult {
  readonly seed: number;
  /** Requests whose bytes, used lengths and status were compared. */
  readonly requests: number;
  /** Bytes that devices wrote or could have written, compared. */
  readonly bytes: number;
  /** Devices that were brought up, by name; each may have been several times. */
  readonly devices: readonly string[];
  readonly coverage: readonly VirtioCoverageRow[];
  /** The table of faults, for every disk behind the pinhole. */
  readonly faults: readonly (FaultComparison & { readonly device: string })[];
  readonly findings: readonly VirtioFinding[];
}

/** Options of {@link VirtioCampaign}. */
export interface VirtioCampaignOptions {
  readonly seed: number;
  /** How many requests. */
  readonly count: number;
  readonly shapes: readonly VirtioShape[];
  readonly model: VirtioSide;
  readonly reference: VirtioSide;
  /** Names of accidents that are provoked after all. */
  readonly include?: readonly string[];
}

/**
 * What a real QEMU does not survive, and is left out for: an error of the driver on a packed ring.
 * `virtio_queue_packed_empty` does not look whether the device is broken, as its sibling for split
 * rings does, so that virtio-blk goes round for ever, with QEMU's lock held.
 * [qemu v7.2 hw/virtio/virtio.c virtio_queue_packed_empty, hw/block/virtio-blk.c virtio_blk_handle_vq]
 */
export const PACKED_ERROR: Pick<Accident, 'name' | 'what'> = {
  name: 'packed-ring-error',
  what: 'a faulty request on a packed ring: QEMU 7.2 hangs, the model needs a reset',
};

/**
 * The same random requests to the model's devices and to real ones; both guests are the same code.
 * What the devices wrote, used lengths, status bytes, features, configuration, device status and
 * disks must be equal.
 */
export class VirtioCampaign {
  readonly #options: VirtioCampaignOptions;
  readonly #rng: Rng;
  readonly #coverage = new Map<string, number>();
  readonly #devices = new Set<string>();
  readonly #findings: VirtioFinding[] = [];
  readonly #faults: (FaultComparison & { readonly device: string })[] = [];
  #requests = 0;
  #bytes = 0;
  #isEnded = false;

  constructor(options: VirtioCampaignOptions) {
    this.#options = options;
    this.#rng = createRng(options.seed);
  }

  get result(): VirtioCampaignResult {
    const coverage = [...this.#coverage].map(([key, count]) => {
      const [request = '', outcome = ''] = key.split('\t');
      return { request, outcome, count };
    });
    return {
      seed: this.#options.seed,
      requests: this.#requests,
      bytes: this.#bytes,
      devices: [...this.#devices],
      coverage: coverage.sort((a, b) => a.request.localeCompare(b.request)),
      faults: this.#faults,
      findings: this.#findings,
    };
  }

  /** Does the campaign in steps of milliseconds, so that the caller can do something in between. */
  *run(): Generator<void, VirtioCampaignResult> {
    const { shapes, seed, model, reference } = this.#options;
    const guests = [new SideGuest(model, seed), new SideGuest(reference, seed)] as const;
    for (const shape of shapes) yield* this.#compareFaults(shape, guests);
    for (let episode = 0; !this.#isDone; episode += 1) {
      const shape = shapes[episode % shapes.length];
      if (shape === undefined) break;
      yield* this.#episode(shape, guests);
    }
    return this.result;
  }

  get #isDone(): boolean {
    const { length } = this.#findings;
    return this.#isEnded || this.#requests >= this.#options.count || length >= MAX_FINDINGS;
  }

  *#compareFaults(
    shape: VirtioShape,
    [model, reference]: readonly [SideGuest, SideGuest],
  ): Generator<void> {
    if (shape.type !== 'blk' || !shape.iommuPlatform || shape.bridge === 0) return;
    const device = shapeName(shape);
    for (const comparison of compareFaults(shape, model, reference)) {
      this.#faults.push({ ...comparison, device });
      if (!comparison.isEqual) {
        this.#findings.push({
          device,
          seed: this.#options.seed,
          request: 0,
          what: 'fault',
          requests: [`a read of 4 KiB, not mapped: ${comparison.row.what}`],
          model: describeFault(comparison.model),
          reference: describeFault(comparison.reference),
        });
      }
      yield;
    }
  }

  *#episode(shape: VirtioShape, guests: readonly [SideGuest, SideGuest]): Generator<void> {
    this.#devices.add(shapeName(shape));
    const rigs = [guests[0].start(shape), guests[1].start(shape)] as const;
    const pair = new RigPair(shape, rigs, [this.#options.model, this.#options.reference]);
    const canBreak = !shape.packed || this.#options.include?.includes(PACKED_ERROR.name) === true;
    const generator = new RequestGenerator(createRng(this.#rng.nextU32()), shape, canBreak);
    let finding = pair.compareDevice();
    for (let done = 0; done < EPISODE && !this.#isDone && finding === undefined; ) {
      yield;
      const batch = generator.batch();
      const outcomes = this.#run(pair, batch);
      done += batch.length;
      this.#requests += batch.length;
      finding = outcomes.finding ?? pair.compareStatus();
      if (!this.#isEnded) this.#count(batch, outcomes.model, pair.isBroken);
      if (finding !== undefined) finding = { ...finding, requests: batch.map(describe) };
      if (pair.isBroken) break;
    }
    finding ??= pair.compareDevice() ?? pair.compareDisks();
    if (!this.#isEnded) for (const rig of rigs) rig.close();
    if (finding === undefined) return;
    this.#findings.push({
      device: shapeName(shape),
      seed: this.#options.seed,
      request: pair.requests,
      requests: [],
      ...finding,
    });
  }

  /** A device that its machine does not survive is a finding, and the end. */
  #run(pair: RigPair, batch: readonly NamedRequest[]): ReturnType<RigPair['run']> {
    try {
      return pair.run(batch);
    } catch (error) {
      const death = deathOf(error);
      if (death === undefined) throw error;
      this.#isEnded = true;
      const finding = { what: death, model: 'goes on', reference: (error as Error).message };
      return { model: [], finding };
    }
  }

  #count(batch: readonly NamedRequest[], outcomes: readonly RawOutcome[], isBroken: boolean): void {
    for (const [i, { name }] of batch.entries()) {
      const outcome = outcomes[i];
      for (const bytes of outcome?.inn ?? []) this.#bytes += bytes.length;
      const how = outcomeName(outcome, name, isBroken);
      const key = `${name}\t${how}`;
      this.#coverage.set(key, (this.#coverage.get(key) ?? 0) + 1);
    }
  }
}

const STATUS_NAMES = ['VIRTIO_BLK_S_OK', 'VIRTIO_BLK_S_IOERR', 'VIRTIO_BLK_S_UNSUPP'];

function outcomeName(outcome: RawOutcome | undefined, name: string, isBroken: boolean): string {
  if (outcome?.used === undefined) return isBroken ? 'device needs reset' : 'no answer';
  if (!isBlockRequest(name)) return 'used';
  const status = outcome.inn.at(-1)?.at(-1);
  if (status === UNWRITTEN || status === undefined) return 'used, status byte unwritten';
  return STATUS_NAMES[status] ?? `status ${status}`;
}

const isBlockRequest = (name: string): boolean => name !== 'entropy' && name !== 'frame';

type Difference = Pick<VirtioFinding, 'what' | 'model' | 'reference'> & {
  readonly requests?: readonly string[];
};

/** The same device on both sides. */
class RigPair {
  /** Requests so far. */
  requests = 0;
  isBroken = false;
  readonly #shape: VirtioShape;
  readonly #rigs: readonly [VirtioRig, VirtioRig];
  readonly #sides: readonly [VirtioSide, VirtioSide];

  constructor(
    shape: VirtioShape,
    rigs: readonly [VirtioRig, VirtioRig],
    sides: readonly [VirtioSide, VirtioSide],
  ) {
    this.#shape = shape;
    this.#rigs = rigs;
    this.#sides = sides;
  }

  /** The model first: it knows whether there is anything to wait for. */
  run(batch: readonly NamedRequest[]): { model: RawOutcome[]; finding: Difference | undefined } {
    const [model, reference] = this.#rigs;
    this.requests += batch.length;
    const submit = (rig: VirtioRig): RawOutcome[] => batch.map((request) => rig.submit(request));
    const ours = submit(model);
    model.kick(0);
    let left = 0;
    this.#sides[0].wait(() => {
      left = model.collect();
      return left === 0;
    }, 0);
    model.giveUp();
    const theirs = submit(reference);
    reference.kick(0);
    const isDone = (): boolean => reference.collect() <= left;
    this.#sides[1].wait(isDone, DONE_MS);
    // What the model left alone, the real device must leave alone, too.
    if (left > 0) this.#sides[1].wait(() => reference.collect() < left, NOTHING_MS);
    reference.giveUp();
    reference.transport.pollInterrupt();
    this.isBroken = model.needsReset || left > 0;
    return { model: ours, finding: compareOutcomes(ours, theirs) };
  }

  compareStatus(): Difference | undefined {
    const [model = '', reference = ''] = this.#rigs.map(({ transport }) => {
      return hex(transport.readStatus());
    });
    return model === reference ? undefined : { what: 'status', model, reference };
  }

  /** Features, configuration and status. */
  compareDevice(): Difference | undefined {
    const [model, reference] = this.#rigs.map((rig) => {
      const { transport } = rig;
      const bytes = new Uint8Array(CONFIG_BYTES);
      for (let at = 0; at < CONFIG_BYTES; at += 4) {
        transport.readConfig(at, bytes.subarray(at, at + 4));
      }
      return {
        features: hex(transport.readDeviceFeatures()),
        status: hex(transport.readStatus()),
        config: dump(bytes),
        queues: rig.queues.map(({ size }) => size).join(', '),
      };
    });
    for (const what of ['features', 'status', 'config', 'queues'] as const) {
      const [ours = '', theirs = ''] = [model?.[what], reference?.[what]];
      if (ours !== theirs) return { what, model: ours, reference: theirs };
    }
    return undefined;
  }

  compareDisks(): Difference | undefined {
    if (this.#shape.type !== 'blk') return undefined;
    const [ours, theirs] = this.#sides.map((side) => side.disk(this.#shape));
    const at = firstDifference(ours ?? new Uint8Array(0), theirs ?? new Uint8Array(0));
    if (at < 0) return undefined;
    const show = (bytes: Uint8Array | undefined): string =>
      `byte ${at} of ${DISK_SIZE}: ${dump(bytes?.slice(at, at + 16) ?? new Uint8Array(0))}`;
    return { what: 'disk', model: show(ours), reference: show(theirs) };
  }
}

function compareOutcomes(
  ours: readonly RawOutcome[],
  theirs: readonly RawOutcome[],
): Difference | undefined {
  for (const [i, model] of ours.entries()) {
    const reference = theirs[i];
    const which = ours.length > 1 ? `request ${i} of ${ours.length}: ` : '';
    if (model.used !== reference?.used) {
      const show = (used: number | undefined): string =>
        which + (used === undefined ? 'no answer' : `used, ${used} bytes`);
      return { what: 'outcome', model: show(model.used), reference: show(reference?.used) };
    }
    for (const [piece, bytes] of model.inn.entries()) {
      const found = reference?.inn[piece] ?? new Uint8Array(0);
      const at = firstDifference(bytes, found);
      if (at < 0) continue;
      const show = (of: Uint8Array): string =>
        `${which}written piece ${piece} from byte ${at}: ${dump(of.slice(at, at + 16))}`;
      return { what: 'outcome', model: show(bytes), reference: show(found) };
    }
  }
  return undefined;
}

function firstDifference(a: Uint8Array, b: Uint8Array): number {
  if (a.length !== b.length) return Math.min(a.length, b.length);
  return a.findIndex((byte, i) => byte !== b[i]);
}

function describe({ name, out, inn, faults }: NamedRequest): string {
  const reads = out.map((bytes) => bytes.length).join('+') || '0';
  const writes = inn.join('+') || '0';
  const head = out[0] === undefined ? '' : `, header ${dump(out[0].slice(0, 16))}`;
  const spoilt = (faults ?? []).map(({ piece, how }) => `, piece ${piece} ${how}`).join('');
  return `${name}: reads ${reads}, writes ${writes} bytes${head}${spoilt}`;
}

function dump(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
}
