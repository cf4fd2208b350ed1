// A scenario's machine with a disk that vhost serves, for requests whose buffers one chooses.
import { readFileSync } from 'node:fs';
import { createRng } from '@pinhole/base';
import { createPhysicalDmaOps, findKernelProfile, probeVirtioBlk } from '@pinhole/guest';
import { architectures, createSeededDisk, parseScenario } from '@pinhole/machine';
import { VirtioBlk } from '@pinhole/qemu';
import {
  connectPciInterrupts,
  createPciTransport,
  createVirtioPci,
  hasFeature,
  VIRTIO_F_ACCESS_PLATFORM,
} from '@pinhole/virtio';

/** The disk, which nobody writes: what is read is checked against it. */
export const DISK = createSeededDisk(1, 4 * 2 ** 20);

/**
 * @param machine - the `machine` part of a scenario, as text.
 * @param options - `kernel`, `flag`, and `maxIotlbEntries` as vhost's module parameter.
 */
export function createVhostRig(machine, options = {}) {
  const { kernel = 'linux-6.1', flag = true, maxIotlbEntries } = options;
  const scenario = parseScenario(`machine: ${machine}
guest: { kernel: ${kernel} }
devices: [{ type: virtio-blk, iommuPlatform: ${flag}, vhost: on }]
workload: [{ read: { offset: 0, length: 512, block: 512 } }]`);
  const tracer = { on: false, event() {}, begin() {}, end() {} };
  const profile = findKernelProfile(kernel);
  const architecture = architectures.find(({ id }) => id === scenario.machine.arch);
  const platform = architecture.build({
    machine: scenario.machine,
    guest: scenario.guest,
    kernel: profile,
    rng: createRng(1),
    tracer,
  });
  const blk = new VirtioBlk({
    backend: { ...DISK, write() {}, flush() {} },
    memory: platform.hypervisorMemory,
    systemMemory: platform.systemMemory,
    iommuPlatform: flag,
    // As vhost-user-blk has it.
    queueSize: 128,
    vhost: {
      ...(platform.iommu === undefined ? {} : { iommu: platform.iommu }),
      ...(maxIotlbEntries === undefined ? {} : { maxIotlbEntries }),
    },
  });
  const fn = createVirtioPci({ device: blk.core, mode: 'modern', name: '0000:00:01.0' });
  const { transport } = createPciTransport(fn, { interrupts: connectPciInterrupts(fn) });
  const memory = platform.guestMemory;
  const { pages } = platform;
  const probed = probeVirtioBlk({
    transport,
    memory,
    pages,
    smpCacheBytes: platform.smpCacheBytes ?? 64,
    hasRestrictedMemoryAccess: () => false,
    mapError: profile.vring.mapError,
    chooseDma: (features) =>
      hasFeature(features, VIRTIO_F_ACCESS_PLATFORM)
        ? platform.dma.ops
        : createPhysicalDmaOps({ memory, pages }),
  });
  if (!probed.ok) throw new Error(probed.message);
  const { driver } = probed;
  return {
    platform,
    driver,
    blk,
    get vhost() {
      return blk.vhost.counters;
    },
    /** Reads into these pieces of memory, as one request; throws if what arrives is not right. */
    read(offset, runs) {
      const length = runs.reduce((sum, run) => sum + run.length, 0);
      const outcomes = driver.read(offset, runs);
      if (outcomes.length !== 1 || outcomes[0].kind !== 'done' || outcomes[0].status !== 0) {
        throw new Error(`a read of ${length} bytes: ${JSON.stringify(outcomes)}`);
      }
      const [right, found] = [new Uint8Array(length), new Uint8Array(length)];
      DISK.read(offset, right);
      let at = 0;
      for (const run of runs) {
        memory.read(run.gpa, found.subarray(at, at + run.length));
        at += run.length;
      }
      return Buffer.compare(right, found) === 0;
    },
  };
}

const PAGE = 65_536;

/** What a real QEMU counted, and for which requests: pages of the guest, from where on and how many. */
export const LIVE = JSON.parse(readFileSync(new URL('live-rows.json', import.meta.url), 'utf8'));

/**
 * The requests in pieces of 64 KiB pages that lie together: 28 with 3 small mappings each and 101 data
 * segments of 119 pages.
 */
export const LIVE_REQUESTS = LIVE.requests.map((request) => request.map(([, pages]) => pages));

/**
 * Where the pages of those requests are: as `dd` does it, the sixteen pages of the 1 MiB buffer and the
 * one of the 64 KiB buffer are used again and again; what the kernel read first (partitions, read-ahead)
 * has pages of its own. Three areas, 16 MiB apart, and with the kernel's objects 24 pages.
 */
export function placeLiveRequests(base) {
  return LIVE.requests.map((request) =>
    request.map(([page, pages]) => ({ gpa: base + page * PAGE, length: pages * PAGE })),
  );
}

/** Which pages of `size` bytes the requests' data lies in, and those it lies in more than once. */
export function pagesOf(requests, size) {
  const pages = new Set();
  for (const { gpa, length } of requests.flat()) {
    for (let at = gpa - (gpa % size); at < gpa + length; at += size) pages.add(at);
  }
  return pages;
}
