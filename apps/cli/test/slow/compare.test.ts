/** The main job: what must come out of each path, and what a user sees of it. */
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RunReport } from '@pinhole/machine';
import { beforeAll, describe, expect, test } from 'vitest';
import { renderCompareHtml } from '../../src/compare-html.js';
import type { ComparedPath } from '../../src/compare-path.js';
import { renderCompareTable } from '../../src/compare-table.js';
import { references } from '../html-faults.js';
import { pinhole, scratchFolder } from '../pinhole.js';

const folder = scratchFolder();
let paths: ComparedPath[] = [];
const path = (number: number): RunReport => (paths[number - 1] as ComparedPath).report;

beforeAll(() => {
  const { code, stdout } = pinhole(['compare', '--format', 'json']);
  expect(code).toBe(0);
  const document = JSON.parse(stdout) as { schemaVersion: number; paths: ComparedPath[] };
  expect(document.schemaVersion).toBe(1);
  paths = document.paths;
});

describe('what must come out', () => {
  test('nine paths, about 150 requests each, reads and writes of 4 KiB, 64 KiB and 1 MiB', () => {
    expect(paths.map(({ number }) => number)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(path(1).data).toMatchObject({ requests: 155, completed: 155 });
  });

  test('1: bypass, physical addresses, no TCE hypercall', () => {
    const { decision, counters, reach, verdict } = path(1);
    expect(decision.dmaOps).toBe('none (physical)');
    // One request at a time: each is announced, and answered, by itself.
    expect(counters.workload).toEqual({
      ...{ hcalls: {}, translations: 0, bytesBounced: 0, tcesWritten: 0 },
      iommu: { maps: 0, unmaps: 0, commands: 0 },
      ...{ kicks: 155, interrupts: 155 },
    });
    expect(reach.addressable).toBe(2 ** 31);
    expect(verdict.outcome).toBe('works');
  });

  test.each([2, 4])('%i: 2·(n+3) hypercalls a request of n segments', (number) => {
    const { counters, data, verdict } = path(number);
    const { H_PUT_TCE = 0, H_PUT_TCE_INDIRECT = 0, H_STUFF_TCE = 0 } = counters.workload.hcalls;
    const maps = counters.dataSegments + 3 * data.requests;
    // More segments than requests: n varies.
    expect(counters.dataSegments).toBeGreaterThan(data.requests);
    expect(H_PUT_TCE + H_PUT_TCE_INDIRECT).toBe(maps);
    expect(H_STUFF_TCE).toBe(maps);
    // Only the ring stays mapped.
    expect(counters.tcesLive).toBe(2);
    expect(verdict.outcome).toBe('works-slow');
  });

  test('3: one H_PUT_TCE_INDIRECT of 128 TCEs at 2^59 with 16 MiB pages, then nothing', () => {
    const { counters, decision, verdict } = path(3);
    expect(counters.setup.hcalls.H_PUT_TCE_INDIRECT).toBe(1);
    expect(counters.setup.hcalls.H_PUT_TCE).toBeUndefined();
    expect(counters.tcesLive).toBe(128);
    expect(counters.workload.hcalls).toEqual({});
    expect(decision.because).toContain('0x800000000000000');
    expect(decision.steps.join('\n')).toContain('16 MiB pages');
    expect(verdict.outcome).toBe('works');
  });

  test('4: create-window with window shift 0, RTAS -3, and back to the cost of 2', () => {
    expect(path(4).decision.steps.join('\n')).toContain('18 0 returned -3');
    expect(path(4).counters.hcallsPerRequest).toEqual(path(2).counters.hcallsPerRequest);
  });

  test('5: private pages: the device reads ciphertext, I/O fails, and the report says why', () => {
    const { data, counters, deviceErrors, verdict } = path(5);
    expect(data.hung).toBe(1);
    expect(counters.ciphertextBytesRead).toBeGreaterThan(0);
    expect(counters.privateBytesWriteRefused).toBeGreaterThan(0);
    expect(deviceErrors).toHaveLength(1);
    expect(verdict.outcome).toBe('fails');
    expect(verdict.text).toContain('ciphertext');
  });

  test.each([6, 7])('%i: bounced, correct, isolated', (number) => {
    const { data, counters, decision, reach, verdict } = path(number);
    expect(decision.dmaOps).toBe('dma-direct + swiotlb');
    // Each byte of a read is copied in and out, each byte of a write in.
    expect(counters.workload.bytesBounced).toBeGreaterThan(2 * data.bytesRead + data.bytesWritten);
    expect(counters.ciphertextBytesRead).toBe(0);
    expect(data.privateBytesExposed).toBe(0);
    expect(reach.plaintext).toBeLessThan(reach.addressable / 16);
    expect(counters.workload.hcalls).toEqual({});
    expect(verdict.outcome).toBe('works');
  });

  test('6 puts physical addresses on the wire, 7 addresses in the second window', () => {
    expect(path(6).counters.workload.translations).toBe(0);
    expect(path(6).decision.because).toContain('physical addresses');
    expect(path(7).counters.workload.translations).toBeGreaterThan(0);
    expect(path(7).decision.because).toContain('0x800000000000000');
    // Without H_PUT_TCE_INDIRECT, which a secure guest does not use.
    expect(path(7).counters.setup.hcalls.H_PUT_TCE).toBe(128);
  });

  test('8: the contract breaks: a WARN, success reported, wrong data, foreign memory written', () => {
    const { data, counters, warnings, verdict } = path(8);
    expect(warnings.join()).toMatch(/^WARN/);
    expect(data.completed).toBe(data.requests);
    expect(data.bytesReadWrong).toBeGreaterThan(data.bytesRead * 0.9);
    expect(data.imageBytesWrong).toBeGreaterThan(0);
    expect(counters.strayBytesWritten).toBe(data.bytesRead);
    expect(data.firstWrong).toBeDefined();
    expect(verdict.outcome).toBe('wrong-data');
  });

  test('9: as 8, with the flag: correct', () => {
    expect(path(9).warnings).toEqual([]);
    expect(path(9).counters.strayBytesWritten).toBe(0);
    expect(path(9).verdict.outcome).toBe('works');
  });

  test.each([1, 2, 3, 4, 6, 7, 9])(
    '%i: every byte right, nothing touched that was not given',
    (n) => {
      expect(path(n).data).toMatchObject({
        bytesReadWrong: 0,
        imageBytesWrong: 0,
        hung: 0,
        failed: 0,
      });
      expect(path(n).counters).toMatchObject({
        strayBytesRead: 0,
        strayBytesWritten: 0,
        bytesLost: 0,
      });
    },
  );
});

describe('your own image', () => {
  const image = join(folder, 'disk.img');
  const digest = (): string => createHash('sha256').update(readFileSync(image)).digest('hex');

  test('is read, checked, and left as it is', () => {
    writeFileSync(image, Buffer.alloc(3 * 2 ** 20, 'all work and no play '));
    const before = digest();
    const { code, stdout } = pinhole(['compare', '--image', image, '--format', 'json']);
    expect(code).toBe(0);
    const { paths: own } = JSON.parse(stdout) as { paths: ComparedPath[] };
    expect(own[0]?.report.machine.diskSize).toBe(3 * 2 ** 20);
    expect(own[0]?.report.data.bytesReadWrong).toBe(0);
    expect(digest()).toBe(before);
  });

  test('may be as small as a sector', () => {
    writeFileSync(join(folder, 'tiny.img'), Buffer.alloc(512, 1));
    expect(pinhole(['compare', '--image', join(folder, 'tiny.img')]).code).toBe(0);
  });
});

describe('the table', () => {
  test.each([40, 60, 80, 100, 130, 160, 200])('fits %i columns', (width) => {
    const text = renderCompareTable(paths, { width, color: false, imageName: 'disk.img' });
    for (const line of text.split('\n')) expect([...line].length).toBeLessThanOrEqual(width);
  });

  test('a pipe gets no colour, and each path its verdict', () => {
    const { stdout } = pinhole(['compare']);
    expect(stdout).not.toContain('\u001b');
    const total = path(2).counters.hcallsPerRequestTotal.toFixed(2);
    expect(stdout).toContain(` ${total} `);
    expect(stdout).toContain('Data silently wrong: 8.');
  });
});

describe('the page', () => {
  test('has the same figures, and nothing from elsewhere', () => {
    const file = join(folder, 'report.html');
    const { code, stderr } = pinhole(['compare', '--html', file]);
    expect(code).toBe(0);
    expect(stderr).toContain('report.html');
    const html = readFileSync(file, 'utf8');
    expect(html).toBe(
      renderCompareHtml(paths, {
        imageName: 'a made disk (16 MiB, from the seed)',
        command: `pinhole compare --html ${file}`,
      }),
    );
    expect(references(html)).toEqual([]);
    expect(html).toContain('prefers-color-scheme: dark');
    expect(html.match(/<tr>/g)).toHaveLength(10);
    for (const kind of ['H_PUT_TCE', 'H_PUT_TCE_INDIRECT', 'H_STUFF_TCE']) {
      const figure = (path(2).counters.hcallsPerRequest[kind] ?? 0).toFixed(2);
      expect(html).toContain(`<td class="n">${figure}</td>`);
    }
  });

  test('bars are as long as their figures', () => {
    const html = renderCompareHtml(paths, { imageName: 'x', command: 'x' });
    const widths = [...html.matchAll(/class="bar k(\d)"[^>]*width="([\d.]+)" height="18"/g)];
    const first = widths.slice(0, 3).map(([, , width]) => Number(width));
    const {
      H_PUT_TCE = 0,
      H_PUT_TCE_INDIRECT = 0,
      H_STUFF_TCE = 0,
    } = path(2).counters.workload.hcalls;
    expect((first[0] ?? 0) / (first[2] ?? 1)).toBeCloseTo(H_PUT_TCE / H_STUFF_TCE, 2);
    expect((first[1] ?? 0) / (first[2] ?? 1)).toBeCloseTo(H_PUT_TCE_INDIRECT / H_STUFF_TCE, 2);
  });

  test('shows hostile text as text', () => {
    const evil = `<script>alert("1")</script>&'`;
    const report = { ...path(1), title: evil, warnings: [evil] };
    const html = renderCompareHtml([{ number: 1, id: evil, report }], {
      imageName: evil,
      command: evil,
    });
    expect(html).not.toContain('<script>alert');
    expect(html).toContain('&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;');
  });
});
