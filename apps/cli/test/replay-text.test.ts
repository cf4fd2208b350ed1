/** What `pinhole replay` prints for people, at any width. */
import { stripVTControlCharacters } from 'node:util';
import type { ReplayReport } from '@pinhole/machine';
import { describe, expect, test } from 'vitest';
import type { FileReport, ReplayOutcome } from '../src/replay-outcome.js';
import { renderReplay } from '../src/replay-text.js';
import { HOSTILE } from './compare-samples.js';

const file: FileReport = {
  path: `${HOSTILE}/a-long-name-of-a-file-that-has-to-be-cut/qemu.trace.gz`,
  summary: {
    lines: 9,
    events: 8,
    problems: { malformed: 1, binary: 0, cut: 0, 'too-long': 0, lost: 0, 'unknown-event': 2 },
  },
  problems: [{ line: 7, kind: 'malformed', text: HOSTILE, expected: 'a number' }],
  cutShort: HOSTILE,
};

const hypervisor = {
  ...{ hcalls: 3236, hcallMismatches: 2, translations: 5025, translationMismatches: 0 },
  ...{ rtasCalls: 1, rtasMismatches: 0, requests: 90, requestMismatches: 0 },
  ...{ invalidations: 0, invalidationMismatches: 0 },
  mismatches: [{ line: 5, event: HOSTILE, what: 'ret', logged: '0x1', model: '0x3' }],
};

const outcome: ReplayOutcome = {
  qemu: file,
  guest: undefined,
  report: {
    inferred: { iommu: 'spapr-tce', windows: [], liobns: ['0x80000000'], ddw: 'lost', boots: 1 },
    hypervisor,
    guest: null,
    findings: [
      {
        code: 'E_TCE_LEAK',
        severity: 'error',
        summary: 'mappings that the driver gave up stay in the window',
        evidence: { first: { guestLine: 3, qemuLine: 4 } },
        remedy: HOSTILE,
      },
      { code: 'W_X', severity: 'warning', summary: 'w', evidence: {}, remedy: 'r' },
    ],
  } as unknown as ReplayReport,
};

describe.each([40, 47, 48, 80, 160])('at %i columns', (width) => {
  const text = renderReplay(outcome, { width, color: false });

  test('no line is longer', () => {
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(width);
  });

  test('nothing of a log reaches the terminal as an escape sequence', () => {
    expect(text.replaceAll('\n', '')).not.toMatch(/\p{Cc}/u);
  });

  test('colour changes nothing but colour', () => {
    const colored = renderReplay(outcome, { width, color: true });
    expect(colored).toContain('\u001b[31m✗ error E_TCE_LEAK\u001b[');
    expect(stripVTControlCharacters(colored)).toBe(text);
  });

  test('what was checked, what differs, what was not read, what was found', () => {
    const words = text.replace(/\s+/g, ' ');
    for (const said of [
      /TCE hypercalls:? 3236,? 2 wrong/,
      /QEMU line 5: .*: ret: recorded 0x1, the model has 0x3/,
      /lines that could not be read: 1 malformed/,
      /line 7: malformed: expected a number/,
      /✗ error E_TCE_LEAK mappings that the driver gave up stay in the window first: guest line 3, QEMU line 4 ->/,
      /! warning W_X w -> r/,
      /The model and these files do not agree\./,
    ]) {
      expect(words).toMatch(said);
    }
  });
});
