/** The page of pinhole matrix: well-formed, self-contained, and nothing in it is taken for markup. */
import { type CellResult, matrixCells, runCell } from '@pinhole/machine';
import { describe, expect, test } from 'vitest';
import { renderMatrixHtml } from '../src/matrix-html.js';
import { HOSTILE } from './compare-samples.js';
import { faults, references } from './html-faults.js';

const command = 'pinhole matrix --format html';
const render = (results: readonly CellResult[]): string =>
  renderMatrixHtml(results, { planned: results.length, command });
const text = (page: string): string =>
  page.replace(/<(style|script)>.*?<\/\1>/gs, '').replace(/<[^>]*>/g, '');

const results = matrixCells({ platforms: ['pseries-ddw'], policies: ['linux-6.1', 'rfc-2018'] })
  .filter(({ vhost }) => !vhost)
  .map(({ id }) => runCell(id).result);

describe('a part of the matrix', () => {
  const page = render(results);

  test('is one well-formed page that asks nobody for anything', () => {
    expect(faults(page)).toEqual([]);
    expect(references(page)).toEqual([]);
    expect(page).toContain('prefers-color-scheme: dark');
  });

  test('has every cell in a row below its outcome, with what it shows', () => {
    for (const { cell, outcome, text: shown } of results) {
      const group = new RegExp(
        `<details class="group" data-outcome="${outcome}">.*?</details>`,
        's',
      ).exec(page)?.[0];
      const row = text(group ?? '').replaceAll('&#39;', "'");
      expect(row).toContain(cell.id);
      expect(row).toContain(shown.replaceAll('"', '&quot;'));
    }
    expect(page.match(/<tr><th scope="row"><code>/g)).toHaveLength(results.length);
  });

  test('leads from each cell to its decision steps', () => {
    const links = [...page.matchAll(/<a href="#(s\d+)" title="Decision steps">/g)];
    expect(links).toHaveLength(results.length);
    for (const [, id] of links) expect(page).toContain(`<div id="${id}">`);
    expect(text(page)).toContain('dma_map_page_attrs: which way do maps go?'.replaceAll('_', '_'));
  });

  test('says each outcome in words, not in colour or symbol alone', () => {
    const squares = [...page.matchAll(/<td class="(?:good|warn|bad|info)">(.*?)<\/td>/g)];
    expect(squares).toHaveLength(8);
    for (const [, square = ''] of squares) {
      expect(square).toMatch(/<span aria-hidden="true">.<\/span>/);
      expect(square).toMatch(/<span class="unseen">[a-z, ]+<\/span>/);
    }
  });
});

test('text of others stays text, wherever it stands', () => {
  const [first] = results as [CellResult];
  const hostile: CellResult = {
    ...first,
    cell: { ...first.cell, id: HOSTILE, platform: HOSTILE, policy: 'linux-6.1' },
    text: HOSTILE,
    warnings: [HOSTILE],
    decision: { dmaOps: HOSTILE, because: HOSTILE, device: HOSTILE, steps: [HOSTILE] },
  };
  const page = renderMatrixHtml([hostile, first], { planned: 2, command: HOSTILE });
  expect(faults(page)).toEqual([]);
  expect(references(page)).toEqual([]);
  expect(page).not.toContain('<script>alert');
  expect(page).not.toContain('<img');
  expect(page).not.toContain('\u001b');
});

test('without a cell there still is a page, and what was stopped says so', () => {
  expect(faults(render([]))).toEqual([]);
  const stopped = renderMatrixHtml(results.slice(0, 3), { planned: 9, command });
  expect(text(stopped)).toContain('3 of 9 cells.');
});
