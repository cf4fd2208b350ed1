/** `pinhole replay --html`: the report as one page. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { type ReplayReport, RunProfile } from '@pinhole/machine';
import { findRecording, type RecordingName } from '@pinhole/recordings';
import { describe, expect, test } from 'vitest';
import { renderReplayHtml } from '../../src/replay-html.js';
import type { FileReport } from '../../src/replay-outcome.js';
import { HOSTILE } from '../compare-samples.js';
import { faults, references } from '../html-faults.js';
import { pinhole, scratchFolder } from '../pinhole.js';

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
    expect(text(html)).toMatch(/DMA addresses: that the guest&#39;s kernel gave/);
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

/** How many lines of a recording's log begin with an event. */
const linesOf = (name: RecordingName, event: string): number => {
  const log = gunzipSync(readFileSync(findRecording(name).files.qemuTrace)).toString();
  return log.split('\n').filter((line) => line.startsWith(`${event} `)).length;
};

describe('an IOMMU over the run', () => {
  test('VT-d: every access and invalidation of the log, and what waits for one', () => {
    const name = 'linux6.12-x86-intel-iommu';
    const html = page(name);
    expect(faults(html)).toEqual([]);
    const [hits, walks] = [
      linesOf(name, 'vtd_iotlb_page_hit'),
      linesOf(name, 'vtd_iotlb_page_update'),
    ];
    const invalidations =
      linesOf(name, 'vtd_inv_desc_iotlb_global') + linesOf(name, 'vtd_inv_desc_iotlb_domain');
    const shown = text(html)
      .replace(/(\d),(\d)/g, '$1$2')
      .replace(/\s+/g, ' ');
    expect(hits + walks).toBe(linesOf(name, 'vtd_dmar_translate'));
    expect(shown).toContain(`accessed memory ${hits + walks} times through the IOMMU`);
    expect(shown).toContain(`: ${hits} times the translation was in the IOTLB, ${walks} times`);
    expect(shown).toContain(`invalidated cached translations ${invalidations} times`);
    // The finding says the same of the most that waited.
    expect(shown).toMatch(/up to (\d+) unmappings before one.* \1 waited for an invalidation/);
    expect(html.match(/<svg [^>]*role="img"/g)).toHaveLength(3);
  });

  test('without a guest trace there are translations, and no buffers', () => {
    const html = page('linux6.12-x86-intel-iommu', false);
    expect(html.match(/<svg [^>]*role="img"/g)).toHaveLength(2);
    expect(text(html)).toContain('(--guest-trace) there is no picture of mapped buffers');
  });

  test('SMMUv3 that is told of each page, and virtio-iommu without a cache', () => {
    const smmu = text(page('linux6.12-arm64-smmuv3')).replaceAll(',', '');
    const hits = linesOf('linux6.12-arm64-smmuv3', 'smmu_iotlb_lookup_hit');
    expect(smmu).toContain(`: ${hits} times the translation was in the IOTLB`);
    expect(smmu).not.toContain('waited for an invalidation');
    const virtio = text(page('linux6.12-x86-virtio-iommu')).replaceAll(',', '');
    const accesses = linesOf('linux6.12-x86-virtio-iommu', 'virtio_iommu_translate');
    expect(virtio).toContain(`accessed memory ${accesses} times through the IOMMU (virtio-iommu)`);
    expect(virtio).not.toContain('IOTLB');
  });

  test.each(['linux6.12-x86-plain', 'linux6.12-x86-swiotlb'] as const)(
    '%s: there is none, and the page says so',
    (name) => {
      const html = page(name);
      expect(text(html)).toContain('No IOMMU stands between devices and memory');
      expect(html.match(/<svg [^>]*role="img"/g)).toHaveLength(1);
    },
  );
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

test('a run behind VT-d: requests and maps, nothing about windows', () => {
  const html = page('linux6.12-x86-intel-iommu');
  expect(faults(html)).toEqual([]);
  expect(text(html)).toMatch(/translations: of device accesses\s+11,020\s+0/);
  expect(html).not.toMatch(/id="windows"|hypercalls/);
  expect(text(html)).toMatch(/0000:00:01\.0\s+1,872\s/);
});

test("without the guest's trace there is a page, too", () => {
  const html = page('linux6.12-pinhole-smp2', false);
  expect(faults(html)).toEqual([]);
  expect(text(html)).toContain('not given');
  expect(html.match(/<svg [^>]*role="img"/g)).toHaveLength(3);
});

test.each(['spapr-tce', HOSTILE])('what the files say is text, whatever it is: %#', (iommu) => {
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
      platform: HOSTILE,
      iommu,
      swiotlb: { base: HOSTILE, bytes: 0, areas: 1, from: HOSTILE, slots: 0, peak: 0 },
      joined: HOSTILE,
      windows: [],
      liobns: [],
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
  const counts = ['hcall', 'translation', 'rtas', 'request', 'invalidation'].flatMap((name) =>
    [`${name}s`, `${name}Mismatches`, `${name}Calls`].map((key) => [key, 0]),
  );
  Object.assign(report.hypervisor, Object.fromEntries(counts));
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
