/**
 * The guest's own driver on a disk that vhost serves: on a real QEMU with the model's data plane, and on
 * the model. What the halves of vhost say to each other is compared message by message.
 */
import { readFileSync } from 'node:fs';
import { createRng } from '@pinhole/base';
import { isBlkSuccess, probeVirtioBlk, type VirtioBlkDriver } from '@pinhole/guest';
import type { Segment } from '@pinhole/virtio';
import { expect, test } from 'vitest';
import { SideGuest } from '../../src/index.js';
import { describeLive } from './support/live.js';
import {
  createModelVhost,
  shapeOf,
  startLiveVhost,
  type VhostSetup,
  type VhostSide,
} from './support/vhost/sides.js';

const GUEST_PAGE = 0x1_0000;
const USER = 2 ** 27;

/** A guest's driver on one side, each step of it checked and written down. */
class Session {
  readonly transcript: string[] = [];
  readonly guest: SideGuest;
  readonly #side: VhostSide;
  readonly #setup: VhostSetup;
  #driver: VirtioBlkDriver | undefined;
  #heard = 0;

  constructor(side: VhostSide, setup: VhostSetup) {
    this.#side = side;
    this.#setup = setup;
    this.guest = new SideGuest(side, 1);
  }

  get driver(): VirtioBlkDriver {
    if (this.#driver === undefined) throw new Error('no driver');
    return this.#driver;
  }

  probe(): void {
    this.step('probe', () => {
      const options = this.guest.driverOptions(shapeOf(this.#setup));
      const { transport } = options;
      // The driver must not take buffers back while the data plane is at it: messages would be in the
      // order in which two processes happened to run.
      const notify = transport.notifyQueue.bind(transport);
      transport.notifyQueue = (index, data) => {
        notify(index, data);
        this.#side.settle();
      };
      const probed = probeVirtioBlk({ ...options, cpus: this.#setup.queues ?? 1 });
      if (!probed.ok) throw new Error(probed.message);
      this.#driver = probed.driver;
      this.#side.settle();
      return `features ${probed.driver.features.toString(16)}, data plane ${this.#side.backendFeatures().toString(16)}`;
    });
  }

  remove(): void {
    this.step('remove', () => this.driver.remove());
  }

  /** One read, of which every byte is right. */
  read(offset: number, runs: readonly Segment[]): void {
    this.step(`read ${offset}`, () => {
      const outcomes = this.driver.read(offset, runs);
      expect(outcomes.every(isBlkSuccess)).toBe(true);
      const disk = this.#side.disk(shapeOf(this.#setup));
      const { length } = this.#bytes(runs);
      expect(this.#bytes(runs).equals(disk.subarray(offset, offset + length))).toBe(true);
    });
  }

  write(offset: number, runs: readonly Segment[], seed: number): void {
    this.step(`write ${offset}`, () => {
      const rng = createRng(seed);
      for (const { gpa, length } of runs) {
        this.#side.memory.write(
          gpa,
          new Uint8Array(length).map(() => rng.nextU32()),
        );
      }
      expect(this.driver.write(offset, runs).every(isBlkSuccess)).toBe(true);
      expect(isBlkSuccess(this.driver.flush())).toBe(true);
      const bytes = this.#bytes(runs);
      const disk = Buffer.from(this.#side.disk(shapeOf(this.#setup)));
      expect(bytes.equals(disk.subarray(offset, offset + bytes.length))).toBe(true);
    });
  }

  /** Many requests with one kick. */
  readMany(buffers: readonly (readonly Segment[])[], queue: number): void {
    this.step(`read ${buffers.length} at once, queue ${queue}`, () => {
      const commands = buffers.map((data, i) => ({ op: 'read' as const, sector: 8 * i, data }));
      const requests = this.driver.submit(commands, { queue });
      for (const [i, request] of requests.entries()) {
        expect(this.driver.wait(request)).toMatchObject({ kind: 'done', status: 0 });
        const disk = this.#side.disk(shapeOf(this.#setup));
        const bytes = this.#bytes(buffers[i] ?? []);
        expect(bytes.equals(disk.subarray(4096 * i, 4096 * i + bytes.length))).toBe(true);
      }
    });
  }

  step(name: string, act: () => unknown): void {
    this.transcript.push(`> ${name}`);
    const result = act();
    this.#side.settle();
    const messages = this.#side.messages();
    this.transcript.push(...messages.slice(this.#heard));
    this.#heard = messages.length;
    if (typeof result === 'string') this.transcript.push(`= ${result}`);
  }

  #bytes(runs: readonly Segment[]): Buffer {
    return Buffer.concat(
      runs.map(({ gpa, length }) => {
        const bytes = new Uint8Array(length);
        this.#side.memory.read(gpa, bytes);
        return bytes;
      }),
    );
  }
}

/** The same on both; what the real one said. */
function both(setup: VhostSetup, act: (session: Session) => void): string[] {
  const [model = [], live = []] = [createModelVhost, startLiveVhost].map((start) => {
    const side = start(setup);
    try {
      const session = new Session(side, setup);
      act(session);
      return session.transcript;
    } finally {
      side.close();
    }
  });
  expect(live).toEqual(model);
  return live;
}

const is = (kind: string) => (line: string) => line.startsWith(kind);
const count = (lines: readonly string[], kind: string): number => lines.filter(is(kind)).length;
const sizesOf = (lines: readonly string[]): number[] => [
  ...new Set(lines.filter(is('update')).map((line) => Number(line.split(' ')[2]))),
];

/** What `docs/VHOST.md` shows; requests are pages of the guest: the first, and how many. */
interface LiveRows {
  readonly rows: readonly {
    readonly name: string;
    readonly setup: VhostSetup;
    readonly counts: Record<'misses' | 'updates' | 'invalidates' | 'granule', number>;
  }[];
  readonly requests: readonly (readonly (readonly [page: number, pages: number])[])[];
}
const { rows, requests } = JSON.parse(
  readFileSync(new URL('../../../machine/test/vhost/live-rows.json', import.meta.url), 'utf8'),
) as LiveRows;

describeLive("the guest's driver with vhost, a real QEMU and the model", () => {
  test.each(rows)('28 reads: $name', ({ setup, counts }) => {
    const lines = both(setup, (session) => {
      session.probe();
      for (const request of requests) {
        const runs = request.map(([page, pages]) => ({
          gpa: USER + page * GUEST_PAGE,
          length: pages * GUEST_PAGE,
        }));
        session.read(0, runs);
      }
    });
    expect({
      misses: count(lines, 'miss'),
      updates: count(lines, 'update'),
      invalidates: count(lines, 'invalidate'),
      granule: sizesOf(lines)[0] ?? 0,
    }).toEqual(counts);
    expect(sizesOf(lines).length).toBeLessThan(2);
  });

  test.each([
    ['no iommu_platform', { iommuPlatform: false }],
    ['second window of 16 MiB pages', { iommuPlatform: true }],
    ['second window of 64 KiB pages', { iommuPlatform: true, pageSizes: 0x1_1000 }],
    ['pinhole only', { iommuPlatform: true, ddw: false }],
    ['pinhole only, packed ring', { iommuPlatform: true, ddw: false, packed: true }],
    ['second window, packed ring', { iommuPlatform: true, packed: true }],
    ['pinhole only, two queues', { iommuPlatform: true, ddw: false, queues: 2 }],
    ['second window, two queues', { iommuPlatform: true, queues: 2 }],
  ] as [string, VhostSetup][])('writes, many at once, and a restart: %s', (_name, setup) => {
    const lines = both(setup, (session) => {
      const { pages } = session.guest;
      session.probe();
      const large = pages.allocUser(96 * 1024) ?? [];
      const small = Array.from({ length: 12 }, () => pages.allocUser(4096) ?? []);
      session.write(16_384, large, 7);
      session.read(16_384, large);
      for (let queue = 0; queue < (setup.queues ?? 1); queue += 1) session.readMany(small, queue);
      session.step('serial', () => session.driver.readSerial());
      session.remove();
      session.probe();
      session.read(0, large);
      session.readMany(small, 0);
      session.remove();
    });
    const negotiated = lines.filter(is('= features'));
    expect(negotiated).toHaveLength(2);
    const flag = 2n ** 33n;
    for (const line of negotiated) {
      const [ours = 0n, theirs = 0n] =
        line.match(/[0-9a-f]{6,}/g)?.map((n) => BigInt(`0x${n}`)) ?? [];
      expect([(ours & flag) !== 0n, (theirs & flag) !== 0n]).toEqual([
        setup.iommuPlatform,
        setup.iommuPlatform,
      ]);
    }
    if (!setup.iommuPlatform) {
      expect(count(lines, 'miss') + count(lines, 'update') + count(lines, 'invalidate')).toBe(0);
      return;
    }
    // QEMU pushed the used rings at both starts.
    expect(count(lines, 'update') - count(lines, 'miss')).toBe(2 * (setup.queues ?? 1));
    if (setup.ddw === false) expect(count(lines, 'invalidate')).toBeGreaterThan(100);
    else expect(count(lines, 'invalidate')).toBe(0);
  });
});
