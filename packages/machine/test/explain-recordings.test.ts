/** What is explained from a recording's command line agrees with what its traces and console show. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { type Recording, recordings } from '@pinhole/recordings';
import { readConsole } from '@pinhole/trace';
import { expect, test } from 'vitest';
import { explain } from '../src/index.js';

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

test.each(recordings.filter(({ meta }) => meta.machine === 'q35'))(
  '$name: by the rules of its platform',
  (recording) => {
    const { devices, contradictions } = explained(recording);
    const events = recording.meta.guestEvents;
    const path =
      (events.swiotlb_bounced ?? 0) > 0
        ? 'bounced'
        : (events.unmap ?? 0) > 0
          ? 'viommu'
          : 'no-iommu';
    expect(devices[0]?.answers[0]?.path.id).toBe(path);
    expect(contradictions).toEqual([]);
  },
);
