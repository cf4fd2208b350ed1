/**
 * The channel commands of a real Linux on s390x, as QEMU's log of recorded runs has them, and those of
 * the model's driver for the same disk.
 */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { createRng, type TraceEvent } from '@pinhole/base';
import { createPhysicalDmaOps, GuestPages, probeVirtioBlk, SMP_CACHE_BYTES } from '@pinhole/guest';
import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import { createMemoryBackend, VirtioBlk } from '@pinhole/qemu';
import { findRecording, type Recording, recordings } from '@pinhole/recordings';
import { readFtrace, readQemuLog } from '@pinhole/trace';
import { CCW_AREA_SIZE, Ccw, createCcwTransport, createVirtioCcw } from '@pinhole/virtio';
import { describe, expect, test } from 'vitest';
import { parseScenario, runScenario } from '../src/index.js';

const runs = recordings.filter(({ meta }) => meta.machine === 's390-ccw-virtio');
const text = (url: URL): string => gunzipSync(readFileSync(url)).toString('utf8');

/** From the first command for the disk to its first request. */
function recordedCommands({ files }: Recording): number[] {
  const commands: number[] = [];
  for (const { name, args } of readQemuLog(text(files.qemuTrace)).events) {
    if (name === 'virtio_ccw_interpret_ccw') commands.push(Number(args.cmd_code));
    if (name === 'virtqueue_pop') break;
  }
  return commands;
}

interface Probed {
  readonly commands: readonly number[];
  readonly features: bigint;
  /** Bytes of the ring. */
  readonly ring: number;
}

function probeModel(iommuPlatform: boolean): Probed {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 28 }] });
  const pages = new GuestPages({
    pageSize: 4096,
    kernel: { base: 2 ** 24, size: 2 ** 26 },
    user: { base: 2 ** 27, size: 2 ** 26 },
    rng: createRng(1),
  });
  const disk = new VirtioBlk({
    memory,
    systemMemory: createSystemMemorySpace(memory),
    iommuPlatform,
    backend: createMemoryBackend(new Uint8Array(2 ** 24)),
  });
  const ccw = createVirtioCcw({ device: disk.core, memory });
  const commands: number[] = [];
  const made = createCcwTransport(
    {
      senseId: ccw.senseId,
      notify: (data, cookie) => ccw.notify(data, cookie),
      start: (command) => {
        commands.push(command.code);
        return ccw.start(command);
      },
    },
    { memory, area: pages.allocPages(CCW_AREA_SIZE) ?? 0 },
  );
  if (!made.ok) throw new Error(made.message);
  const dma = createPhysicalDmaOps({ memory, pages });
  let ring = 0;
  const probed = probeVirtioBlk({
    transport: made.transport,
    memory,
    pages,
    smpCacheBytes: SMP_CACHE_BYTES.s390x,
    chooseDma: () => ({
      ...dma,
      allocCoherent: (length, out) => {
        ring = length;
        return dma.allocCoherent(length, out);
      },
    }),
  });
  if (!probed.ok) throw new Error(probed.message);
  const before = commands.length;
  probed.driver.read(0, pages.allocUser(4096) ?? []);
  // A request takes none.
  expect(commands.length).toBe(before);
  return { commands, features: probed.driver.features, ring };
}

test('three runs are here', () => {
  expect(runs.map(({ name }) => name.replace(/.*-ccw-/, ''))).toEqual([
    'bypass',
    'flag',
    'swiotlb',
  ]);
});

describe.each(runs.map((run) => [run.name, run] as const))('%s', (name, run) => {
  const hasFlag = !name.endsWith('bypass');

  test('from SET_VIRTIO_REV to the first request the driver sends the same commands in the same order', () => {
    const recorded = recordedCommands(run);
    expect(recorded[0]).toBe(Ccw.SET_VIRTIO_REV);
    expect(recorded).toHaveLength(31);
    expect(probeModel(hasFlag).commands).toEqual(recorded);
  });

  test('with the same features', () => {
    // Bit 0 comes first.
    const bits = / features ([01]{64}) /.exec(text(run.files.console))?.[1] ?? '';
    const features = BigInt(`0b${[...bits].reverse().join('')}`);
    expect(probeModel(hasFlag).features).toBe(features);
  });

  test.runIf(hasFlag)('with a ring as large', () => {
    const { events } = readFtrace(text(run.files.guestTrace));
    const ring = events.find(({ name: event, args }) => {
      return event === 'dma_alloc' && args.device === '0.0.0000';
    });
    expect(probeModel(hasFlag).ring).toBe(ring?.args.size);
  });

  test('every command that Linux sent ended well: channel end, device end, no subchannel status', () => {
    const { events } = readFtrace(text(run.files.guestTrace));
    const ends = events.filter(({ name: event }) => event === 's390_cio_tsch');
    expect(ends).toHaveLength(run.meta.guestEvents.s390_cio_ssch ?? 0);
    for (const { args } of ends) expect(args).toMatchObject({ cc: 0, dstat: 0x0c, cstat: 0 });
  });

  test('a kick is a diagnose 0x500, a used buffer sets a bit and the summary', () => {
    const kicks = readFtrace(text(run.files.guestTrace)).events.filter(isKick);
    const { virtio_blk_req_complete: requests = 0, virtio_ccw_set_ind: bits } = run.meta.qemuEvents;
    expect(kicks).toHaveLength(requests);
    expect(bits).toBe(2 * requests);
  });
});

test('swiotlb=force: neither Linux nor the model bounces anything of a guest that is not protected', () => {
  const run = findRecording('linux6.12-s390x-ccw-swiotlb');
  expect(run.meta.kernelCommandLine).toContain('swiotlb=force');
  expect(run.meta.guestEvents.dma_map_page).toBeGreaterThan(0);
  expect(run.meta.guestEvents.swiotlb_bounced).toBeUndefined();
  const scenario = (secure: boolean): string => `machine: { arch: s390x, memory: 2GiB }
guest: { kernel: linux-6.12, cmdline: swiotlb=force, secure: ${secure} }
devices: [{ type: virtio-blk, iommuPlatform: true }]
workload: [{ read: { offset: 0, length: 64KiB, block: 4KiB } }]`;
  const bounced = (secure: boolean): number =>
    runScenario(parseScenario(scenario(secure))).counters.workload.bytesBounced;
  expect([bounced(false), bounced(true) > 0]).toEqual([0, true]);
});

function isKick({ name, args }: TraceEvent): boolean {
  return name === 's390_diagnose' && args.nr === 0x500;
}
