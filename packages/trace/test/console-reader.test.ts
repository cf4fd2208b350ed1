import { createRng } from '@pinhole/base';
import { recordings } from '@pinhole/recordings';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { ConsoleFact, ConsoleSummary } from '../src/index.js';
import { createConsoleReader, readConsole } from '../src/index.js';
import { recordedBytes } from './support/recorded.js';

function read(bytes: Uint8Array, sizes: readonly number[] = []) {
  const facts: ConsoleFact[] = [];
  const reader = createConsoleReader({ onFact: (fact) => facts.push(fact) });
  let at = 0;
  for (const size of sizes) {
    const chunk = bytes.slice(at, at + size);
    reader.push(chunk);
    chunk.fill(0x21);
    at += size;
  }
  reader.push(bytes.slice(at));
  const summary: ConsoleSummary = reader.end();
  return { facts, summary };
}

const ofKind = <K extends ConsoleFact['kind']>(facts: readonly ConsoleFact[], kind: K) =>
  facts.filter((fact): fact is Extract<ConsoleFact, { kind: K }> => fact.kind === kind);

describe('messages', () => {
  test.each<[string, object]>([
    [
      'Linux version 6.12.107+deb13-powerpc64le (debian) (gcc-14) #1 SMP Debian',
      {
        kind: 'kernel',
        release: '6.12.107+deb13-powerpc64le',
        build: '(debian) (gcc-14) #1 SMP Debian',
      },
    ],
    ['Hypervisor detected: Xen HVM', { kind: 'hypervisor', name: 'Xen HVM' }],
    ['Xen 4.17 support found', { kind: 'hypervisor', name: 'Xen' }],
    [
      'Preparing to boot Linux version 6.1.0 (x) #1',
      { kind: 'kernel', release: '6.1.0', build: '(x) #1' },
    ],
    [
      'Kernel command line: console=hvc0 größe=1',
      { kind: 'command-line', commandLine: 'console=hvc0 größe=1' },
    ],
    ['command line: ', { kind: 'command-line', commandLine: '' }],
    [
      'Dentry cache hash table entries: 262144 (order: 5, 2097152 bytes, linear)',
      { kind: 'page-size', bytes: 65536 },
    ],
    ['smp: Brought up 2 nodes, 16 CPUs', { kind: 'cpus', cpus: 16, nodes: 2 }],
    [
      'Memory: 0K/2097152K available (1K kernel code)',
      { kind: 'memory', availableBytes: 0, totalBytes: 2 ** 31 },
    ],
    [
      'PCI host bridge /pci@800000020000001  ranges:',
      { kind: 'host-bridge', path: '/pci@800000020000001', buid: 0x800_0000_2000_0001n },
    ],
    [
      'C0500Populating /pci@800000020000000',
      { kind: 'host-bridge', path: '/pci@800000020000000', buid: 0x800_0000_2000_0000n },
    ],
    [
      '                     00 0800 (D) : 1af4 1041    virtio [ net ]',
      {
        kind: 'pci-device',
        source: 'firmware',
        address: '00:01.0',
        vendor: 0x1af4,
        device: 0x1041,
        name: 'virtio [ net ]',
      },
    ],
    [
      'pci 0000:00:01.0: [1af4:1042] type 00 class 0x010000 conventional PCI endpoint',
      {
        kind: 'pci-device',
        source: 'kernel',
        address: '0000:00:01.0',
        vendor: 0x1af4,
        device: 0x1042,
      },
    ],
    [
      'pci 0000:00:00.0: Adding to iommu group 0',
      { kind: 'iommu-group', device: '0000:00:00.0', group: 0 },
    ],
    [
      'IOMMU table initialized, virtual merging disabled',
      { kind: 'iommu-table', virtualMerging: false },
    ],
    [
      'iommu: Default domain type: Translated ',
      { kind: 'iommu-domain', domain: 'Translated', fromCommandLine: false },
    ],
    [
      'iommu: Default domain type: Passthrough (set via kernel command line)',
      { kind: 'iommu-domain', domain: 'Passthrough', fromCommandLine: true },
    ],
    [
      'iommu: DMA domain TLB invalidation policy: strict mode ',
      { kind: 'iommu-policy', isStrict: true },
    ],
    [
      'iommu: DMA domain TLB invalidation policy: lazy mode (set via kernel command line)',
      { kind: 'iommu-policy', isStrict: false },
    ],
    [
      'pci 0000:00:00.0: ibm,query-pe-dma-windows(2026) 10000 8000000 20000000 returned -3, lb=2000000000 ps=107 wn=1',
      {
        kind: 'ddw-query',
        device: '0000:00:00.0',
        token: 0x2026,
        configAddr: 0x10000,
        buid: 0x800_0000_2000_0000n,
        status: -3,
        largestBlock: 0x20_0000_0000n,
        pageSizes: 0x107,
        windowsAvailable: 1,
      },
    ],
    [
      'nvme 0121:50:00.0: ibm,query-pe-dma-windows(53) 500000 8000000 20000121 returned 0',
      {
        kind: 'ddw-query',
        device: '0121:50:00.0',
        token: 0x53,
        configAddr: 0x50_0000,
        buid: 0x800_0000_2000_0121n,
        status: 0,
      },
    ],
    [
      'nvme 0121:50:00.0: ibm,create-pe-dma-window(54) 500000 8000000 20000121 10 21 returned 0 (liobn = 0x70000121 starting addr = 8000000 0)',
      {
        kind: 'ddw-create',
        device: '0121:50:00.0',
        token: 0x54,
        configAddr: 0x50_0000,
        buid: 0x800_0000_2000_0121n,
        pageShift: 16,
        windowShift: 33,
        status: 0,
        liobn: 0x7000_0121,
        address: 0x800_0000_0000_0000n,
      },
    ],
    [
      'a 0:0: ibm,reset-pe-dma-windows(2029) for Limited Addr Support: 0 8000000 20000000 returned -3 ',
      {
        kind: 'ddw-reset',
        device: '0:0',
        token: 0x2029,
        configAddr: 0,
        buid: 0x800_0000_2000_0000n,
        status: -3,
      },
    ],
    [
      "virtio-pci 0000:00:00.0: current IOMMU table in use, can't be replaced.",
      {
        kind: 'ddw-note',
        device: '0000:00:00.0',
        message: "current IOMMU table in use, can't be replaced.",
      },
    ],
    [
      'virtio-pci 0000:00:00.0: lsa_required: 0, lsa_enabled: 0, direct mapping: 1',
      {
        kind: 'direct-mapping',
        device: '0000:00:00.0',
        lsaRequired: false,
        lsaEnabled: false,
        directMapping: true,
      },
    ],
    [
      'virtio-pci 0000:00:00.0: iommu: 64-bit OK but direct DMA is limited by 800000100000000',
      { kind: 'dma-limit', device: '0000:00:00.0', limit: 0x800_0001_0000_0000n },
    ],
    [
      'virtio-pci 0000:00:00.0: iommu_alloc failed, tbl c000000003b86000 vaddr c00000003fe6e000 npages 146',
      {
        kind: 'iommu-alloc-failed',
        device: '0000:00:00.0',
        table: 'c000000003b86000',
        vaddr: 'c00000003fe6e000',
        npages: 146,
      },
    ],
    [
      'iommu_alloc failed, tbl c00000000263c480 vaddr c000000133b00000 npages 10',
      {
        kind: 'iommu-alloc-failed',
        table: 'c00000000263c480',
        vaddr: 'c000000133b00000',
        npages: 16,
      },
    ],
    [
      'iommu_map_page: 222 callbacks suppressed',
      { kind: 'suppressed', function: 'iommu_map_page', count: 222 },
    ],
    [
      'software IO TLB: mapped [mem 0x0000000077fdd000-0x000000007bfdd000] (64MB)',
      { kind: 'swiotlb', start: 0x77fd_d000n, end: 0x7bfd_d000n, bytes: 2 ** 26 },
    ],
    ['software IO TLB: area num 4.', { kind: 'swiotlb-areas', areas: 4 }],
    [
      'virtio-pci 0000:00:01.0: swiotlb buffer is full (sz: 294912 bytes), total 1024 (slots), used 725 (slots)',
      {
        kind: 'swiotlb-full',
        device: '0000:00:01.0',
        bytes: 294912,
        totalSlots: 1024,
        usedSlots: 725,
      },
    ],
    [
      'virtio_scsi virtio1: device must provide VIRTIO_F_ACCESS_PLATFORM',
      { kind: 'virtio-required', device: 'virtio1', feature: 'VIRTIO_F_ACCESS_PLATFORM' },
    ],
    [
      'virtio_blk virtio0: virtio: device refuses features: b',
      { kind: 'virtio-refused', device: 'virtio0', status: 0xb },
    ],
    [
      'Memory Encryption Features active: AMD SEV',
      { kind: 'memory-encryption', features: 'AMD SEV' },
    ],
    [
      'AMD Memory Encryption Features active: SEV',
      { kind: 'memory-encryption', features: 'AMD SEV' },
    ],
    [
      `dev /sys/bus/virtio/devices/virtio0 features ${'01'.padEnd(64, '0')} status 0x0000000f`,
      { kind: 'virtio-features', device: 'virtio0', features: 2n, width: 64, status: 15 },
    ],
    ['1'.padStart(128, '0'), { kind: 'virtio-features', features: 1n << 127n, width: 128 }],
  ])('%s', (message, fact) => {
    expect(readConsole(`${message}\n`)).toEqual([{ ...fact, line: 1 }]);
    expect(readConsole(`x\n[    1.000002] ${message}\r\n`)).toEqual([
      { ...fact, line: 2, t: 1_000_002 },
    ]);
  });

  test.each([
    'somebody said: Linux version 6.1.0 (x)',
    'Memory: 1989768K',
    'Dentry cache hash table entries: 512 (order: 0, 4096 bytes, linear)',
    'Dentry cache hash table entries: 512 (order: -1, 2048 bytes, linear)',
    'Dentry cache hash table entries: 512 (order: 1, 6144 bytes, linear)',
    'lsa_required: 0, lsa_enabled: 0, direct mapping: 1',
    'a b: lsa_required: 0, lsa_enabled: 0, direct mapping: 2',
    '01'.repeat(33),
    '0'.repeat(63),
    '',
  ])('no fact: %s', (message) => {
    expect(readConsole(`${message}\n`)).toEqual([]);
  });
});

describe('prefixes', () => {
  const CPUS = 'smp: Brought up 1 node, 4 CPUs';
  test.each([
    ['', undefined],
    ['[    0.182581] ', 182_581],
    ['[12345.182581] ', 12_345_182_581],
    ['[    0.182581][    T1] ', 182_581],
    ['<6>[    0.182581] ', 182_581],
    ['<6>', undefined],
    ['kern  :info  : [    0.182581] ', 182_581],
    ['#1 SMP Debian 6.[    0.182581] ', 182_581],
    ['[Tue Nov 24 12:00:00 2026] ', undefined],
    ['2026-11-24T12:00:00,123456+00:00 ', undefined],
    ['2026-11-24T12:00:00+0000 host kernel: ', undefined],
    ['Nov 24 12:00:00 host kernel: ', undefined],
    ['Nov 24 12:00:00 host kernel: [    0.182581] ', 182_581],
    ['\u001b[0m\u001b[?25h', undefined],
    ['\u001b]0;a title\u0007', undefined],
    ['C0000\rC0100\r', undefined],
    ['\u0000\u0001\b', undefined],
  ])('%j', (prefix, t) => {
    expect(readConsole(`${prefix}${CPUS}\r\n`)).toEqual([
      { kind: 'cpus', nodes: 1, cpus: 4, line: 1, ...(t === undefined ? {} : { t }) },
    ]);
  });
});

test('the page size is told once a boot, the firmware says which bridge a device is on', () => {
  const table = (order: number) =>
    `x hash table entries: 1 (order: ${order}, 2097152 bytes, linear)`;
  const boot = ['Populating /pci@800000020000001', '00 0000 (D) : 1af4 1042 virtio [ block ]'];
  const lines = [...boot, 'Linux version 1 x', table(9), table(9), 'Linux version 2 x', table(5)];
  expect(
    readConsole(`${lines.join('\n')}\n`).map((fact) => [
      fact.kind,
      fact.kind === 'page-size' ? fact.bytes : fact.kind === 'pci-device' ? fact.buid : 0,
    ]),
  ).toEqual([
    ['host-bridge', 0],
    ['pci-device', 0x800_0000_2000_0001n],
    ['kernel', 0],
    ['page-size', 4096],
    ['kernel', 0],
    ['page-size', 65536],
  ]);
});

describe.each(recordings.map((recording) => [recording.name, recording] as const))(
  '%s',
  (_, { files, meta, boots }) => {
    const { facts } = read(recordedBytes(files.console));
    const isPseries = meta.machine === 'pseries';

    test('the kernel, its page size, memory and CPUs are those of meta.json', () => {
      expect(new Set(ofKind(facts, 'kernel').map(({ release }) => release))).toEqual(
        new Set([meta.linux.split(' ')[0]]),
      );
      const page = Number(/(\d+) KiB pages/.exec(meta.linux)?.[1]) * 1024;
      expect(new Set(ofKind(facts, 'page-size').map(({ bytes }) => bytes))).toEqual(
        new Set([page]),
      );
      expect(new Set(ofKind(facts, 'cpus').map(({ cpus }) => cpus))).toEqual(new Set([meta.smp]));
      for (const { commandLine } of ofKind(facts, 'command-line')) {
        expect(commandLine).toBe(meta.kernelCommandLine);
      }
      expect(ofKind(facts, 'command-line').length).toBeGreaterThan(0);
      const total = 2 ** 31;
      for (const { totalBytes } of ofKind(facts, 'memory')) {
        expect(totalBytes).toBeGreaterThan(0.99 * total);
        expect(totalBytes).toBeLessThanOrEqual(total);
      }
    });

    test('its devices and their features', () => {
      const perBoot = meta.qemuCommand.match(/-device virtio-/g)?.length ?? 0;
      const known = new Set(ofKind(facts, 'pci-device').map(({ address }) => address.slice(-4)));
      // Channel devices are no PCI devices.
      if (!meta.qemuCommand.includes('-ccw')) expect(known.size).toBeGreaterThanOrEqual(perBoot);
      const features = ofKind(facts, 'virtio-features');
      expect(new Set(features.map(({ device }) => device)).size).toBe(perBoot);
      for (const { features: bits, status } of features) {
        // VIRTIO_F_VERSION_1, and DRIVER_OK.
        expect((bits >> 32n) & 1n).toBe(1n);
        expect(status).toBe(15);
      }
    });

    // QEMU's log may hold more boots than the console.
    test.runIf(isPseries)('its windows', () => {
      expect(ofKind(facts, 'host-bridge')[0]?.buid).toBe(0x800_0000_2000_0000n);
      expect(ofKind(facts, 'iommu-table').length).toBeGreaterThan(0);
      const queries = new Set(ofKind(facts, 'ddw-query').map((fact) => `${fact.t}`));
      expect(queries.size).toBe((meta.qemuEvents.spapr_iommu_ddw_query ?? 0) / boots);
      const creates = ofKind(facts, 'ddw-create').filter(({ status }) => status === 0);
      expect(new Set(creates.map(({ t }) => t)).size).toBe(
        Math.ceil((meta.qemuEvents.spapr_iommu_ddw_create ?? 0) / boots),
      );
    });
  },
);

describe('hostile', () => {
  const { files } = recordings.find(({ name }) => name === 'linux6.12-ddw-lost')!;
  const recorded = recordedBytes(files.console);

  test('any chunks give the same', () => {
    const whole = read(recorded);
    fc.assert(
      fc.property(fc.array(fc.nat(3000), { maxLength: 40 }), (sizes) => {
        expect(read(recorded, sizes)).toEqual(whole);
      }),
      { numRuns: 30 },
    );
    const small = recorded.slice(0, 6000);
    expect(
      read(
        small,
        Array.from(small, () => 1),
      ),
    ).toEqual(read(small));
  });

  test('random bytes, and random bytes in a console', () => {
    const rng = createRng(1);
    for (let round = 0; round < 100; round += 1) {
      const noise = Uint8Array.from({ length: rng.below(3000) }, () => rng.below(256));
      read(noise);
      const damaged = recorded.slice();
      for (let i = 0; i < 200; i += 1) damaged[rng.below(damaged.length)] = rng.below(256);
      expect(read(damaged).facts.length).toBeLessThan(200);
    }
  });

  test('a line of a mebibyte is skipped, the next one is read', () => {
    const long = new Uint8Array(1 << 20).fill(0x30);
    long[long.length - 1] = 0x0a;
    const { facts, summary } = read(Buffer.concat([long, recorded]));
    expect(facts).toEqual(read(recorded).facts.map((fact) => ({ ...fact, line: fact.line + 1 })));
    expect(summary.skipped).toBe(1);
  });

  test('a last line that may be cut is not read', () => {
    expect(readConsole('Kernel command line: console=hv')).toEqual([]);
  });

  test.each([
    ['zeros', '0'.repeat(16_000)],
    ['brackets', '[ '.repeat(8000)],
    ['times', '[    1.000000] '.repeat(1000)],
    ['escapes', '\u001b[1'.repeat(5000)],
    ['devices', 'a b: lsa_required: '.repeat(800)],
    ['tables', 'x hash table entries: 1 (order: '.repeat(500)],
    ['returns', 'x\r'.repeat(8000)],
  ])('a long line of %s takes no time', (_, text) => {
    const bytes = new TextEncoder().encode(`${text}\n`.repeat(20));
    const start = performance.now();
    read(bytes);
    expect(performance.now() - start).toBeLessThan(1000);
  });
});
