import { Tracer, type TraceSink } from '@pinhole/base';
import {
  createGuestMemory,
  createSystemMemorySpace,
  type DmaSpace,
  type SparseMemory,
} from '@pinhole/memory';
import {
  createDriverQueue,
  type DeviceQueue,
  type DriverQueue,
  featureBits,
  negotiateFeatures,
  type SplitRingLayout,
  setDriverOk,
  splitRingLayout,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
  VIRTIO_ID_BLOCK,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../../src/index.js';
import { DirectDevice } from './direct-transport.js';
import { IommuDma, physicalDma, TestHeap, TestIommu } from './space.js';

export interface PairOptions {
  readonly size?: number;
  readonly hasIndirect?: boolean;
  readonly hasEventIdx?: boolean;
  readonly isPacked?: boolean;
  readonly hasInOrder?: boolean;
  readonly isBehindIommu?: boolean;
  readonly usesEventFds?: boolean;
  readonly handleOutput?: (queue: DeviceQueue) => void;
  readonly sink?: TraceSink;
}

/** A driver's queue; `layout` says where the parts of a split ring lie from `ringGpa` on. */
export type PairDriver = DriverQueue<number> & { readonly layout: SplitRingLayout };

/** A driver and a device that have found each other, with one queue between them. */
export interface Pair {
  readonly memory: SparseMemory;
  readonly heap: TestHeap;
  readonly tables: TestHeap;
  readonly space: DmaSpace;
  readonly iommu: TestIommu;
  readonly dma: IommuDma;
  readonly core: DirectDevice;
  readonly device: DeviceQueue;
  readonly driver: PairDriver;
  /** Interrupts so far. */
  readonly interrupts: { queue: number; config: number };
}

const HEAP = 0x10_0000;
/** Buffers of tests lie from here on. */
export const BUFFERS = 0x100_0000;

export function createPair(options: PairOptions = {}): Pair {
  const { size = 8, hasIndirect = true, hasEventIdx = true, isBehindIommu = false } = options;
  const { isPacked = false, hasInOrder = false } = options;
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 26 }] });
  const heap = new TestHeap(HEAP);
  const tables = new TestHeap(HEAP + 0x20_0000);
  const iommu = new TestIommu(memory);
  const iommuDma = new IommuDma(iommu, heap);
  const space = isBehindIommu ? iommu : createSystemMemorySpace(memory);
  const features = featureBits(
    VIRTIO_F_VERSION_1,
    ...(hasIndirect ? [VIRTIO_RING_F_INDIRECT_DESC] : []),
    ...(hasEventIdx ? [VIRTIO_RING_F_EVENT_IDX] : []),
    ...(isPacked ? [VIRTIO_F_RING_PACKED] : []),
    ...(hasInOrder ? [VIRTIO_F_IN_ORDER] : []),
  );
  const core = new DirectDevice({
    deviceId: VIRTIO_ID_BLOCK,
    features,
    memory,
    space,
    queues: [{ maxSize: size, handleOutput: (queue) => options.handleOutput?.(queue) }],
    usesEventFds: options.usesEventFds ?? false,
    ...(options.sink === undefined ? {} : { tracer: new Tracer(options.sink) }),
  });
  const interrupts = { queue: 0, config: 0 };
  core.onInterrupt((cause) => {
    interrupts[cause] += 1;
  });
  const result = negotiateFeatures(core, { supported: features });
  if (!result.ok) throw new Error(result.message);
  const queue = createDriverQueue<number>({
    memory,
    dma: isBehindIommu ? iommuDma : physicalDma(heap),
    tables,
    size,
    layoutAlign: 128,
    hasIndirect,
    hasEventIdx,
    isPacked,
    hasInOrder,
    notify: () => core.notifyQueue(0),
  });
  if (queue === undefined) throw new Error('no room for the ring');
  const driver: PairDriver = Object.assign(queue, {
    layout: splitRingLayout(isPacked ? 1 : size, 128),
  });
  core.setupQueue(0, driver.setup);
  setDriverOk(core);
  const device = core.queues[0]!;
  return { memory, heap, tables, space, iommu, dma: iommuDma, core, device, driver, interrupts };
}

/** Segments of these lengths, one after the other with a gap, from `at`. */
export function segments(
  at: number,
  lengths: readonly number[],
): { gpa: number; length: number }[] {
  let gpa = at;
  return lengths.map((length) => {
    const segment = { gpa, length };
    gpa += Math.ceil((length + 1) / 4096) * 4096;
    return segment;
  });
}
