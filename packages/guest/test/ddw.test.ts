/** The second window, against what real kernels printed on their consoles. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { createRng } from '@pinhole/base';
import { H_PUT_TCE_INDIRECT, RTAS_TOKENS, SpaprMachine } from '@pinhole/hcall';
import { createGuestMemory } from '@pinhole/memory';
import { findRecording, RECORDING_NAMES, type RecordingName } from '@pinhole/recordings';
import { describe, expect, test } from 'vitest';
import {
  dmaBitMask,
  findKernelProfile,
  formatStep,
  GuestPages,
  kernelProfileForRelease,
  PseriesDma,
  parseKernelCommandLine,
  VIRTIO_PCI_MASKS,
} from '../src/index.js';

const GIB = 2 ** 30;

interface Boot {
  readonly kernel: string;
  readonly qemu?: '7.2' | '10.0';
  readonly memory?: number;
  readonly maxMemory?: number;
  readonly ddw?: boolean;
  readonly cpus?: number;
  readonly slots?: readonly string[];
  readonly cmdline?: string;
}

function boot(options: Boot) {
  const { memory: size = 2 * GIB, ddw = true, cpus = 1, maxMemory, qemu = '7.2' } = options;
  const kernel = findKernelProfile(options.kernel);
  if (kernel === undefined) throw new Error(`no kernel ${options.kernel}`);
  const memory = createGuestMemory({ regions: [{ base: 0, size }] });
  const machine = new SpaprMachine({
    memory,
    qemu,
    cpus,
    phbs: [{ ddw }],
    ...(maxMemory === undefined ? {} : { maxMemory }),
  });
  const phb = machine.iommu.phbs[0];
  if (phb === undefined) throw new Error('no bridge');
  const { hypercalls } = machine;
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
    cpus,
    commandLine: parseKernelCommandLine(options.cmdline ?? ''),
    ...(options.slots === undefined ? {} : { slots: options.slots }),
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
      lrdrMaxAddress: machine.lrdrMaxAddress,
    },
  });
  return { dma, phb, hypercalls };
}

const ABOUT_DMA =
  /^(?:IOMMU table initialized.*|Disabling MULTITCE.*|(?:virtio-)?pci [0-9a-f:.]+: (?:ibm,|lsa_|iommu: 64|Adding to iommu group|Limited Address|Skipping ibm|Removed default|Warning: IOMMU|iommu_alloc|swiotlb|Using 64-bit direct|Restoring 32-bit).*)$/;

/** What the kernel printed about DMA, boot by boot, without time stamps. */
function consoleLines(name: RecordingName): string[][] {
  const text = gunzipSync(readFileSync(findRecording(name).files.console)).toString('utf8');
  return text
    .split('Preparing to boot Linux version')
    .slice(1)
    .map((bootText) =>
      // User space prints the kernel's log once more: each line counts once, by its time stamp.
      [...new Set(bootText.split(/\r?\n/))]
        .map((line) => /^\[[ .0-9]+\] (.*?)\r?$/.exec(line)?.[1] ?? '')
        .filter((line) => ABOUT_DMA.test(line)),
    );
}

/** The machine that a recording's metadata describes. */
function machineOf(name: RecordingName): Boot {
  const { meta } = findRecording(name);
  const command = meta.qemuCommand;
  const size = (text: string | undefined): number | undefined =>
    text === undefined ? undefined : Number.parseInt(text, 10) * GIB;
  const maxMemory = size(/maxmem=(\d+)G/.exec(command)?.[1]);
  const devices = command.match(/-device virtio-/g)?.length ?? 1;
  return {
    kernel: kernelProfileForRelease(meta.linux)?.id ?? '',
    qemu: meta.qemu.startsWith('10.') ? '10.0' : '7.2',
    memory: size(/-m (\d+)G/.exec(command)?.[1]) ?? 0,
    ddw: !/ddw=off/.test(command),
    cpus: meta.smp,
    slots: Array.from({ length: devices }, (_, i) => `0000:00:0${i}.0`),
    cmdline: meta.kernelCommandLine,
    ...(maxMemory === undefined ? {} : { maxMemory }),
  };
}

const PSERIES = RECORDING_NAMES.filter((name) => findRecording(name).meta.machine === 'pseries');

describe.each(PSERIES)('%s', (name) => {
  test('the kernel says about DMA what the console shows, word for word', () => {
    const boots = consoleLines(name);
    expect(boots.length).toBeGreaterThan(0);
    const machine = machineOf(name);
    const { dma } = boot(machine);
    for (const slot of machine.slots ?? []) dma.probe({ slot });
    for (const recorded of boots) {
      expect(recorded.length).toBeGreaterThanOrEqual(2);
      expect(dma.log).toEqual(recorded);
    }
  });
});

test('another kernel on the same machine says something else: these tests can fail', () => {
  const [recorded] = consoleLines('linux6.12-ddw-lost');
  const { dma } = boot({ ...machineOf('linux6.12-ddw-lost'), kernel: 'linux-6.12.0' });
  dma.probe();
  expect(dma.log).not.toEqual(recorded);
  expect(dma.log.join()).toContain('18 1f returned 0');
});

const RUNS = [
  ['linux6.1-ddw', true],
  ['linux6.12-ddw', true],
  ['linux6.12-ddw-lost', false],
  ['linux6.12-qemu10-ddw', true],
  ['linux7.2-ddw', true],
  ['linux7.2-ddw-lost', false],
] as const;

describe.each(RUNS)('%s', (name, isDirect) => {
  test(`the second window is ${isDirect ? 'there, with 128 entries put by one hypercall' : 'lost'}`, () => {
    const { dma, phb, hypercalls } = boot(machineOf(name));
    const result = dma.probe();
    expect(result.ops.name).toBe(isDirect ? 'dma-direct' : 'dma-iommu');
    expect(phb.activeWindows).toBe(isDirect ? 2 : 1);
    expect(phb.tables[1]?.live).toBe(isDirect ? 128 : 0);
    expect(hypercalls.counts.get(H_PUT_TCE_INDIRECT)).toBe(isDirect ? 1 : undefined);
  });
});

test('a bus address in the second window is the physical address plus 2^59', () => {
  const { ops } = boot({ kernel: 'linux-6.12', maxMemory: 4 * GIB }).dma.probe();
  const out = { hi: 0, lo: 0 };
  expect(ops.map(0x7054_0123, 16, 1, out)).toBe(true);
  expect(out).toEqual({ hi: 0x0800_0000, lo: 0x7054_0123 });
});

test('a second device finds the window that the first one made', () => {
  const { dma, hypercalls } = boot({ kernel: 'linux-6.12', maxMemory: 4 * GIB });
  dma.probe();
  const before = new Map(hypercalls.counts);
  expect(dma.probe().steps.map(formatStep).join('\n')).toContain('find_existing_ddw');
  expect(hypercalls.counts).toEqual(before);
});

test('a bridge that failed once is not asked again', () => {
  const { dma, hypercalls } = boot({ kernel: 'linux-6.12' });
  dma.probe();
  const before = new Map(hypercalls.counts);
  expect(dma.probe().steps.map(formatStep).join('\n')).toContain('yes, and it failed');
  expect(hypercalls.counts).toEqual(before);
});

test('without dynamic windows there is nothing to ask', () => {
  const { dma, phb } = boot({ kernel: 'linux-6.12', maxMemory: 4 * GIB, ddw: false });
  expect(dma.probe().steps.map(formatStep).join('\n')).toContain('ibm,ddw-applicable: not in');
  expect(phb.activeWindows).toBe(1);
});

describe('linux-7.2 when the second window is lost', () => {
  const lost = () => {
    const { dma, phb } = boot({ kernel: 'linux-7.2' });
    const device = dma.probe();
    return { device, live: () => phb.tables[0]?.live };
  };

  test('bus_dma_limit is left at 1 with an offset of 0: maps go through the window, unmaps do not', () => {
    const { dispatch } = lost().device;
    expect(dispatch?.busDmaLimit).toBe(1n);
    expect(dispatch?.dmaOffset).toBe(0n);
    expect(dispatch?.mapsDirect(0x1000)).toBe(false);
    expect(dispatch?.unmapsDirect(0x1010n)).toBe(true);
    expect(dispatch?.allocsDirect()).toBe(false);
    expect(dispatch?.leaksMappings).toBe(true);
  });

  test('nothing is ever unmapped; coherent memory is', () => {
    const { device, live } = lost();
    const out = { hi: 0, lo: 0 };
    for (let i = 0; i < 10; i += 1) {
      expect(device.ops.map(0x1000_0000, 512, 1, out)).toBe(true);
      device.ops.unmap(out.hi, out.lo, 512, 1);
    }
    expect(live()).toBe(10);
    const gpa = device.ops.allocCoherent(4096, out) ?? -1;
    expect(live()).toBe(11);
    device.ops.freeCoherent(gpa, out.hi, out.lo, 4096);
    expect(live()).toBe(10);
    expect(device.because).toContain('nothing is ever unmapped');
  });

  test('a kernel before it unmaps on the same machine', () => {
    const { dma, phb } = boot({ kernel: 'linux-6.12' });
    const { ops } = dma.probe();
    const out = { hi: 0, lo: 0 };
    ops.map(0x1000_0000, 512, 1, out);
    ops.unmap(out.hi, out.lo, 512, 1);
    expect(phb.tables[0]?.live).toBe(0);
  });

  test('with room in lrdr-capacity all goes direct, and nothing leaks', () => {
    const { ops, dispatch } = boot({ kernel: 'linux-7.2', maxMemory: 4 * GIB }).dma.probe();
    expect(dispatch?.busDmaLimit).toBe(0x0800_0001_0000_0000n);
    // By the limit, not by the masks.
    expect(dispatch?.dmaGoDirect(dmaBitMask(64))).toBe(false);
    expect(dispatch?.mapsDirect(2 * GIB)).toBe(true);
    expect(dispatch?.allocsDirect()).toBe(true);
    expect(dispatch?.leaksMappings).toBe(false);
    expect(ops.name).toBe('dma-direct');
  });
});

describe('masks', () => {
  test("virtio's legacy transport: its 44-bit coherent mask undoes the bypass in 6.1", () => {
    const { dma } = boot({ kernel: 'linux-6.1' });
    const { ops, dispatch } = dma.probe(VIRTIO_PCI_MASKS.legacy);
    expect(dispatch?.dmaOpsBypass).toBe(false);
    expect(ops.name).toBe('dma-iommu');
  });

  test('in 6.12 it leaves buffers direct, and rings in the default window', () => {
    const { dma } = boot({ kernel: 'linux-6.12', maxMemory: 4 * GIB });
    const { ops, dispatch } = dma.probe(VIRTIO_PCI_MASKS.legacy);
    expect(ops.name).toBe('dma-direct');
    expect(dispatch?.allocsDirect()).toBe(false);
    const out = { hi: 0, lo: 0 };
    ops.allocCoherent(4096, out);
    expect(out.hi).toBe(0);
  });

  test('6.12 asks for limited-address mode when the mask is smaller than 64 bits, and QEMU has none', () => {
    const { dma } = boot({ kernel: 'linux-6.12', maxMemory: 4 * GIB });
    const mask = dmaBitMask(44);
    const { ops } = dma.probe({ streamingMask: mask, coherentMask: mask });
    expect(ops.name).toBe('dma-iommu');
    expect(dma.log.slice(-3)).toEqual([
      'virtio-pci 0000:00:00.0: Limited Address Space for DDW not Supported, err: -75',
      'virtio-pci 0000:00:00.0: lsa_required: 1, lsa_enabled: 0, direct mapping: 0',
      'virtio-pci 0000:00:00.0: lsa_required: 0, lsa_enabled: 0, direct mapping: 0',
    ]);
  });

  test('a failed create answers "direct" once: who sets no coherent mask sends raw addresses', () => {
    const { dma } = boot({ kernel: 'linux-6.12' });
    const { ops, dispatch } = dma.probe({ coherentMask: undefined });
    expect(dispatch?.dmaOpsBypass).toBe(true);
    expect(ops.name).toBe('dma-direct');
    const out = { hi: 0, lo: 0 };
    ops.map(0x1234_5678, 16, 1, out);
    expect(out).toEqual({ hi: 0, lo: 0x1234_5678 });
  });

  test('disable_ddw: nothing is asked', () => {
    const { dma } = boot({ kernel: 'linux-6.1', cmdline: 'console=hvc0 disable_ddw' });
    expect(dma.probe().because).toContain('disable_ddw');
    expect(dma.log.join()).not.toContain('ibm,');
  });
});
