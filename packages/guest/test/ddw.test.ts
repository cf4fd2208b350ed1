/** The second window, against what real kernels printed on their consoles. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { createRng } from '@pinhole/base';
import { createSpaprHypercalls, H_PUT_TCE_INDIRECT, RTAS_TOKENS } from '@pinhole/hcall';
import { createGuestMemory } from '@pinhole/memory';
import { findRecording, type RecordingName } from '@pinhole/recordings';
import { SpaprIommu, SpaprPhb } from '@pinhole/tce';
import { describe, expect, test } from 'vitest';
import { findKernelProfile, GuestPages, PseriesDma } from '../src/index.js';

const GIB = 2 ** 30;

function boot(kernelId: string, lrdrMaxAddress: number, ddw = true) {
  const kernel = findKernelProfile(kernelId);
  if (kernel === undefined) throw new Error(`no kernel ${kernelId}`);
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 * GIB }] });
  const phb = new SpaprPhb({ memory, ddw });
  const hypercalls = createSpaprHypercalls({ iommu: new SpaprIommu({ phbs: [phb] }), memory });
  const pages = new GuestPages({
    pageSize: kernel.pageSize,
    kernel: { base: 2 ** 24, size: 2 ** 28 },
    user: { base: GIB, size: GIB },
    rng: createRng(1),
  });
  const dma = new PseriesDma({
    kernel,
    memory,
    pages,
    hypercalls,
    hasMultiTce: true,
    cpus: 1,
    phb: {
      buid: phb.buid,
      dmaWindow: { liobn: 0x8000_0000, busOffset: 0n, size: GIB },
      ...(ddw
        ? {
            ddwApplicable: [
              RTAS_TOKENS['ibm,query-pe-dma-window'],
              RTAS_TOKENS['ibm,create-pe-dma-window'],
              RTAS_TOKENS['ibm,remove-pe-dma-window'],
            ] as const,
            ddwExtensions: [RTAS_TOKENS['ibm,reset-pe-dma-window'], 1],
          }
        : {}),
      lrdrMaxAddress,
    },
  });
  return { dma, phb, hypercalls };
}

// The DDW lines of a console, without time stamps and device names.
function consoleLines(name: RecordingName): string[] {
  const text = gunzipSync(readFileSync(findRecording(name).files.console)).toString('utf8');
  // User space prints the kernel's log once more: each line counts once, by its time stamp.
  return [...new Set(text.split('\n'))]
    .map((line) => /virtio-pci [^:]+:[^:]+:[^:]+: (ibm,.*?)\r?$/.exec(line)?.[1])
    .filter((line) => line !== undefined);
}

const RUNS = [
  ['linux6.1-ddw', 'linux-6.1', 0, true],
  ['linux6.12-ddw', 'linux-6.12', 4 * GIB, true],
  ['linux6.12-ddw-lost', 'linux-6.12', 0, false],
  ['linux6.12-qemu10-ddw', 'linux-6.12', 2 * GIB, true],
] as const;

describe.each(RUNS)('%s', (name, kernel, lrdr, isDirect) => {
  test('the guest asks and is answered as the console shows', () => {
    const { dma } = boot(kernel, lrdr);
    const recorded = consoleLines(name);
    const steps = dma
      .probe()
      .steps.map((step) => step.replace(/^\w+ mask: /, ''))
      .filter((step) => step.startsWith('ibm,'));
    expect(recorded.length).toBeGreaterThanOrEqual(2);
    expect(steps).toEqual(recorded);
  });

  test(`the second window is ${isDirect ? 'there, with 128 entries put by one hypercall' : 'lost'}`, () => {
    const { dma, phb, hypercalls } = boot(kernel, lrdr);
    const result = dma.probe();
    expect(result.ops.name).toBe(isDirect ? 'dma-direct' : 'dma-iommu');
    expect(phb.activeWindows).toBe(isDirect ? 2 : 1);
    expect(phb.tables[1]?.live).toBe(isDirect ? 128 : 0);
    expect(hypercalls.counts.get(H_PUT_TCE_INDIRECT)).toBe(isDirect ? 1 : undefined);
  });
});

test('a bus address in the second window is the physical address plus 2^59', () => {
  const { ops } = boot('linux-6.12', 4 * GIB).dma.probe();
  const out = { hi: 0, lo: 0 };
  expect(ops.map(0x7054_0123, 16, 1, out)).toBe(true);
  expect(out).toEqual({ hi: 0x0800_0000, lo: 0x7054_0123 });
});

test('a second device finds the window that the first one made', () => {
  const { dma, hypercalls } = boot('linux-6.12', 4 * GIB);
  dma.probe();
  const before = new Map(hypercalls.counts);
  expect(dma.probe().steps[0]).toContain('exists already');
  expect(hypercalls.counts).toEqual(before);
});

test('a bridge that failed once is not asked again', () => {
  const { dma, hypercalls } = boot('linux-6.12', 0);
  dma.probe();
  const before = new Map(hypercalls.counts);
  expect(dma.probe().steps[0]).toContain('list of failed bridges');
  expect(hypercalls.counts).toEqual(before);
});

test('without dynamic windows there is nothing to ask', () => {
  const { dma, phb } = boot('linux-6.12', 4 * GIB, false);
  expect(dma.probe().steps[0]).toContain('no ibm,ddw-applicable');
  expect(phb.activeWindows).toBe(1);
});
