/** What is explained from a recording's command line agrees with what its traces and console show. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { type Recording, recordings } from '@pinhole/recordings';
import { readConsole } from '@pinhole/trace';
import { expect, test } from 'vitest';
import { explain } from '../../src/index.js';

const pseries = recordings.filter(({ meta }) => meta.machine === 'pseries');

const read = (url: URL): string => gunzipSync(readFileSync(url)).toString('utf8');

/** Reads that a log has in a row. Bytes; with 64 KiB pages there are none of 4 KiB. */
const SIZES = [4096, 65536];

/**
 * Hypercalls of one read, by the log: those from one notification to the next, where both are of
 * reads of that size. The most frequent count.
 */
function hcallsPerRead(log: string): { size: number; hcalls: number } {
  const counts = new Map<string, number>();
  let hcalls = 0;
  let last = 0;
  let isAfterNotify = false;
  for (const line of log.split('\n')) {
    if (/spapr_iommu_pci_(put|indirect|stuff)/.test(line)) hcalls += 1;
    else if (line.includes('virtio_queue_notify')) isAfterNotify = true;
    else if (isAfterNotify && /virtio_blk_handle_(read|write)/.test(line)) {
      const size = Number(/handle_read .* nsectors (\d+)/.exec(line)?.[1] ?? 0) * 512;
      const key = `${size} ${hcalls}`;
      if (size === last && SIZES.includes(size)) counts.set(key, (counts.get(key) ?? 0) + 1);
      last = size;
      isAfterNotify = false;
      hcalls = 0;
    }
  }
  const sorted = [...counts].sort((a, b) => b[1] - a[1]).map(([key]) => key.split(' ').map(Number));
  const [size = 0, found = 0] = sorted.find(([at]) => at === SIZES[0]) ?? sorted[0] ?? [];
  return { size, hcalls: found };
}

function explained(recording: Recording) {
  const { meta, kernel, files } = recording;
  return explain({
    qemu: `${meta.qemuCommand} -append '${meta.kernelCommandLine}'`,
    kernels: [kernel],
    console: readConsole(read(files.console)),
    set: meta.qemu.startsWith('10.') ? ['machine.qemu="10.0"'] : [],
  });
}

test.each(pseries)('$name: path and hypercalls', (recording) => {
  const { devices, contradictions, notUnderstood } = explained(recording);
  const answer = devices[0]?.answers[0];
  const log = read(recording.files.qemuTrace);
  const hasSecondWindow = /spapr_iommu_ddw_create.* ret[= ]0/.test(log) || /ddw_create/.test(log);
  const usesWindow = (recording.meta.qemuEvents.spapr_iommu_pci_put ?? 0) > 0;
  const unmaps = (recording.meta.qemuEvents.spapr_iommu_pci_stuff ?? 0) - 512 * recording.boots;
  const path = usesWindow
    ? unmaps > 0
      ? 'default-window'
      : 'default-window-leak'
    : hasSecondWindow
      ? 'second-window'
      : 'physical';
  expect(answer?.path.id).toBe(path);
  const { size, hcalls } = hcallsPerRead(log);
  expect(answer?.cost?.rows.find((row) => row.size === size)?.hcalls).toBe(hcalls);
  // The console proves the same, and no word of the command line was lost.
  expect(contradictions).toEqual([]);
  expect(notUnderstood).toEqual([]);
});

test.each(pseries.filter(({ name }) => name.includes('lost') || name.includes('ddw')))(
  '$name: the console alone',
  (recording) => {
    const facts = readConsole(read(recording.files.console));
    const { devices, findings, contradictions, kernels } = explain({ console: facts });
    expect(kernels).toEqual([recording.kernel]);
    expect(contradictions).toEqual([]);
    expect(devices[0]?.answers).toHaveLength(1);
    const isLost = recording.name.includes('lost');
    expect(findings.some(({ id }) => id === 'ddw-lost')).toBe(isLost);
    expect(findings.some(({ id }) => id === 'leak')).toBe(recording.name === 'linux7.2-ddw-lost');
    expect(devices[0]?.answers[0]?.path.id).toBe(
      recording.name === 'linux7.2-ddw-lost'
        ? 'default-window-leak'
        : isLost
          ? 'default-window'
          : 'second-window',
    );
  },
);

/** What one read made the guest do, by its trace. */
interface RecordedRead {
  readonly size: number;
  /** Pieces that the guest mapped: data, header, status, table. */
  readonly maps: number;
  readonly iommuMaps: number;
  /** Copied into and out of bounce buffers. */
  readonly copied: number;
}

/** Of the guest's trace: a read is what is mapped from a header of 16 bytes to the next. */
function readsOfGuest(ftrace: string): RecordedRead[] {
  const reads: { -readonly [K in keyof RecordedRead]: RecordedRead[K] }[] = [];
  const isBounced = ftrace.includes('swiotlb_bounced');
  // The IOMMU's own event of a mapping comes before that of the DMA API.
  let iommuMaps = 0;
  for (const line of ftrace.split('\n')) {
    if (/ map: IOMMU/.test(line)) iommuMaps += 1;
    const [, what, dir, text] = /dma_(map|unmap)_page: \S+ dir=(\w+) .*size=(\d+)/.exec(line) ?? [];
    if (what === undefined) continue;
    const bytes = Number(text);
    if (what === 'map' && dir === 'TO_DEVICE' && bytes === 16) {
      reads.push({ size: 0, maps: 0, iommuMaps: 0, copied: 0 });
    }
    const read = reads.at(-1);
    if (read === undefined) continue;
    if (what === 'map') {
      read.maps += 1;
      read.iommuMaps += iommuMaps;
      iommuMaps = 0;
      if (dir === 'FROM_DEVICE' && bytes >= 512) read.size += bytes;
    }
    // Into the pool at a map, whatever the direction; out of it at the unmap of what was read.
    if (isBounced && (what === 'map' || dir === 'FROM_DEVICE')) read.copied += bytes;
  }
  return reads;
}

/** What the IOMMUs of QEMU 7.2 log of a translation, but for those of interrupts. */
const TRANSLATION =
  /^(vtd_dmar_translate|smmuv3_translate_success|virtio_iommu_translate_out) (?!.*(=|-> )0x8020040\b)/;
/** And of a command that asks for something; a wait goes with each. */
const COMMAND = /^(vtd_inv_desc_iotlb_pages|smmuv3_s1_range_inval|virtio_iommu_(un)?map) /;

/** Lines from one read's message to that of the next, where both are of that size. */
function linesPerRead(log: string, what: RegExp, size: number): number[] {
  const found: number[] = [];
  let count = 0;
  let isLast = false;
  for (const line of log.split('\n')) {
    if (what.test(line)) count += 1;
    const read = /virtio_blk_handle_read .* nsectors (\d+)/.exec(line);
    if (read === null) continue;
    const isOne = Number(read[1]) * 512 === size;
    if (isOne && isLast) found.push(count);
    isLast = isOne;
    count = 0;
  }
  return found;
}

/** Data and status twice, the header once, and a table of 16 bytes for each piece but itself once. */
function copiedBytes(size: number, maps: number, requests: number): number {
  return 2 * (size + requests) + 16 * requests + 16 * (maps - requests);
}

function mostFrequent<T>(values: readonly T[]): T | undefined {
  const counts = new Map<string, [T, number]>();
  for (const value of values) {
    const key = JSON.stringify(value);
    counts.set(key, [value, (counts.get(key)?.[1] ?? 0) + 1]);
  }
  return [...counts.values()].sort(([, a], [, b]) => b - a)[0]?.[0];
}

test.each(recordings.filter(({ meta }) => meta.machine !== 'pseries'))(
  '$name: path, maps, commands, translations and copies of a read',
  (recording) => {
    const { devices, contradictions, notUnderstood } = explained(recording);
    const { guestEvents: events } = recording.meta;
    const path =
      (events.swiotlb_bounced ?? 0) > 0
        ? 'bounced'
        : (events.unmap ?? 0) > 0
          ? 'viommu'
          : (events.dma_map_page ?? 0) > 0
            ? 'no-iommu'
            : 'physical';
    const answer = devices[0]?.answers[0];
    expect(answer?.path.id).toBe(path);
    expect(contradictions).toEqual([]);
    expect(notUnderstood.filter(({ effect }) => effect === 'none')).toEqual([]);
    const [row] = answer?.cost?.rows ?? [];
    const log = read(recording.files.qemuTrace);
    const perRead = (what: RegExp) => mostFrequent(linesPerRead(log, what, 4096)) ?? 0;
    expect(row?.translations).toBe(perRead(TRANSLATION));
    // One invalidation for many unmaps is none for most reads.
    expect(Math.floor(row?.iommu.commands ?? 0)).toBe(perRead(COMMAND));
    const reads = readsOfGuest(read(recording.files.guestTrace));
    const small = mostFrequent(reads.filter(({ size }) => size === 4096));
    // 6.1 has no event for what the DMA API maps, and on the bypass it maps nothing.
    if (events.dma_map_page !== undefined) {
      expect({
        size: 4096,
        maps: 3 + (row?.segments ?? 0),
        iommuMaps: row?.iommu.maps,
        copied: row?.bytesCopied,
      }).toEqual(small);
    }
    // Larger reads are in more pieces there: what a piece costs is the same.
    for (const { maps, iommuMaps, size, copied } of reads.filter((one) => one.size >= 65536)) {
      expect(iommuMaps).toBe(path === 'viommu' ? maps : 0);
      if (path === 'bounced') expect(copied).toBe(copiedBytes(size, maps, 1));
    }
    for (const { segments, iommu, requests, size, bytesCopied } of answer?.cost?.rows ?? []) {
      const maps = segments + 3 * requests;
      expect(iommu.maps).toBe(path === 'viommu' ? maps : 0);
      if (path === 'bounced') expect(bytesCopied).toBe(copiedBytes(size, maps, requests));
    }
  },
);
