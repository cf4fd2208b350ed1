/** `pinhole sweep --html`: rows and charts as one page. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseSweepAxis, readSweepFile, type SweepFile } from '@pinhole/machine';
import { expect, test } from 'vitest';
import { renderSweepHtml } from '../../src/sweep-html.js';
import { HOSTILE } from '../compare-samples.js';
import { faults, references } from '../html-faults.js';
import { pinhole, scratchFolder } from '../pinhole.js';

const folder = scratchFolder();

function swept(...args: string[]): SweepFile & { html: string } {
  const [page, output] = [join(folder, 'sweep.html'), join(folder, `${args.length}.ndjson`)];
  const outputs = ['--format', 'ndjson', '--output', output, '--html', page];
  const { stderr } = pinhole(['sweep', '2-pinhole', ...args, ...outputs]);
  expect(stderr).toContain(`wrote ${page}`);
  return {
    html: readFileSync(page, 'utf8'),
    ...readSweepFile(readFileSync(output, 'utf8'), output),
  };
}

test('a row for each point, and charts of what was counted and estimated', () => {
  const { html, rows } = swept('--set', 'devices[0].indirect=true,false');
  expect(faults(html)).toEqual([]);
  expect(references(html)).toEqual([]);
  const body = /<tbody>(.*?)<\/tbody>/s.exec(html)?.[1] ?? '';
  const cells = [...body.matchAll(/<tr>(.*?)<\/tr>/gs)].map(([, row = '']) =>
    row
      .replace(/<[^>]*>/g, '|')
      .split('|')
      .filter(Boolean),
  );
  expect(rows.size).toBe(2);
  for (const [point, { row }] of rows) {
    const hcalls = String(Math.round(Number(row.hcallsPerRequest) * 100) / 100);
    expect(cells[point]?.slice(0, 2)).toEqual([String(point), point === 0 ? 'true' : 'false']);
    expect(cells[point]).toContain(hcalls);
    expect(cells[point]).toContain('works-slow');
  }
  // Time, throughput, hypercalls, translations.
  expect(html.match(/<svg role="img"/g)).toHaveLength(4);
});

test('points that could not be run are said first', () => {
  const { html } = swept('--set', 'devices[0].indirect=true,false', '--set', 'machine.memory=2GiB');
  expect(html).not.toContain('class="note bad"');
  const header = readSweepFile(readFileSync(join(folder, '2.ndjson'), 'utf8'), 'x').header;
  const failed = renderSweepHtml(
    { ...header, title: HOSTILE, axes: [parseSweepAxis('guest.cmdline=a,b')] },
    Array.from({ length: 12 }, (_, point) => ({
      point,
      'guest.cmdline': HOSTILE,
      outcome: null,
      error: HOSTILE,
    })),
    { command: HOSTILE },
  );
  expect(faults(failed)).toEqual([]);
  expect(references(failed)).toEqual([]);
  expect(failed.match(/class="note bad"/g)).toHaveLength(10);
  expect(failed).toContain('And 2 more points with an error.');
  expect(failed).toContain('No point has anything to draw.');
});
