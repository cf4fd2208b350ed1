/** `pinhole replay --html`: the report as one page. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ReplayReport, RunProfile } from '@pinhole/machine';
import { findRecording, type RecordingName } from '@pinhole/recordings';
import { describe, expect, test } from 'vitest';
import { renderReplayHtml } from '../src/replay-html.js';
import type { FileReport } from '../src/replay-text.js';
import { HOSTILE } from './compare-samples.js';
import { faults, references } from './html-faults.js';
import { pinhole, scratchFolder } from './pinhole.js';

const folder = scratchFolder();

function page(name: RecordingName, hasGuest = true): string {
  const { files } = findRecording(name);
  const html = join(folder, `${name}.html`);
  const guest = ['--guest-trace', fileURLToPath(files.guestTrace)];
  const qemu = ['--qemu-trace', fileURLToPath(files.qemuTrace)];
  pinhole(['replay', ...qemu, ...(hasGuest ? guest : []), '--html', html]);
  return readFileSync(html, 'utf8');
}

const text = (html: string): string =>
  html.replace(/<(style|script)>.*?<\/\1>/gs, '').replace(/<[^>]*>/g, ' ');

describe('a healthy run', () => {
  const html = page('linux6.12-pinhole');

  test('is one well-formed page that asks nobody for anything', () => {
    expect(faults(html)).toEqual([]);
    expect(references(html)).toEqual([]);
    expect(html).toContain(`http-equiv="Content-Security-Policy" content="default-src 'none';`);
    expect(html).toContain('prefers-color-scheme: dark');
    expect(html.length).toBeLessThan(200_000);
  });

  test('says what was checked, and shows the window', () => {
    expect(text(html)).toContain('The model agrees with every line.');
    expect(text(html)).toMatch(/DMA addresses that the guest&#39;s/);
    expect(html.match(/<svg [^>]*role="img"/g)).toHaveLength(3);
    expect(html).not.toContain('class="gone');
  });

  test('every hypercall of a buffer belongs to a request', () => {
    // 2 hypercalls for each of 1220 mappings, the ring's one apart; 92 requests.
    const row = /queue 0 of .*?<\/tr>/s.exec(html)?.[0] ?? '';
    expect(text(row).split(/\s+/).slice(-5, -1)).toEqual(['92', '92', '26.52', '512']);
    expect((92 * 26.52).toFixed(0)).toBe('2440');
  });
});

test('a leak: entries in the warning colour, the finding with its evidence and remedy', () => {
  const html = page('linux7.2-ddw-lost');
  expect(faults(html)).toEqual([]);
  expect(html).toMatch(/<rect class="gone f[1-4]"/);
  expect(html.match(/<path class="area k[01]"/g)).toHaveLength(2);
  expect(text(html)).toMatch(/E_\s*TCE_\s*LEAK/);
  expect(text(html)).toContain('maxmem=');
  expect(text(html)).toContain('requests still had buffers mapped at the end');
});

test("without the guest's trace there is a page, too", () => {
  const html = page('linux6.12-pinhole-smp2', false);
  expect(faults(html)).toEqual([]);
  expect(text(html)).toContain('not given');
  expect(html.match(/<svg [^>]*role="img"/g)).toHaveLength(3);
});

test('what the files say is text, whatever it is', () => {
  const problems = { malformed: 1 } as unknown as FileReport['summary']['problems'];
  const file: FileReport = {
    path: HOSTILE,
    summary: { lines: 1, events: 1, problems } as FileReport['summary'],
    problems: [],
    cutShort: HOSTILE,
  };
  const report = {
    schemaVersion: 1,
    inferred: {
      kernel: HOSTILE,
      kernelFrom: HOSTILE,
      devices: { [HOSTILE]: HOSTILE },
      ddw: HOSTILE,
    },
    hypervisor: {
      mismatches: [{ line: 1, event: HOSTILE, what: HOSTILE, logged: HOSTILE, model: HOSTILE }],
    },
    guest: null,
    findings: [
      {
        code: 'E_DMA_FAULT',
        severity: 'error',
        count: 1,
        summary: HOSTILE,
        evidence: { first: { qemuLine: 1, text: HOSTILE } },
        remedy: HOSTILE,
      },
    ],
  } as unknown as ReplayReport;
  // Counts that this report does not have are shown as 0.
  Object.assign(report.hypervisor, { hcalls: 0, hcallMismatches: 0, translations: 0 });
  Object.assign(report.hypervisor, { translationMismatches: 0, rtasCalls: 0, rtasMismatches: 0 });
  const profile = new RunProfile();
  profile.devices.set(HOSTILE, {
    device: HOSTILE,
    maps: 1,
    tces: 1,
    hypercalls: 1,
    translations: 1,
  });
  const queue = { vq: HOSTILE, vdev: HOSTILE, number: 0, requests: 1, completed: 1 };
  profile.queues.set(HOSTILE, { ...queue, hypercalls: 1, most: 1 });
  const html = renderReplayHtml({ qemu: file, guest: file, report }, profile, HOSTILE);
  expect(faults(html)).toEqual([]);
  expect(html).not.toContain(HOSTILE);
});
