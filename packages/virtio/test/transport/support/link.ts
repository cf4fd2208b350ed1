import { createGuestMemory, createSystemMemorySpace, type SparseMemory } from '@pinhole/memory';
import {
  Ccw,
  type ChannelDevice,
  connectCcwInterrupts,
  connectMmioInterrupts,
  connectPciInterrupts,
  createCcwTransport,
  createDriverQueue,
  createMmioTransport,
  createPciLegacyTransport,
  createPciTransport,
  createVirtioCcw,
  createVirtioMmio,
  createVirtioPci,
  type DeviceHooks,
  type DeviceQueue,
  type DriverQueue,
  featureBits,
  hasFeature,
  negotiateFeatures,
  type PciFunction,
  setDriverOk,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_NOTIFICATION_DATA,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_ID_BLOCK,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
  VirtioDeviceCore,
  type VirtioPciDevice,
  type VirtioPciOptions,
  type VirtioTransport,
} from '../../../src/index.js';
import { physicalDma, TestHeap } from '../../support/space.js';

/** What the test device offers. */
export const FEATURES: bigint = featureBits(
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_INDIRECT_DESC,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_NOTIFICATION_DATA,
);

/** Bytes of guest memory. */
export const MEMORY_SIZE: number = 2 ** 24;

export interface DeviceSetup {
  /** Guest memory, if it is there already. */
  readonly memory?: SparseMemory;
  readonly deviceId?: number;
  readonly features?: bigint;
  readonly queueSizes?: readonly number[];
  readonly config?: Uint8Array;
  readonly hooks?: DeviceHooks;
}

/** A device that answers each request with what it reads, backwards. */
export interface EchoDevice {
  readonly memory: SparseMemory;
  readonly core: VirtioDeviceCore;
  /** The queues that were kicked, and with what data. */
  readonly kicks: number[];
}

export function echoDevice(setup: DeviceSetup = {}): EchoDevice {
  const { queueSizes = [256, 256] } = setup;
  const memory = setup.memory ?? createGuestMemory({ regions: [{ base: 0, size: MEMORY_SIZE }] });
  const kicks: number[] = [];
  const core: VirtioDeviceCore = new VirtioDeviceCore({
    deviceId: setup.deviceId ?? VIRTIO_ID_BLOCK,
    features: setup.features ?? FEATURES,
    config: setup.config ?? Uint8Array.from({ length: 60 }, (_, i) => i),
    memory,
    space: createSystemMemorySpace(memory),
    queues: queueSizes.map((maxSize, index) => ({
      maxSize,
      handleOutput: (queue) => {
        kicks.push(index);
        echo(memory, core, queue, index);
      },
    })),
    usesEventFds: false,
    ...(setup.hooks === undefined ? {} : { hooks: setup.hooks }),
  });
  return { memory, core, kicks };
}

function echo(
  memory: SparseMemory,
  core: VirtioDeviceCore,
  queue: DeviceQueue,
  index: number,
): void {
  for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
    const length = element.outNum === 0 ? 0 : element.length[0]!;
    const bytes = new Uint8Array(length);
    if (length > 0) memory.read(element.gpa[0]!, bytes);
    if (element.inNum > 0 && length > 0) {
      const room = element.length[element.outNum]!;
      memory.write(element.gpa[element.outNum]!, bytes.reverse().subarray(0, room));
    }
    queue.push(element, length);
    core.notifyDriver(index);
  }
}

/** How driver and device meet. */
export interface Way {
  readonly name: string;
  /** What the driver takes of what is offered. */
  readonly supported?: bigint;
  readonly isBigEndian?: boolean;
  /** Nobody delivers interrupts. */
  readonly isPolled?: boolean;
  connect(device: EchoDevice): VirtioTransport;
}

/** The transport of a function that can be driven. */
export function transportOf(
  result: ReturnType<typeof createPciTransport> | ReturnType<typeof createMmioTransport>,
): VirtioTransport {
  if (!result.ok) throw new Error(result.message);
  return result.transport;
}

export function pci(
  device: EchoDevice,
  mode: VirtioPciOptions['mode'],
  options: Partial<VirtioPciOptions> = {},
): VirtioPciDevice {
  return createVirtioPci({ device: device.core, mode, ...options });
}

const SPLIT = ~featureBits(VIRTIO_F_RING_PACKED, VIRTIO_F_NOTIFICATION_DATA, VIRTIO_F_IN_ORDER);
const line = (fn: VirtioPciDevice): { onLine(handler: () => void): void } => ({
  onLine: connectPciInterrupts(fn).onLine,
});

/** Every transport, with each way in which its interrupts come. */
export const WAYS: readonly Way[] = [
  {
    name: 'PCI modern, MSI-X, packed ring',
    connect: (device) => {
      const fn = pci(device, 'modern');
      return transportOf(createPciTransport(fn, { interrupts: connectPciInterrupts(fn) }));
    },
  },
  {
    name: 'PCI modern, MSI-X with two vectors',
    supported: SPLIT,
    connect: (device) => {
      const fn = pci(device, 'modern', { msixVectors: 2 });
      return transportOf(createPciTransport(fn, { interrupts: connectPciInterrupts(fn) }));
    },
  },
  {
    name: 'PCI modern, interrupt line',
    supported: SPLIT,
    connect: (device) => {
      const fn = pci(device, 'modern');
      return transportOf(createPciTransport(fn, { interrupts: line(fn) }));
    },
  },
  {
    name: 'PCI modern, polled',
    isPolled: true,
    connect: (device) => transportOf(createPciTransport(pci(device, 'modern'))),
  },
  {
    name: 'PCI transitional, modern driver of a big-endian guest',
    connect: (device) => {
      const fn = pci(device, 'transitional', { isBigEndianGuest: true });
      return transportOf(createPciTransport(fn, { interrupts: connectPciInterrupts(fn) }));
    },
  },
  {
    name: 'PCI transitional, legacy driver, interrupt line',
    connect: (device) => {
      const fn = pci(device, 'transitional');
      return transportOf(createPciLegacyTransport(fn, { interrupts: line(fn) }));
    },
  },
  {
    name: 'PCI legacy, MSI-X, big-endian guest',
    isBigEndian: true,
    connect: (device) => {
      const fn = pci(device, 'legacy', { isBigEndianGuest: true });
      return transportOf(createPciTransport(fn, { interrupts: connectPciInterrupts(fn) }));
    },
  },
  {
    name: 'PCI legacy, polled, no MSI-X',
    isPolled: true,
    connect: (device) => transportOf(createPciTransport(pci(device, 'legacy', { msixVectors: 0 }))),
  },
  {
    name: 'MMIO',
    connect: (device) => {
      const region = createVirtioMmio({ device: device.core });
      return transportOf(
        createMmioTransport(region, { interrupts: connectMmioInterrupts(region) }),
      );
    },
  },
  {
    name: 'MMIO, polled, split ring',
    supported: SPLIT,
    isPolled: true,
    connect: (device) =>
      transportOf(createMmioTransport(createVirtioMmio({ device: device.core }))),
  },
  {
    name: 'ccw',
    connect: ({ core, memory }) => {
      const ccw = createVirtioCcw({ device: core, memory });
      const interrupts = connectCcwInterrupts(ccw);
      return transportOf(createCcwTransport(ccw, { memory, area: CCW_AREA, interrupts }));
    },
  },
  {
    name: 'ccw, classic indicators, polled, split ring',
    supported: SPLIT,
    isPolled: true,
    connect: ({ core, memory }) => {
      const ccw = createVirtioCcw({ device: core, memory });
      const classic: ChannelDevice = {
        senseId: ccw.senseId,
        notify: (data, cookie) => ccw.notify(data, cookie),
        start: (command) =>
          command.code === Ccw.SET_IND_ADAPTER
            ? { ok: false, reason: 'command-reject' }
            : ccw.start(command),
      };
      return transportOf(createCcwTransport(classic, { memory, area: CCW_AREA }));
    },
  },
];

/** Where the driver's payloads for a subchannel lie. */
export const CCW_AREA: number = 0x8000;

/** A driver that has set its device up, with a queue for each of the device's. */
export interface Link extends EchoDevice {
  readonly transport: VirtioTransport;
  readonly features: bigint;
  readonly queues: DriverQueue<number>[];
  /** What the handler heard. */
  readonly heard: { cause: string; index: number | undefined }[];
  /** Sends bytes through a queue and gives back the answer. */
  exchange(queue: number, bytes: Uint8Array): Uint8Array;
  /** Sets a queue up (again). */
  open(queue: number): void;
}

const HEAP = 0x10_0000;
const BUFFERS = 0x80_0000;

export function link(way: Way, device: EchoDevice = echoDevice()): Link {
  const { memory } = device;
  const heap = new TestHeap(HEAP);
  const transport = way.connect(device);
  const heard: { cause: string; index: number | undefined }[] = [];
  transport.onInterrupt((cause, index) => heard.push({ cause, index }));
  const result = negotiateFeatures(transport, {
    supported: FEATURES & (way.supported ?? ~0n),
    allowsLegacy: transport.isLegacy,
  });
  if (!result.ok) throw new Error(result.message);
  const { features } = result;
  const has = (bit: number): boolean => hasFeature(features, bit);
  const queues: DriverQueue<number>[] = [];
  const open = (index: number): void => {
    const queue = createDriverQueue<number>({
      memory,
      dma: physicalDma(heap),
      tables: new TestHeap(HEAP + 0x40_0000),
      size: Math.min(transport.queueMaxSize(index), 256),
      index,
      layoutAlign: transport.isLegacy ? 4096 : 64,
      isPacked: has(VIRTIO_F_RING_PACKED),
      hasIndirect: has(VIRTIO_RING_F_INDIRECT_DESC),
      hasEventIdx: has(VIRTIO_RING_F_EVENT_IDX),
      hasInOrder: has(VIRTIO_F_IN_ORDER),
      isBigEndian: way.isBigEndian === true && !has(VIRTIO_F_VERSION_1),
      notify: () => {
        const data = has(VIRTIO_F_NOTIFICATION_DATA) ? queue!.notificationData : undefined;
        transport.notifyQueue(index, data);
      },
    });
    if (queue === undefined) throw new Error('no room for the ring');
    queues[index] = queue;
    transport.setupQueue(index, queue.setup);
  };
  for (let index = 0; index < device.core.queues.length; index += 1) open(index);
  setDriverOk(transport);
  let at = BUFFERS;
  const exchange = (index: number, bytes: Uint8Array): Uint8Array => {
    const queue = queues[index]!;
    at = at + 0x2000 < MEMORY_SIZE - 0x2000 ? at + 0x2000 : BUFFERS;
    memory.write(at, bytes);
    const out = [{ gpa: at, length: bytes.length }];
    queue.add(out, [{ gpa: at + 0x1000, length: bytes.length }], at);
    queue.kick();
    if (way.isPolled === true) transport.pollInterrupt();
    const used = queue.getUsed();
    if (used?.kind !== 'used') throw new Error(`expected a used buffer, found ${used?.kind}`);
    const answer = new Uint8Array(used.length);
    memory.read(used.token + 0x1000, answer);
    queue.enableCallbacks();
    return answer;
  };
  return { ...device, transport, features, queues, heard, exchange, open };
}

/** The virtio capability of a type, as a driver finds it. */
export function structure(fn: PciFunction, type: number): number {
  for (let at = fn.configRead(0x34, 1); at !== 0; at = fn.configRead(at + 1, 1)) {
    if (fn.configRead(at, 1) === 9 && fn.configRead(at + 3, 1) === type) return at;
  }
  return 0;
}
