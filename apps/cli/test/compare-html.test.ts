import { formatSize } from '@pinhole/base';
import { defaultCostPreset, estimateCosts } from '@pinhole/machine';
import { beforeAll, describe, expect, test } from 'vitest';
import { renderCompareHtml } from '../src/compare-html.js';
import type { ComparedPath } from '../src/compare-path.js';
import { timeRange } from '../src/costs.js';
import { OUTCOME_MARKS } from '../src/report/marks.js';
import { WIDTH } from '../src/report/svg.js';
import { HOSTILE, hostilePath, realPaths, refusedPath } from './compare-samples.js';
import { faults, references } from './html-faults.js';

let paths: ComparedPath[] = [];
let path: (number: number) => ComparedPath;
let html = '';
const render = (of: readonly ComparedPath[], imageName = 'x'): string =>
  renderCompareHtml(of, { imageName, command: 'pinhole compare --html x.html' });

beforeAll(() => {
  paths = realPaths();
  path = (number) => paths[number - 1] as ComparedPath;
  html = render(paths, 'disk.img');
});

const strip = (fragment: string): string => fragment.replace(/<[^>]*>/g, '');

// The cells of each row of the table.
function rows(page: string): string[][] {
  const body = /<tbody>(.*?)<\/tbody>/s.exec(page)?.[1] ?? '';
  return [...body.matchAll(/<tr>(.*?)<\/tr>/gs)].map(([, row = '']) =>
    [...row.matchAll(/<t[hd][^>]*>(.*?)<\/t[hd]>/gs)].map(([, cell = '']) => strip(cell)),
  );
}

const cards = (page: string): string[] => page.split('<article').slice(1);

describe('the page', () => {
  test('is well formed, with any paths', () => {
    expect(faults('<p><b>x</p></b>')).not.toEqual([]);
    expect(faults('<p class=x>&</p>')).toHaveLength(2);
    expect(faults('<p><dl></dl></p>')).toContain('1 dl became 0 dl');
    for (const of of [paths, [path(1)], [refusedPath(path(2))], [hostilePath(path(3))], []]) {
      expect(faults(render(of, HOSTILE))).toEqual([]);
    }
  });

  test('asks nobody for anything, and forbids it', () => {
    expect(references(html)).toEqual([]);
    expect(references('<a href="x"><img src=y onerror=z><script src="q">')).toHaveLength(3);
    expect(html).toContain(`http-equiv="Content-Security-Policy" content="default-src 'none';`);
  });

  test('is the same each time', () => {
    expect(render(paths, 'disk.img')).toBe(html);
  });

  test('has a language, one heading, a caption, scopes, and names for what scrolls', () => {
    expect(html).toContain('<html lang="en">');
    expect(html.match(/<h1>/g)).toHaveLength(1);
    expect(html.match(/<main /g)).toHaveLength(1);
    expect(html).toContain('<table><caption>');
    expect(html.match(/<th(?=[ >])(?! scope="(row|col)")/g)).toBeNull();
    expect(html.match(/scope="row"/g)).toHaveLength(paths.length);
    for (const [region] of html.matchAll(/<div class="scroll"[^>]*>/g)) {
      expect(region).toMatch(/role="region" aria-label="[^"]+" tabindex="0"/);
    }
  });

  test('follows the theme of the reader, and prints', () => {
    expect(html).toContain('@media screen and (prefers-color-scheme: dark)');
    expect(html).toContain('@media print');
  });
});

describe('the table', () => {
  test('has the counters of the reports', () => {
    const table = rows(html);
    expect(table).toHaveLength(paths.length);
    for (const [row, { number, report }] of paths.entries()) {
      const { counters, reach, verdict, machine, decision } = report;
      const figure = (value = 0): string => (value === 0 ? '0' : value.toFixed(2));
      expect(table[row]).toEqual([
        `${number}. ${report.title}`,
        machine.flag ? 'yes' : 'no',
        decision.dmaOps.replace(/ (?=[+(])/, ''),
        OUTCOME_MARKS[verdict.outcome].symbol + verdict.outcome,
        figure(counters.hcallsPerRequest.H_PUT_TCE),
        figure(counters.hcallsPerRequest.H_PUT_TCE_INDIRECT),
        figure(counters.hcallsPerRequest.H_STUFF_TCE),
        figure(counters.hcallsPerRequestTotal),
        `${counters.tcesLive} / ${counters.tcesPeak}`,
        figure(counters.translationsPerRequest),
        formatSize(counters.workload.bytesBounced),
        formatSize(reach.addressable),
        formatSize(reach.plaintext),
      ]);
    }
  });

  test('path 2 pays 2·(segments + 3·requests) hypercalls', () => {
    const { counters, data } = path(2).report;
    const total = (2 * (counters.dataSegments + 3 * data.requests)) / data.requests;
    expect(rows(html)[1]?.[7]).toBe(total.toFixed(2));
  });
});

describe('the charts', () => {
  const drawn = (): string[] => html.match(/<svg role="img".*?<\/svg>/gs) ?? [];

  // Each bar of a chart: its parts' widths, and the sum that stands beside it.
  const bars = (chart: string): { widths: number[]; sum: number }[] =>
    chart
      .split('\n')
      .filter((line) => line.includes('text-anchor="end">') && /^<text x=/.test(line))
      .map((line) => ({
        widths: [...line.matchAll(/ width="([\d.]+)"/g)].map(([, width]) => Number(width)),
        sum: Number(/>([\d.]+)<\/text>$/.exec(line)?.[1]),
      }));

  test('are images with a title, a description and an axis label', () => {
    const charts = drawn();
    expect(charts).toHaveLength(2);
    for (const chart of charts) {
      const [, title, desc] = /aria-labelledby="(\S+) (\S+)"/.exec(chart) ?? [];
      expect(chart).toContain('role="img"');
      expect(chart).toContain(`<title id="${title}">`);
      expect(chart).toContain(`<desc id="${desc}">`);
      expect(chart).toMatch(/(hypercalls|translations) per request<\/text>/);
    }
  });

  test('bars are as long as their figures, and stay inside', () => {
    const [hypercalls = '', translations = ''] = drawn();
    const expected = [
      [hypercalls, (p: ComparedPath) => p.report.counters.hcallsPerRequestTotal],
      [translations, (p: ComparedPath) => p.report.counters.translationsPerRequest],
    ] as const;
    for (const [chart, value] of expected) {
      const rows = bars(chart).filter((bar) => Number.isFinite(bar.sum));
      expect(rows.map(({ sum }) => sum)).toEqual(paths.map((p) => Number(value(p).toFixed(2))));
      const lengths = rows.map(({ widths }) => widths.reduce((sum, width) => sum + width, 0));
      const unit = Math.max(...lengths) / Math.max(...paths.map(value));
      for (const [row, p] of paths.entries()) {
        expect(lengths[row]).toBeCloseTo(value(p) * unit, 0);
      }
      expect(Math.max(...lengths)).toBeLessThan(WIDTH);
    }
  });

  test('times are drawn as ranges, where there are estimates', () => {
    expect(html).not.toContain('id="time"');
    const preset = defaultCostPreset('pseries');
    if (preset === undefined) throw new Error('expected a preset for pseries');
    const costs = estimateCosts(path(2).report, preset);
    if (costs === undefined) throw new Error('expected an estimate for path 2');
    const page = render([
      { ...path(2), costs },
      { ...path(5), costs: null },
    ]);
    expect(faults(page)).toEqual([]);
    expect(
      strip(/<section aria-labelledby="time">.*?<\/section>/s.exec(page)?.[0] ?? ''),
    ).toContain(timeRange(costs.perRequest));
    expect(page).toContain('5 secure-upstream: time not known');
  });

  test('without any hypercall there is still an axis', () => {
    expect(render([path(1)])).not.toMatch(/NaN|Infinity/);
    expect(render([])).not.toMatch(/NaN|Infinity/);
  });
});

describe('the cards', () => {
  test('have verdict, reason, steps, warnings, errors and counters', () => {
    expect(cards(html)).toHaveLength(paths.length);
    for (const [index, card] of cards(html).entries()) {
      const { report } = paths[index] as ComparedPath;
      const text = strip(card).replaceAll('&quot;', '"').replaceAll('&#39;', "'");
      for (const said of [
        report.title,
        report.verdict.text,
        report.decision.because,
        ...report.decision.steps,
        ...report.warnings,
        ...report.deviceErrors,
        ...(report.negotiated?.names ?? []),
      ]) {
        expect(text).toContain(said);
      }
      expect(text).toContain(`dataSegments${report.counters.dataSegments}`);
      for (const [name, count] of Object.entries(report.counters.workload.hcalls)) {
        expect(text).toContain(`workload.hcalls.${name}${count}`);
      }
      expect(card.includes('<details>')).toBe(true);
    }
  });

  test('show the first wrong byte', () => {
    const { firstWrong } = path(8).report.data;
    expect(strip(cards(html)[7] ?? '')).toContain(
      `offset ${firstWrong?.offset}, expected ${firstWrong?.expected}, found ${firstWrong?.found}`,
    );
    expect(cards(html)[0]).not.toContain('First wrong byte');
  });

  test('of a refused path say why', () => {
    const refused = refusedPath(path(1));
    const page = render([refused]);
    expect(rows(page)[0]?.[1]).toBe('refused');
    expect(strip(cards(page)[0] ?? '')).toContain(`refused: ${refused.report.refusal}`);
    expect(page).toContain('over 1 DMA path<');
  });
});

test('hostile text stays text, wherever it comes from', () => {
  const page = renderCompareHtml([hostilePath(path(1))], { imageName: HOSTILE, command: HOSTILE });
  expect(references(page)).toEqual([]);
  expect(page.match(/<script/g)).toHaveLength(1);
  const escaped = '&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;';
  expect(page.split(escaped).length - 1).toBeGreaterThan(15);
});
