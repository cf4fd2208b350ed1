/**
 * Real Linux on real QEMU is the oracle: what the guest's kernel mapped and unmapped is fed to the
 * model's DMA ops, which must give the very bus addresses and make the very hypercalls.
 */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { hex, hiOf, joinNumber, loOf, NO_TRACE, type TraceEvent } from '@pinhole/base';
import { H_PUT_TCE, H_PUT_TCE_INDIRECT, H_STUFF_TCE, type Hypercalls } from '@pinhole/hcall';
import { createGuestMemory, DmaDirection, type GuestMemory } from '@pinhole/memory';
import { findRecording, type RecordingName } from '@pinhole/recordings';
import { readFtrace, readQemuLog } from '@pinhole/trace';
import { describe, expect, test } from 'vitest';
import { createIommuDmaOps, type GuestPages, IommuTable, TceCalls } from '../src/index.js';

const SINGLE_CPU: readonly RecordingName[] = [
  'linux6.12-pinhole',
  'linux6.12-pinhole-mix',
  'linux6.12-pinhole-noindirect',
  'linux6.12-pinhole-packed',
  'linux6.12-pinhole-rng',
  'linux6.12-ddw-lost',
];
const LIST_PAGE = 0x10_0000;

/** Writes each hypercall down as QEMU logs it. */
class LoggedHypercalls implements Hypercalls {
  readonly lines: string[] = [];
  readonly #memory: GuestMemory;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  call(
    opcode: number,
    [liobn = 0n, ioba = 0n, third = 0n, npages = 0n]: readonly bigint[],
  ): {
    ret: number;
    out: [];
  } {
    const window = `liobn=${hex(liobn)} ioba=${hex(ioba)}`;
    if (opcode === H_PUT_TCE) this.lines.push(`put ${window} tce=${hex(third)}`);
    if (opcode === H_STUFF_TCE) {
      const stop = ioba + npages * 4096n;
      this.lines.push(`stuff liobn=${hex(liobn)} ioba=${hex(stop)} npages=${npages}`);
    }
    if (opcode === H_PUT_TCE_INDIRECT) {
      const last = this.#memory.readU64Be(Number(third + (npages - 1n) * 8n));
      this.lines.push(`indirect ${window} iobaN=${hex(npages - 1n)} tceN=${hex(last)}`);
    }
    return { ret: 0, out: [] };
  }
}

function unzip(url: URL): string {
  return gunzipSync(readFileSync(url)).toString('utf8');
}

// The log's hypercalls after the boot's clearing of the window.
function loggedHypercalls(url: URL): string[] {
  const { events } = readQemuLog(unzip(url));
  const lines = events.flatMap(({ name, args }) => {
    if (!name.startsWith('spapr_iommu_pci_')) return [];
    const window = `liobn=${hex(args.liobn as bigint)} ioba=${hex(args.ioba as bigint)}`;
    if (name === 'spapr_iommu_pci_put') return [`put ${window} tce=${hex(args.tce as bigint)}`];
    if (name === 'spapr_iommu_pci_stuff') return [`stuff ${window} npages=${args.npages}`];
    if (name !== 'spapr_iommu_pci_indirect') return [];
    return [
      `indirect ${window} iobaN=${hex(args.iobaN as bigint)} tceN=${hex(args.tceN as bigint)}`,
    ];
  });
  return lines.slice(512);
}

interface Replayed {
  maps: number;
  unmaps: number;
  wrong: string[];
  hypercalls: string[];
}

function replayGuest(events: readonly TraceEvent[]): Replayed {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 31 }] });
  const hypercalls = new LoggedHypercalls(memory);
  let nextPage = 0;
  const ops = createIommuDmaOps({
    table: new IommuTable({ liobn: 0x8000_0000, busOffset: 0n, size: 262_144, pageShift: 12 }),
    tceCalls: new TceCalls({
      hypercalls,
      memory,
      listPage: LIST_PAGE,
      usePutIndirect: true,
      useStuff: true,
      tracer: NO_TRACE,
    }),
    memory,
    // Coherent memory comes from where the recorded kernel took it.
    pages: { pageSize: 4096, allocPages: () => nextPage, freePages() {} } as unknown as GuestPages,
    cpu: () => 0,
  });
  const result: Replayed = { maps: 0, unmaps: 0, wrong: [], hypercalls: hypercalls.lines };
  const out = { hi: 0, lo: 0 };
  for (const { name, args, t } of events) {
    const size = Number(args.size);
    const address = args.dma_addr as bigint;
    const direction = DmaDirection[args.dir as keyof typeof DmaDirection];
    if (name === 'dma_map_page') {
      result.maps += 1;
      ops.map(Number(args.phys_addr), size, direction, out);
    } else if (name === 'dma_alloc') {
      nextPage = Number(BigInt(`0x${args.virt_addr}`) & 0x0fff_ffff_ffff_ffffn);
      ops.allocCoherent(size, out);
    } else if (name === 'dma_unmap_page') {
      result.unmaps += 1;
      ops.unmap(hiOf(Number(address)), loOf(Number(address)), size, direction);
      continue;
    } else {
      continue;
    }
    const found = joinNumber(out.hi, out.lo);
    if (BigInt(found) !== address) {
      result.wrong.push(`${t}: ${name}: ${hex(found)}, Linux has ${hex(address)}`);
    }
  }
  return result;
}

describe.each(SINGLE_CPU)('%s', (name) => {
  const recording = findRecording(name);
  const { events } = readFtrace(unzip(recording.files.guestTrace));
  const replayed = replayGuest(events);

  test('every DMA address is the one that Linux gave [driver-6.1-2]', () => {
    expect(replayed.maps).toBeGreaterThan(100);
    expect(replayed.maps).toBe(recording.meta.guestEvents.dma_map_page);
    expect(replayed.unmaps).toBe(recording.meta.guestEvents.dma_unmap_page);
    expect(replayed.wrong).toEqual([]);
  });

  test('every hypercall is the one that QEMU logged, in order', () => {
    const logged = loggedHypercalls(recording.files.qemuTrace);
    expect(replayed.hypercalls).toHaveLength(recording.meta.guestEvents.hcall_entry ?? 0);
    expect(replayed.hypercalls).toEqual(logged.slice(0, replayed.hypercalls.length));
  });
});

test('a map that is left out moves the addresses after it: these tests can fail', () => {
  const recording = findRecording('linux6.12-pinhole');
  const { events } = readFtrace(unzip(recording.files.guestTrace));
  const first = events.findIndex(({ name }) => name === 'dma_map_page');
  const changed = events.filter((_, i) => i !== first).slice(0, 20);
  expect(replayGuest(changed.filter(({ name }) => name !== 'dma_unmap_page')).wrong).not.toEqual(
    [],
  );
});
