/** What is made of a report, by its facts: reports made of a healthy one, changed. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { CELL_OUTCOMES, classify } from '../../src/matrix/classify.js';
import { runCell } from '../../src/matrix/run-cell.js';
import type { RunReport } from '../../src/report.js';

const healthy = runCell('linux-6.12/pseries-ddw/flag/normal/qemu/split').report as RunReport;
const { data, counters, evidence } = healthy;
const none = { count: 0, first: [] };

const made = (change: Partial<RunReport>): RunReport => ({ ...healthy, ...change });
const outcomes = (report: RunReport): string[] => classify(report).map(({ outcome }) => outcome);
const text = (report: RunReport): string =>
  classify(report)
    .map((finding) => finding.text)
    .join('; ');

test('a healthy run works, and nothing else', () => {
  expect(outcomes(healthy)).toEqual(['works']);
});

test('the name of the policy does not matter', () => {
  const renamed = made({ machine: { ...healthy.machine, policy: 'always-flag', kernel: 'x' } });
  expect(classify(renamed)).toEqual(classify(healthy));
});

test('refused: the message', () => {
  const refused = made({ negotiated: null, refusal: 'device must provide X' });
  expect(outcomes(refused)).toEqual(['refused']);
  expect(text(refused)).toBe('refused at probe: device must provide X');
});

describe('isolation', () => {
  test('seen in clear is worse than all, also where the data is right', () => {
    const report = made({
      data: { ...data, privateBytesExposed: 8192 },
      evidence: { ...evidence, privatePagesExposed: { count: 2, first: ['0x1000', '0x2000'] } },
    });
    expect(outcomes(report)).toEqual(['isolation-broken', 'works']);
    expect(text(report)).toContain(
      'saw 8 KiB of private buffers in clear, in 2 pages (0x1000, 0x2000)',
    );
  });

  test('touched and not seen is told apart', () => {
    const report = made({
      counters: { ...counters, ciphertextBytesRead: 6, privateBytesWriteRefused: 2 },
      evidence: { ...evidence, privatePagesTouched: { count: 9, first: ['0x1000'] } },
    });
    expect(outcomes(report)[0]).toBe('isolation-broken');
    expect(text(report)).toContain('9 private pages (0x1000, ...)');
    expect(text(report)).toContain('6 B read as ciphertext, 2 B of writes refused, nothing seen');
  });
});

describe('wrong data', () => {
  test('of requests that succeeded is silent', () => {
    const firstWrong = { offset: 512, expected: '00ff', found: 'a5a5' };
    const wrong = { ...data, bytesReadWrong: 512, bytesReadWrongSilently: 512, firstWrong };
    expect(outcomes(made({ data: wrong }))).toEqual(['silently-wrong']);
    expect(text(made({ data: wrong }))).toContain('first at 512: a5a5 instead of 00ff');
  });

  test('of a request that failed is not', () => {
    const failed = { ...data, completed: data.completed - 1, failed: 1, bytesReadWrong: 4096 };
    expect(outcomes(made({ data: failed }))).toEqual(['io-fails']);
    const hung = { ...data, completed: data.completed - 1, hung: 1, imageBytesWrong: 4096 };
    expect(outcomes(made({ data: hung }))).toEqual(['hangs']);
  });

  test('in the image, of writes that succeeded, is silent', () => {
    expect(outcomes(made({ data: { ...data, imageBytesWrong: 1 } }))).toEqual(['silently-wrong']);
  });
});

describe('addresses', () => {
  const misread = {
    address: '0x800000000001000',
    guest: 'bus',
    device: 'physical',
    meant: '0x1000',
    landed: null,
    isWrite: false,
  } as const;

  test('who misread whose', () => {
    const report = made({ evidence: { ...evidence, misread } });
    expect(outcomes(report)).toEqual(['contract-broken', 'works']);
    expect(text(report)).toContain(
      'the guest gave the bus address 0x800000000001000 for its memory at 0x1000; the device took it for a guest-physical address, where nothing is',
    );
    const other = {
      ...misread,
      guest: 'physical',
      device: 'bus',
      meant: null,
      landed: '0x5000',
    } as const;
    expect(text(made({ evidence: { ...evidence, misread: other } }))).toContain(
      'the guest gave the guest-physical address 0x800000000001000 for a bounce buffer; the device took it for a bus address, at 0x5000',
    );
  });

  test('a mapping that is not there is nobody’s misreading, and is why I/O fails', () => {
    const report = made({
      data: { ...data, completed: data.completed - 1, hung: 1 },
      evidence: { ...evidence, misread: { ...misread, device: 'bus' } },
    });
    expect(outcomes(report)).toEqual(['hangs']);
    expect(text(report)).toContain('for its memory at 0x1000, where nothing is mapped');
  });

  test('memory that the device was not given', () => {
    const firstStray = { gpa: '0x9000', length: 16, isWrite: true };
    const report = made({
      counters: { ...counters, strayBytesWritten: 2048 },
      evidence: { ...evidence, firstStray },
    });
    expect(outcomes(report)).toEqual(['contract-broken', 'works']);
    expect(text(report)).toContain(
      'touched 2 KiB that it was not given, and first wrote 16 bytes at 0x9000',
    );
  });
});

describe('what is left behind and what is paid', () => {
  const vhost = {
    ...{ misses: 20, updates: 21, invalidates: 0, evictions: 0, entriesPeak: 20, granules: {} },
    ...{ stalls: 0, missesPerRequest: 2, invalidatesPerRequest: 0, firstStall: null },
  };
  const withVhost = (change: object, workload: object): RunReport =>
    made({
      counters: {
        ...counters,
        vhost: { ...vhost, ...change },
        workload: { ...counters.workload, ...workload },
      },
    });

  test('translations that vhost keeps, since the host’s kernel answers the hypercalls', () => {
    const kept = withVhost({}, { hcalls: { H_STUFF_TCE: 20 } });
    expect(outcomes(kept)[0]).toBe('leaks');
    expect(text(kept)).toContain('vhost was told of no unmap and keeps 21 translations');
    expect(outcomes(withVhost({ invalidates: 1 }, { hcalls: { H_STUFF_TCE: 20 } }))).not.toContain(
      'leaks',
    );
    // Deferred, and said at the end, when vhost was counted.
    const iommu = { maps: 20, unmaps: 20, commands: 0 };
    expect(outcomes(withVhost({}, { iommu }))).toEqual(['leaks', 'works-slow']);
    expect(outcomes(withVhost({ invalidates: 1 }, { iommu }))).toEqual(['works-slow']);
  });

  test('the first use of each page is no price, the same page again is', () => {
    const once = { missesPerRequest: 0.2 };
    expect(outcomes(withVhost(once, {}))).toEqual(['works']);
    // Two pages a request that stay mapped, and two that are mapped for it.
    expect(outcomes(withVhost({}, {}))).toEqual(['works']);
    expect(text(withVhost({}, {}))).toContain('but the first use of each page, 2 IOTLB misses');
    expect(text(withVhost(once, {}))).not.toContain('first use');
    const mapped = withVhost({}, { iommu: { maps: 20, unmaps: 0, commands: 0 } });
    expect(text(mapped)).toContain('2 IOTLB misses and 0 invalidations a request');
    expect(outcomes(withVhost({ ...once, evictions: 3 }, {}))).toEqual(['works-slow']);
  });

  test('entries that nobody unmapped leak; those that are only late do not', () => {
    expect(outcomes(made({ evidence: { ...evidence, entriesLeft: 3 } }))).toEqual([
      'leaks',
      'works',
    ]);
    const late = made({ evidence: { ...evidence, entriesDeferred: 4 } });
    expect(outcomes(late)).toEqual(['works-slow']);
    expect(text(late)).toContain('still reached 4 unmapped pages');
  });

  test.each([
    [{ hcalls: { H_PUT_TCE: data.requests * 3 } }, '3 hypercalls a request'],
    [{ bytesBounced: 4096 }, '4 KiB bounced'],
    [
      { iommu: { maps: data.requests, unmaps: data.requests, commands: 0 } },
      '2 IOMMU maps and unmaps',
    ],
    [{ iommu: { maps: 0, unmaps: 0, commands: data.requests } }, '1 IOMMU commands a request'],
  ])('%j', (change, says) => {
    const workload = { ...counters.workload, ...change };
    const total = Object.values(workload.hcalls).reduce((sum, count) => sum + count, 0);
    const report = made({
      counters: { ...counters, workload, hcallsPerRequestTotal: total / data.requests },
    });
    expect(outcomes(report)).toEqual(['works-slow']);
    expect(text(report)).toContain(says);
  });
});

test('of several the most severe is first, in the order that is documented', () => {
  const report = made({
    data: {
      ...data,
      completed: 0,
      hung: 1,
      failed: 1,
      bytesReadWrong: 9,
      bytesReadWrongSilently: 9,
    },
    evidence: {
      ...evidence,
      privatePagesTouched: { count: 1, first: ['0x0'] },
      privatePagesExposed: none,
      firstStray: { gpa: '0x0', length: 1, isWrite: false },
    },
  });
  const found = outcomes(report);
  expect(found).toEqual([
    'isolation-broken',
    'silently-wrong',
    'contract-broken',
    'hangs',
    'io-fails',
  ]);
  const order = found.map((outcome) => (CELL_OUTCOMES as readonly string[]).indexOf(outcome));
  expect(order).toEqual([...order].sort((a, b) => a - b));
});

test('docs/JSON.md has every outcome, in this order, and every key of a cell', () => {
  const page = readFileSync(new URL('../../../../docs/JSON.md', import.meta.url), 'utf8');
  const [, section = ''] = /^## `pinhole matrix`$(.*?)^## /ms.exec(page) ?? [];
  const [, table = ''] = section.split('| outcome, the most severe first | when |');
  expect([...table.matchAll(/^\| `([a-z-]+)` \|/gm)].map(([, id]) => id)).toEqual([
    ...CELL_OUTCOMES,
  ]);
  const { result } = runCell('linux-6.12/pseries-ddw/flag/normal/qemu/split');
  const keys = [result.cell, result, result.counters, result.costs, result.decision].flatMap(
    (part) => Object.keys(part ?? {}),
  );
  const documented = keys.filter((key) => key !== 'cell');
  expect(documented.filter((key) => !section.includes(`\`${key}\``))).toEqual([]);
});
