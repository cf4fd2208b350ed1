import { createRng, type Rng } from '@pinhole/base';
import { featureBit, VIRTIO_NET_F_MRG_RXBUF } from '@pinhole/virtio';
import type { Accident } from '../conform/accidents.js';
import { deathOf } from '../conform/finding.js';
import { compareFaults, describeFault, type FaultComparison } from './faults.js';
import { FrameGenerator, networkOf } from './frames.js';
import { type NamedRequest, RequestGenerator } from './requests.js';
import { type RawOutcome, UNWRITTEN } from './rig.js';
import { describeRequest, RigPair, type RunResult } from './rig-pair.js';
import { shapeName, type VirtioShape } from './shapes.js';
import { SideGuest, type VirtioSide } from './sides.js';

/** Requests to one device before the next one has its turn. */
const EPISODE = 60;
/** A campaign ends with so many differences. */
const MAX_FINDINGS = 3;

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
    const [model, reference] = guests;
    const shapes = shape.type === 'net' ? networkOf(shape, this.#options.shapes) : [shape];
    const rng = createRng(this.#rng.nextU32());
    const members = shapes.map((one) => {
      this.#devices.add(shapeName(one));
      const accept = acceptedBy(one, rng);
      return {
        shape: one,
        model: model.start(one, accept),
        reference: reference.start(one, accept),
      };
    });
    const pair = new RigPair(members, [this.#options.model, this.#options.reference]);
    const canBreak = !shape.packed || this.#options.include?.includes(PACKED_ERROR.name) === true;
    const generator =
      shape.type === 'net'
        ? new FrameGenerator(rng, shapes)
        : new RequestGenerator(rng, shape, canBreak);
    let difference = pair.compareDevices();
    let requests: readonly string[] = [];
    for (let done = 0; done < EPISODE && !this.#isDone && difference === undefined; ) {
      yield;
      const batch = generator.batch();
      const result = this.#run(pair, batch);
      done += Math.max(1, result.ended.length);
      difference = result.difference ?? (this.#isEnded ? undefined : pair.compareStatus());
      for (const { name, outcome } of result.ended) this.#count(name, outcome, pair.isBroken);
      if (difference !== undefined) requests = batch.map(describeRequest);
      if (pair.isBroken) break;
    }
    if (!this.#isEnded) {
      difference ??= pair.compareDevices() ?? pair.compareDisks();
      pair.close();
    }
    if (difference === undefined) return;
    const found = { device: shapeName(shape), seed: this.#options.seed, request: pair.requests };
    this.#findings.push({ ...found, requests, ...difference });
  }

  /** A device that its machine does not survive is a finding, and the end. */
  #run(pair: RigPair, batch: readonly NamedRequest[]): RunResult {
    try {
      return pair.run(batch);
    } catch (error) {
      const death = deathOf(error);
      if (death === undefined) throw error;
      this.#isEnded = true;
      const difference = { what: death, model: 'goes on', reference: (error as Error).message };
      return { ended: [], difference };
    }
  }

  #count(name: string, outcome: RawOutcome, isBroken: boolean): void {
    this.#requests += 1;
    for (const bytes of outcome.inn) this.#bytes += bytes.length;
    const key = `${name}\t${outcomeName(outcome, name, isBroken)}`;
    this.#coverage.set(key, (this.#coverage.get(key) ?? 0) + 1);
  }
}

/** What the guest accepts of what is offered: all, but for merged receive buffers now and then. */
function acceptedBy({ type }: VirtioShape, rng: Rng): bigint {
  const isWithout = type === 'net' && rng.below(2) === 0;
  return isWithout ? ALL_FEATURES & ~featureBit(VIRTIO_NET_F_MRG_RXBUF) : ALL_FEATURES;
}

const ALL_FEATURES = 2n ** 64n - 1n;
const STATUS_NAMES = ['VIRTIO_BLK_S_OK', 'VIRTIO_BLK_S_IOERR', 'VIRTIO_BLK_S_UNSUPP'];

function outcomeName(outcome: RawOutcome, name: string, isBroken: boolean): string {
  if (outcome.used === undefined) return isBroken ? 'device needs reset' : 'no answer';
  if (name === 'command') return outcome.inn[0]?.[0] === 0 ? 'VIRTIO_NET_OK' : 'VIRTIO_NET_ERR';
  if (!isBlockRequest(name)) return 'used';
  const status = outcome.inn.at(-1)?.at(-1);
  if (status === UNWRITTEN || status === undefined) return 'used, status byte unwritten';
  return STATUS_NAMES[status] ?? `status ${status}`;
}

const isBlockRequest = (name: string): boolean => !/^(entropy|frame|buffer|command)/.test(name);
