/** The first look at a log's requests: with which of them the guest's trace begins. */
import type { TraceEvent } from '@pinhole/base';
import { DmaDirection } from '@pinhole/memory';
import { DMA_MAPPING_ERROR, type GuestOperation } from './guest-operations.js';
import type { GuestFacts } from './guest-scout.js';

/** What is known of the requests of a log. */
export interface RequestFacts {
  /** The emulated IOMMU that logged something. */
  readonly iommu: LoggedIommu | undefined;
  /** Virtqueues on which the guest talks to its IOMMU. */
  readonly iommuQueues: ReadonlySet<string>;
  /** Boots, by devices that came into being. */
  readonly boots: number;
  /** Requests of the log before the guest's first one. */
  readonly base: number;
  /** The device of the guest's trace that the requests are of; undefined: they cannot be joined. */
  readonly device: string | undefined;
  /** How they are joined, or why not. */
  readonly text: string;
  /** The files are not of one run. */
  readonly isOther: boolean;
  /** Of the first requests that were looked for, so many are there. */
  readonly found: number;
  readonly of: number;
}

/** IOMMUs that QEMU emulates, with events in the catalogue. */
export type LoggedIommu = 'intel-iommu' | 'smmuv3' | 'virtio-iommu';

/** A request's segments: those that the device writes, and those that it reads. */
type Shape = readonly [inNum: number, outNum: number];

/** What a driver did with its devices, from one reset to the next. */
interface Life {
  readonly base: number;
  readonly shapes: Shape[];
  readonly queues: Set<string>;
}

const MAX_LIVES = 1024;
const SHAPES = 64;
const MAX_DEVICES = 4096;
/** Of the requests that the guest's trace begins with, so many are as in the log, or none of them are. */
const MIN_FOUND = 0.5;

/** What QEMU logs of a request to a virtio-iommu, right after it is taken. */
const IOMMU_REQUESTS: readonly string[] = [
  'virtio_iommu_attach',
  'virtio_iommu_detach',
  'virtio_iommu_map',
  'virtio_iommu_unmap',
  'virtio_iommu_fill_resv_property',
];

/** Takes all of a log; keeps a few requests of each driver. */
export class RequestScout {
  static readonly events: readonly string[] = [
    'virtqueue_pop',
    'virtio_set_status',
    'vtd_inv_desc',
    'vtd_dmar_translate',
    'smmuv3_translate_success',
    'smmuv3_s1_range_inval',
    'virtio_iommu_translate',
    ...IOMMU_REQUESTS,
  ];
  #lives: Life[] = [];
  readonly #devices = new Set<string>();
  #requests = 0;
  #isReset = true;
  #isUsed = true;
  #boots = 0;
  #iommu: LoggedIommu | undefined;
  readonly #iommuQueues = new Set<string>();
  /** The last request, until it is known whose it is. */
  #popped: TraceEvent['args'] | undefined;

  event({ name, args }: TraceEvent): void {
    const popped = this.#popped;
    this.#popped = undefined;
    if (popped !== undefined) {
      if (IOMMU_REQUESTS.includes(name)) this.#iommuQueues.add(String(popped.vq));
      else this.#pop(popped);
    }
    if (name === 'virtqueue_pop') this.#popped = args;
    else if (name === 'virtio_set_status') this.#status(args);
    else if (name.startsWith('vtd_')) this.#iommu ??= 'intel-iommu';
    else if (name.startsWith('smmuv3_')) this.#iommu ??= 'smmuv3';
    else if (name.startsWith('virtio_iommu_')) this.#iommu ??= 'virtio-iommu';
  }

  facts(guest: GuestFacts | undefined, beginning: () => readonly GuestOperation[]): RequestFacts {
    if (this.#popped !== undefined) this.#pop(this.#popped);
    this.#popped = undefined;
    const found = this.#find(guest, beginning);
    const [iommu, iommuQueues] = [this.#iommu, this.#iommuQueues];
    return { iommu, iommuQueues, boots: this.#boots, ...found };
  }

  #pop({ vq, in_num, out_num }: TraceEvent['args']): void {
    if (this.#iommuQueues.has(String(vq))) return;
    if (this.#isReset && this.#lives.length < MAX_LIVES) {
      this.#lives.push({ base: this.#requests, shapes: [], queues: new Set() });
    }
    this.#isReset = false;
    this.#isUsed = true;
    this.#requests += 1;
    const life = this.#lives.at(-1) as Life;
    if (life.shapes.length < SHAPES) life.shapes.push([Number(in_num), Number(out_num)]);
    if (life.queues.size < 2) life.queues.add(String(vq));
  }

  #status({ vdev, val }: TraceEvent['args']): void {
    if (val === 0) this.#isReset = true;
    const device = String(vdev);
    if (this.#devices.has(device)) return;
    // Another boot has devices of its own.
    if (this.#isUsed) this.#boots += 1;
    this.#isUsed = false;
    if (this.#devices.size < MAX_DEVICES) this.#devices.add(device);
  }

  #find(
    guest: GuestFacts | undefined,
    beginning: () => readonly GuestOperation[],
  ): Omit<RequestFacts, 'iommu' | 'iommuQueues' | 'boots'> {
    const not = (text: string) => ({
      base: 0,
      device: undefined,
      text: `not joined: ${text}`,
      isOther: false,
      found: 0,
      of: 0,
    });
    if (guest === undefined) return not("there is no guest's trace");
    if (guest.hasCallEvents || guest.devices.size === 0) return not('the trace has no mappings');
    if (this.#requests === 0) return not("QEMU's log has no virtqueue_pop");
    const [device, ...others] = guest.devices.keys();
    if (others.length > 0 || device === undefined) return not('several devices');
    if (guest.cpus > 1) return not('several CPUs');
    if (!guest.whole.has(device)) return not("the trace begins after the device's first mapping");
    const maps = beginning().filter(
      ({ kind, dmaAddr }) => kind === 'map' && dmaAddr !== DMA_MAPPING_ERROR,
    );
    let best: { life: Life; found: number; of: number } | undefined;
    for (const life of this.#lives) {
      const score = scoreOf(life, maps);
      if (best === undefined || score.found >= best.found) best = { life, ...score };
    }
    if (best === undefined || best.of === 0) return not('the log has other requests');
    if (best.life.queues.size > 1) return not('several virtqueues');
    const { life, found, of } = best;
    const isOther = found < MIN_FOUND * of;
    return { base: life.base, device, text: 'by requests', isOther, found, of };
  }
}

// How many of the requests that the mappings begin with go the ways that the log says.
function scoreOf({ shapes }: Life, maps: readonly GuestOperation[]): { found: number; of: number } {
  let [at, found, of] = [0, 0, 0];
  for (const [inNum, outNum] of shapes) {
    const count = inNum + outNum;
    const buffers = maps.slice(at, at + count);
    if (buffers.length < count) break;
    of += 1;
    const isRight = buffers.every(
      ({ direction }, i) =>
        direction === (i < outNum ? DmaDirection.TO_DEVICE : DmaDirection.FROM_DEVICE),
    );
    if (isRight) found += 1;
    at += count;
    const table = maps[at];
    const isTable = table?.direction === DmaDirection.TO_DEVICE && table.size === count * 16;
    if (count > 1 && isTable) at += 1;
  }
  return { found, of };
}
