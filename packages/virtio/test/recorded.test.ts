import { readFileSync } from 'node:fs';
import { type HiLo, joinNumber, type TraceEvent, Tracer } from '@pinhole/base';
import { createGuestMemory, DmaDirection, type DmaOps, type SparseMemory } from '@pinhole/memory';
import { describe, expect, test } from 'vitest';
import {
  createDriverQueue,
  type DeviceQueue,
  featureBit,
  negotiateFeatures,
  type Segment,
  setDriverOk,
  VIRTIO_F_RING_PACKED,
  VIRTIO_ID_BLOCK,
  VIRTIO_RING_F_INDIRECT_DESC,
  type VirtqueueElement,
} from '../src/index.js';
import { DirectDevice } from './support/direct-transport.js';
import { TestIommu } from './support/space.js';

// What the device offered and the driver accepted, as the guests' consoles show; without the layout.
const FEATURES = 0x103_3000_6e54n;
const DIRECTIONS = ['BIDIRECTIONAL', 'TO_DEVICE', 'FROM_DEVICE'];

function vector(name: string): string[] {
  const text = readFileSync(new URL(`./vectors/${name}`, import.meta.url), 'utf8');
  return text.trimEnd().split('\n');
}

/** Gives the bus addresses that the recording's kernel gave, and writes down what it is asked. */
class RecordedDma implements DmaOps {
  readonly name = 'recorded';
  readonly maxMappingSize: number = Number.MAX_SAFE_INTEGER;
  readonly said: string[] = [];
  readonly #iommu: TestIommu;
  readonly #addresses: number[];
  readonly #rings: { readonly bus: number; readonly gpa: number }[];

  constructor(iommu: TestIommu, guest: readonly string[]) {
    this.#iommu = iommu;
    this.#rings = guest
      .map((line) => /^dma_alloc: .*dma_addr=(\w+) .*virt_addr=c(\w+)/.exec(line))
      .filter((match) => match !== null)
      .map(([, bus, gpa]) => ({ bus: Number.parseInt(bus!, 16), gpa: Number.parseInt(gpa!, 16) }));
    this.#addresses = guest
      .filter((line) => line.startsWith('dma_map_page'))
      .map((line) => Number.parseInt(/dma_addr=(\w+)/.exec(line)![1]!, 16));
  }

  map(gpa: number, length: number, direction: DmaDirection, out: HiLo): boolean {
    const address = this.#addresses.shift()!;
    out.hi = 0;
    out.lo = address;
    this.said.push(
      `dma_map_page: 0000:00:00.0 dir=${DIRECTIONS[direction]} dma_addr=${address.toString(16)} size=${length} phys_addr=${gpa.toString(16)} attrs=`,
    );
    this.#iommu.set(address, gpa, direction === DmaDirection.TO_DEVICE ? 1 : 3);
    return true;
  }

  unmap(hi: number, lo: number, length: number, direction: DmaDirection): void {
    const address = joinNumber(hi, lo);
    this.said.push(
      `dma_unmap_page: 0000:00:00.0 dir=${DIRECTIONS[direction]} dma_addr=${address.toString(16)} size=${length} attrs=`,
    );
    this.#iommu.clear(address);
  }

  allocCoherent(length: number, out: HiLo): number {
    const { bus, gpa } = this.#rings.shift()!;
    out.hi = 0;
    out.lo = bus;
    this.said.push(`dma_alloc: size=${length}`);
    for (let at = 0; at < length; at += 4096) this.#iommu.set(bus + at, gpa + at, 3);
    return gpa;
  }

  freeCoherent(): void {}
}

/** A block device that reads zeroes, and completes after it has looked at the whole queue. */
function handleReads(queue: DeviceQueue, memory: SparseMemory): VirtqueueElement[] {
  const requests: VirtqueueElement[] = [];
  do {
    queue.setNotification(false);
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      memory.writeU8(element.gpa[element.outNum + element.inNum - 1]!, 0);
      requests.push(element);
    }
    queue.setNotification(true);
  } while (!queue.isEmpty());
  return requests;
}

/** As QEMU prints it, the pointers replaced by `*`. */
function asQemuPrints({ name, args }: TraceEvent): string {
  if (name === 'virtqueue_alloc_element') {
    return `${name} elem * size ${args.sz} in_num ${args.in_num} out_num ${args.out_num}`;
  }
  const pointers = ['vdev', 'vq', 'elem'];
  const fields = Object.entries(args).map(
    ([key, value]) => `${key} ${pointers.includes(key) ? '*' : value}`,
  );
  return `${name} ${fields.join(' ')}`;
}

interface Variant {
  readonly hasIndirect: boolean;
  readonly isPacked: boolean;
  /** Where the kernel had its tables: both requests of a recording use the same place. */
  readonly table: number;
}

function play(name: string, variant: Variant): { device: string[]; guest: string[] } {
  const { hasIndirect, isPacked, table } = variant;
  const features = isPacked ? FEATURES | featureBit(VIRTIO_F_RING_PACKED) : FEATURES;
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 31 }] });
  const iommu = new TestIommu(memory);
  const guest = vector(`${name}.guest.txt`);
  const dma = new RecordedDma(iommu, guest);
  const device: string[] = [];
  iommu.onTranslate = (address) => device.push(`spapr_iommu_xlate 0x${address.toString(16)}`);
  const core: DirectDevice = new DirectDevice({
    deviceId: VIRTIO_ID_BLOCK,
    features,
    memory,
    space: iommu,
    elementSize: 240,
    queues: [
      {
        maxSize: 256,
        handleOutput(queue): void {
          for (const element of handleReads(queue, memory)) {
            queue.push(element, 4097);
            core.notifyDriver(0);
          }
        },
      },
    ],
    tracer: new Tracer({ emit: (event) => device.push(asQemuPrints(event)) }),
  });
  let wasInterrupted = false;
  core.onInterrupt(() => {
    wasInterrupted = true;
  });
  const supported = features & ~(hasIndirect ? 0n : featureBit(VIRTIO_RING_F_INDIRECT_DESC));
  expect(negotiateFeatures(core, { supported }).ok).toBe(true);
  const driver = createDriverQueue<number>({
    memory,
    dma,
    tables: { allocate: () => table, free: () => {} },
    size: core.queueMaxSize(0),
    layoutAlign: 128,
    hasIndirect,
    hasEventIdx: true,
    isPacked,
    notify: () => core.notifyQueue(0),
  })!;
  core.setupQueue(0, driver.setup);
  setDriverOk(core);
  for (const request of requestsOf(guest)) {
    wasInterrupted = false;
    expect(driver.add(request.slice(0, 1), request.slice(1), 1)).toBe('ok');
    expect(driver.kick()).toBe(true);
    expect(wasInterrupted).toBe(true);
    expect(driver.noteInterrupt()).toBe(true);
    driver.disableCallbacks();
    expect(driver.getUsed()).toMatchObject({ kind: 'used', length: 4097 });
    expect(driver.getUsed()).toBeUndefined();
    expect(driver.enableCallbacks()).toBe(true);
  }
  return { device, guest: dma.said };
}

/** Header, data and status of each request. */
function requestsOf(guest: readonly string[]): Segment[][] {
  const requests: Segment[][] = [];
  for (const line of guest) {
    const match = /^dma_map_page: .*size=(\d+) phys_addr=(\w+)/.exec(line);
    if (match === null) continue;
    const length = Number(match[1]);
    if (length === 48) continue;
    if (length === 16) requests.push([]);
    requests.at(-1)!.push({ gpa: Number.parseInt(match[2]!, 16), length });
  }
  return requests;
}

/** What of QEMU's log this package accounts for; the interrupt was not traced. */
function recordedDevice(name: string): string[] {
  return vector(`${name}.qemu.txt`)
    .filter((line) =>
      /^(virtio_set_status|virtio_queue_notify|virtqueue_|spapr_iommu_xlate)/.test(line),
    )
    .map((line) => line.replace(/^spapr_iommu_xlate liobn=\S+ (\S+) .*/, 'spapr_iommu_xlate $1'))
    .map((line) => line.replace(/\b(vdev|vq|elem) 0x\w+/g, '$1 *'));
}

function recordedGuest(name: string): string[] {
  return vector(`${name}.guest.txt`).map((line) =>
    line.replace(/^dma_alloc: .*(size=\d+).*/, 'dma_alloc: $1'),
  );
}

describe.each([
  ['linux6.12-pinhole', { hasIndirect: true, isPacked: false, table: 0x704_b740 }],
  ['linux6.12-pinhole-noindirect', { hasIndirect: false, isPacked: false, table: 0 }],
  ['linux6.12-pinhole-packed', { hasIndirect: true, isPacked: true, table: 0x702_0300 }],
])('%s', (name, variant) => {
  test('the device asks for the translations that QEMU asked for, in its order', () => {
    const { device } = play(name, variant);
    const said = device.filter((line) => !line.startsWith('virtio_notify'));
    expect(said).toEqual(recordedDevice(name));
  });

  test('the driver maps and unmaps what Linux mapped and unmapped, in its order', () => {
    expect(play(name, variant).guest).toEqual(recordedGuest(name));
  });
});
