/** `pinhole explain --html`: the answer as one page. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Explanation, explain } from '@pinhole/machine';
import { describe, expect, test } from 'vitest';
import { renderExplainHtml } from '../../src/explain-html.js';
import { escapeHtml } from '../../src/report/html.js';
import { HOSTILE } from '../compare-samples.js';
import { faults, references } from '../html-faults.js';
import { pinhole, scratchFolder } from '../pinhole.js';

const QEMU =
  'qemu-system-ppc64 -M pseries -m 2G -device virtio-blk-pci,drive=d,iommu_platform=on,disable-legacy=on -device virtio-rng-pci,unheard=of';

const explanation = explain({ qemu: QEMU, kernels: ['linux-6.12', 'linux-7.2'], set: [] });
const page = renderExplainHtml(explanation, 'pinhole explain');

// What a reader sees.
const text = (html: string): string =>
  html
    .replace(/<(style|script)>.*?<\/\1>/gs, '')
    .replaceAll('<wbr>', '')
    .replace(/<[^>]*>/g, '\n');

describe('two devices under two kernels', () => {
  test('is one well-formed page that asks nobody for anything', () => {
    expect(faults(page)).toEqual([]);
    expect(references(page)).toEqual([]);
  });

  test('says all that the answer says', () => {
    const { devices, differences, facts, notUnderstood, notes } = explanation;
    const answers = devices.flatMap((device) => device.answers);
    const said = [
      ...facts.map(({ value }) => value),
      ...answers.flatMap(({ path, reach, steps, risks, fixes, cost }) => [
        path.name,
        reach.text,
        ...steps.flatMap(({ text: step, fact, source }) => [step, fact, source]),
        ...risks.flatMap((risk) => [risk.text, risk.source]),
        ...fixes.flatMap(({ change, effect }) => [change, effect]),
        ...(cost?.notes ?? []),
      ]),
      ...differences.flatMap(({ what, values }) => [
        what,
        ...values.flatMap(({ value }) => value.split('\n')),
      ]),
      ...notUnderstood.flatMap(({ text: words, why }) => [words, why]),
      ...notes,
    ];
    expect(said.length).toBeGreaterThan(100);
    const all = text(page);
    for (const one of said) expect(all).toContain(escapeHtml(one));
  });

  test('has a row of figures for each device and kernel', () => {
    const rows = (/<section aria-labelledby="overview">.*?<\/section>/s.exec(page)?.[0] ?? '')
      .split('<tr>')
      .slice(2)
      .map((row) => [...row.matchAll(/<td class="n[^"]*">([^<]*)</g)].map(([, cell]) => cell));
    const expected = explanation.devices.flatMap(({ answers }) =>
      answers.map(({ cost }) => (cost?.rows ?? []).map(({ hcalls }) => String(hcalls))),
    );
    expect(expected).toHaveLength(4);
    expect(rows.map((row) => row.slice(0, -1))).toEqual(expected);
    // The leak is an error, the loss of the window is not.
    expect(page).toMatch(
      /<td><b class="badge bad"><span aria-hidden="true">✗<\/span>default window/,
    );
  });

  test('draws their hypercalls', () => {
    const chart = /<svg role="img".*?<\/svg>/s.exec(page)?.[0] ?? '';
    const hcalls = explanation.devices.flatMap(({ answers }) =>
      answers.flatMap(({ cost }) => (cost?.rows ?? []).map((row) => row.hcalls)),
    );
    const widths = [
      ...chart.matchAll(/<rect class="bar k\d" [^>]*width="([\d.]+)" height="18"\/>/g),
    ];
    const unit = Number(widths[0]?.[1]) / (hcalls[0] ?? 0);
    expect(widths).toHaveLength(hcalls.length);
    for (const [at, width] of widths.entries()) {
      expect(Number(width[1])).toBeCloseTo((hcalls[at] ?? 0) * unit, 0);
    }
  });
});

test('one kernel: no differences, and no column for it', () => {
  const one = renderExplainHtml(explain({ qemu: QEMU, kernels: ['linux-6.12'], set: [] }), 'x');
  expect(faults(one)).toEqual([]);
  expect(one).not.toContain('id="differences"');
  expect(one).not.toContain('<th scope="col">kernel</th>');
});

test('whatever the inputs say is text', () => {
  const hostile = withText(explanation) as Explanation;
  const html = renderExplainHtml(
    {
      ...hostile,
      findings: [
        { id: HOSTILE, severity: 'error', text: HOSTILE, line: 1, fix: HOSTILE, source: HOSTILE },
      ],
      contradictions: [{ what: HOSTILE, one: HOSTILE, other: HOSTILE }],
    },
    HOSTILE,
  );
  expect(faults(html)).toEqual([]);
  expect(references(html)).toEqual([]);
  expect(html.match(/<script/g)).toHaveLength(1);
});

test('the command writes it, and says so', () => {
  const file = join(scratchFolder(), 'explain.html');
  const { code, stderr, stdout } = pinhole(['explain', '--qemu', QEMU, '--html', file]);
  expect([code, stderr]).toEqual([0, `wrote ${file}\n`]);
  expect(stdout).toContain('default window');
  expect(readFileSync(file, 'utf8')).toBe(
    renderExplainHtml(
      explain({ qemu: QEMU, kernels: [], set: [] }),
      `pinhole explain --qemu '${QEMU}' --html ${file}`,
    ),
  );
});

test('a folder that is not there is said before anything else', () => {
  const { code, stderr, stdout } = pinhole(['explain', '--qemu', QEMU, '--html', '/no/such/x']);
  expect([code, stdout]).toEqual([2, '']);
  expect(stderr).toContain('/no/such/x: expected a file in a folder that exists');
});

// Each text that nothing is decided by, replaced.
function withText(value: unknown, key = ''): unknown {
  const isDecisive = ['severity', 'effect', 'origin', 'side', 'id', 'kernel'].includes(key);
  if (typeof value === 'string') return isDecisive ? value : HOSTILE;
  if (Array.isArray(value)) return value.map((one) => withText(one, key));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, one]) => [name, withText(one, name)]),
  );
}
