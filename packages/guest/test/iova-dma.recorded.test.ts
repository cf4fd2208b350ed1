/**
 * Real Linux 6.12 behind QEMU's intel-iommu is the oracle: from what its kernel mapped and unmapped
 * alone, the model gives the very bus addresses, and page tables change in the very order.
 */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { hex, hi32, hiOf, joinNumber, lo32, loOf, type TraceEvent } from '@pinhole/base';
import {
  createGuestMemory,
  DmaAccess,
  DmaDirection,
  DmaStatus,
  type GuestMemory,
  IommuSpace,
} from '@pinhole/memory';
import { findRecording } from '@pinhole/recordings';
import { readFtrace, readQemuLog } from '@pinhole/trace';
import { describe, expect, test } from 'vitest';
import { type GuestPages, type IommuDriver, IovaDma } from '../src/index.js';

const recording = findRecording('linux6.12-x86-intel-iommu');
const guest = readFtrace(unzip(recording.files.guestTrace)).events;
const qemu = readQemuLog(unzip(recording.files.qemuTrace)).events;
const mappings = guest.filter(({ name }) =>
  ['dma_alloc', 'dma_map_page', 'dma_unmap_page'].includes(name),
);

/**
 * What q35's host bridge and the interrupts take (the console's "root bus resource" lines, and
 * 0xfee00000), in pages.
 */
const RESERVED = [
  { lo: 0xa0, hi: 0xbf },
  { lo: 0x8_0000, hi: 0xa_ffff },
  { lo: 0xc_0000, hi: 0xf_ebff },
  { lo: 0xf_ee00, hi: 0xf_eeff },
  { lo: 0x10_0000, hi: 0x8f_ffff },
];

function unzip(url: URL): string {
  return gunzipSync(readFileSync(url)).toString('utf8');
}

interface Replayed {
  /** The first event whose address is not Linux's; all of them otherwise. */
  readonly right: number;
  /** Page-table changes, as the kernel's own events have them. */
  readonly changes: string[];
  /** Events before each flush: the timer's and those of a full queue. */
  readonly flushes: number[];
}

/** Replays events up to `end`; the timer fires before each event in `timer`. */
function replay(timer: readonly number[], end: number): Replayed {
  const changes: string[] = [];
  const flushes: number[] = [];
  let at = 0;
  const driver: IommuDriver = {
    name: 'logged',
    hasShadowOnFlush: false,
    waitingPages: 0,
    counts: { maps: 0, unmaps: 0, commands: 0 },
    map(pfn, gpa, count) {
      changes.push(`map ${hex(pfn * 4096)} ${hex(gpa)} ${count * 4096}`);
      return true;
    },
    unmap(pfn, count) {
      changes.push(`unmap ${hex(pfn * 4096)} ${count * 4096}`);
    },
    iotlbSync() {
      throw new Error('invalidation is deferred');
    },
    flushIotlbAll() {
      flushes.push(at);
    },
  };
  const dma = new IovaDma({
    driver,
    memory: { fill() {} } as unknown as GuestMemory,
    pages: { pageSize: 4096, allocPages: () => 0, freePages() {} } as unknown as GuestPages,
    reserved: RESERVED,
    apertureEnd: 2n ** 39n - 1n,
    isDeferred: true,
    isSacOnce: true,
  });
  const out = { hi: 0, lo: 0 };
  const firings = new Set(timer);
  for (; at < end; at += 1) {
    if (firings.has(at)) dma.flush();
    const { name, args } = mappings[at] as TraceEvent;
    const address = Number(args.dma_addr);
    const size = Number(args.size);
    const direction = DmaDirection[args.dir as keyof typeof DmaDirection];
    if (name === 'dma_unmap_page') {
      dma.unmap(hiOf(address), loOf(address), size, direction);
      continue;
    }
    if (name === 'dma_alloc') dma.allocCoherent(size, out);
    else dma.map(Number(args.phys_addr), size, direction, out);
    if (joinNumber(out.hi, out.lo) !== address) break;
  }
  return { right: at, changes, flushes };
}

/**
 * When the timer fired is the one thing that the guest's events do not say. It is assumed only where
 * addresses are wrong without, as late as they allow.
 */
function findTimer(): number[] {
  const timer: number[] = [];
  for (;;) {
    const { right } = replay(timer, mappings.length);
    if (right === mappings.length) return timer;
    let best = { at: -1, right };
    for (let at = right; at > (timer.at(-1) ?? 0); at -= 1) {
      const tried = replay([...timer, at], Math.min(mappings.length, right + 200));
      if (tried.right > best.right) best = { at, right: tried.right };
    }
    if (best.at < 0) return timer;
    timer.push(best.at);
  }
}

describe('linux6.12-x86-intel-iommu', () => {
  const timer = findTimer();
  const replayed = replay(timer, mappings.length);

  test('every bus address is the one that Linux gave', () => {
    const count = (name: string): number => mappings.filter((event) => event.name === name).length;
    expect(count('dma_map_page')).toBe(recording.meta.guestEvents.dma_map_page);
    expect(count('dma_unmap_page')).toBe(recording.meta.guestEvents.dma_unmap_page);
    expect(count('dma_alloc')).toBe(1);
    expect(replayed.right).toBe(mappings.length);
  });

  test('every page-table change is the one that the kernel reported, in order', () => {
    const reported = guest.flatMap(({ name, args }) => {
      if (name !== 'map' && name !== 'unmap') return [];
      const iova = hex(args.iova as bigint);
      return name === 'map'
        ? [`map ${iova} ${hex(args.paddr as bigint)} ${args.size}`]
        : [`unmap ${iova} ${args.unmapped_size}`];
    });
    // The ring: Linux takes two single pages, where the model takes one piece.
    expect(replayed.changes.slice(0, 1)).toEqual(['map 0xffffe000 0x0 8192']);
    expect(reported.slice(0, 2).map((line) => line.split(' ')[1])).toEqual([
      '0xffffe000',
      '0xfffff000',
    ]);
    expect(reported).toHaveLength(2 * 1872 + 2);
    expect(replayed.changes.slice(1)).toEqual(reported.slice(2));
  });

  test('each flush is where QEMU logged an invalidation of the domain', () => {
    // The log has two boots. Only Linux says ACKNOWLEDGE alone; what the firmware reads comes before.
    const boots: TraceEvent[][] = [];
    for (const event of qemu) {
      if (event.name === 'virtio_set_status' && Number(event.args.val) === 1) boots.push([]);
      boots.at(-1)?.push(event);
    }
    const flushesOf = (boot: readonly TraceEvent[]): number[] => {
      let handled = 0;
      return boot.flatMap(({ name }) => {
        if (name.startsWith('virtio_blk_handle_')) handled += 1;
        return name === 'vtd_inv_desc_iotlb_domain' ? [handled] : [];
      });
    };
    const logged = boots.map(flushesOf);
    // A request begins with its header.
    const requests = (events: number): number =>
      mappings
        .slice(0, events)
        .filter(({ name, args }) => name === 'dma_map_page' && Number(args.size) === 16).length;
    const modelled = replayed.flushes.map(requests);
    expect(boots).toHaveLength(2);
    // The last one came when everything was done.
    expect(modelled).toEqual(logged[1]?.slice(0, -1));
    expect(modelled).toHaveLength(16);
  });

  test('a map that is left out moves the addresses after it: these tests can fail', () => {
    const [first] = mappings.splice(1, 1);
    expect(replay(timer, mappings.length).right).toBeLessThan(20);
    mappings.splice(1, 0, first as TraceEvent);
  });
});

describe("QEMU's IOTLB", () => {
  test('every hit and every walk of the log comes out of the model', () => {
    const space = new IommuSpace({
      name: 'intel-iommu',
      memory: createGuestMemory({ regions: [{ base: 0, size: 2 ** 31 }] }),
      addressBits: 39,
      iotlbSize: 1024,
    });
    const out = { gpa: 0, length: 0 };
    const wrong: string[] = [];
    let looked = 0;
    for (const { name, args, t } of qemu) {
      if (name === 'vtd_inv_desc_iotlb_domain' || name === 'vtd_inv_desc_iotlb_global') {
        space.invalidateAll();
        continue;
      }
      if (name !== 'vtd_iotlb_page_hit' && name !== 'vtd_iotlb_page_update') continue;
      const iova = args.iova as bigint;
      const slpte = args.slpte as bigint;
      const pfn = Number(iova >> 12n);
      // The page table as the log has it at this moment.
      space.unmap(pfn, 1);
      space.map(pfn, Number(slpte & ~0xfffn), 1, Number(slpte & 3n));
      const before = space.iotlbHits;
      const access = (slpte & 1n) === 1n ? DmaAccess.READ : DmaAccess.WRITE;
      const status = space.translate(hi32(iova), lo32(iova), 1, access, out);
      looked += 1;
      const kind = space.iotlbHits > before ? 'vtd_iotlb_page_hit' : 'vtd_iotlb_page_update';
      const isRight =
        kind === name &&
        status === DmaStatus.OK &&
        BigInt(out.gpa) === (slpte & ~0xfffn) + (iova & 0xfffn);
      if (!isRight) wrong.push(`${t}: ${name} of ${hex(iova)}, the model has a ${kind}`);
    }
    expect(looked).toBe(11_020);
    expect(wrong.slice(0, 5)).toEqual([]);
  });
});
