/** The whole matrix, and its page in a real browser. */
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type CellResult, matrixCells } from '@pinhole/machine';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { renderMatrixHtml } from '../../src/matrix-html.js';
import { BROWSER, launchBrowser, openPage } from '../browser.js';
import { PROGRAM, pinhole, scratchFolder } from '../pinhole.js';

const folder = scratchFolder();
/** Nobody else needs the processors: then times say something. */
const isQuiet = (): boolean => (loadavg()[0] ?? 0) <= cpus().length + 0.5;
const UPSTREAM = ['linux-4.18', 'linux-5.10', 'linux-6.1', 'linux-6.12', 'linux-7.2'];

let results: readonly CellResult[] = [];
let seconds = 0;

beforeAll(() => {
  const start = Date.now();
  const { code, stdout, stderr } = pinhole(['matrix', '--format', 'json']);
  seconds = (Date.now() - start) / 1000;
  expect(stderr).toBe('');
  expect(code).toBe(0);
  const { cells } = JSON.parse(stdout) as { cells: (CellResult & CellResult['cell'])[] };
  results = cells.map((cell) => ({ ...cell, cell }));
}, 600_000);

describe('the whole matrix', () => {
  test('has every cell, in order, and takes less than a minute on two quiet processors', () => {
    expect(results.map(({ cell }) => cell.id)).toEqual(matrixCells().map(({ id }) => id));
    expect(seconds).toBeLessThan(isQuiet() ? 60 : 600);
  });

  test('an ordinary guest of an upstream kernel is never broken: what is wrong is slow or leaks', () => {
    const ordinary = results.filter(
      ({ cell }) =>
        UPSTREAM.includes(cell.policy) &&
        !cell.secure &&
        // Its frontend is restricted to what it granted, and grants came with 6.0.
        cell.platform !== 'xen-grants',
    );
    const found = new Set(ordinary.map(({ outcome }) => outcome));
    const allowed = ['works', 'works-slow', 'leaks', 'no-machine'];
    expect([...found].filter((outcome) => !allowed.includes(outcome))).toEqual([]);
    expect(ordinary.length).toBeGreaterThan(500);
  });

  test('without the flag, an ordinary guest of an upstream kernel pays nothing', () => {
    const free = results.filter(
      ({ cell, outcome }) =>
        UPSTREAM.includes(cell.policy) &&
        !cell.secure &&
        !cell.flag &&
        outcome !== 'no-machine' &&
        !cell.platform.startsWith('xen'),
    );
    expect([...new Set(free.map(({ outcome }) => outcome))]).toEqual(['works']);
  });

  test('no secure guest is seen in clear, whatever the policy', () => {
    const exposed = results.filter(({ text }) => text.includes('in clear, in'));
    expect(exposed.map(({ cell }) => cell.id)).toEqual([]);
  });

  test('the ring decides nothing but figures', () => {
    const byPlace = new Map<string, Set<string>>();
    for (const { cell, outcome } of results) {
      const place = cell.id.slice(0, cell.id.lastIndexOf('/'));
      byPlace.set(place, (byPlace.get(place) ?? new Set()).add(outcome));
    }
    const differing = [...byPlace].filter(([, outcomes]) => outcomes.size > 1);
    expect(differing.map(([place]) => place)).toEqual([]);
  });

  test('two threads and one find the same', () => {
    const part = ['matrix', '--arch', 'pseries-ddw', '--format', 'json', '--jobs'];
    expect(pinhole([...part, '1']).stdout).toBe(pinhole([...part, '2']).stdout);
  });

  test('Ctrl-C ends it with what there is', async () => {
    const [node = '', main = ''] = PROGRAM;
    const child = spawn(node, [main, 'matrix', '--format', 'json', '--jobs', '2']);
    let [out, error] = ['', ''];
    child.stdout.on('data', (text) => {
      out += text;
    });
    child.stderr.on('data', (text) => {
      error += text;
    });
    setTimeout(() => child.kill('SIGINT'), 4000);
    const code = await new Promise((resolve) => child.on('close', resolve));
    expect(code).toBe(130);
    const document = JSON.parse(out) as { planned: number; cells: unknown[] };
    expect(document.cells.length).toBeLessThan(document.planned);
    expect(error).toBe(
      `pinhole: interrupted after ${document.cells.length} of ${document.planned} cells\n`,
    );
  });
});

describe.skipIf(BROWSER === undefined)('its page in a browser', () => {
  const file = join(folder, 'matrix.html');
  let browser: Browser | undefined;

  beforeAll(async () => {
    const command = 'pinhole matrix --format html';
    const page = renderMatrixHtml(results, { planned: results.length, command });
    expect(page.length).toBeLessThan(2_500_000);
    writeFileSync(file, page);
    browser = await launchBrowser(BROWSER as string);
  }, 120_000);

  afterAll(() => browser?.close());

  const open = (options: BrowserContextOptions = {}): ReturnType<typeof openPage> =>
    openPage(browser, file, options);

  const rows = (page: Page): Promise<number> => page.locator('tbody tr:visible th code').count();
  const status = (page: Page): Promise<string | null> => page.locator('#shown').textContent();

  test('asks for nothing but itself and complains of nothing, whatever is clicked', async () => {
    const { page, heard } = await open();
    expect(await status(page)).toBe(`All ${results.length} cells.`);
    for (const button of await page.locator('#filters button').all()) await button.click();
    await page.locator('table.grid td a').first().click();
    expect(heard).toEqual([pathToFileURL(file).href]);
  });

  test.each(['light', 'dark'] as const)(
    '%s: a picture, and text that can be read',
    async (colorScheme) => {
      const { page } = await open({ colorScheme, viewport: { width: 1280, height: 900 } });
      await page.locator('#policy').selectOption('linux-6.12');
      await page.locator('#platform').selectOption('pseries-ddw');
      await expect.poll(() => rows(page)).toBeGreaterThan(5);
      const picture = await page.screenshot({ path: join(folder, `${colorScheme}.png`) });
      expect(picture.length).toBeGreaterThan(20_000);
      // WCAG 2.1, 1.4.3: 4.5 to 1.
      expect(await page.evaluate(CONTRAST)).toEqual([]);
    },
  );

  test('filters: by axis, by outcome, by text, together, and back', async () => {
    const { page } = await open();
    const count = (keep: (result: CellResult) => boolean): string =>
      `${results.filter(keep).length} of ${results.length} cells.`;
    await page.locator('#policy').selectOption('linux-7.2');
    await expect.poll(() => status(page)).toBe(count(({ cell }) => cell.policy === 'linux-7.2'));
    await page.locator('#flag').selectOption('flag');
    await page.locator('#plane').selectOption('qemu');
    await page.locator('#ring').selectOption('split');
    const place = ({ cell }: CellResult): boolean =>
      cell.policy === 'linux-7.2' && cell.flag && !cell.vhost && cell.ring === 'split';
    await expect.poll(() => status(page)).toBe(count(place));
    // Few enough to be unfolded.
    expect(await rows(page)).toBe(results.filter(place).length);
    await page.locator('button[data-outcome=works]').click();
    expect(await page.locator('button[data-outcome=works]').getAttribute('aria-pressed')).toBe(
      'false',
    );
    const broken = (result: CellResult): boolean => place(result) && result.outcome !== 'works';
    await expect.poll(() => status(page)).toBe(count(broken));
    await page.locator('#text').fill('stay mapped');
    const leaks = (result: CellResult): boolean =>
      broken(result) && result.text.includes('stay mapped');
    await expect.poll(() => status(page)).toBe(count(leaks));
    expect(await rows(page)).toBe(1);
    await page.locator('#reset').click();
    await expect.poll(() => status(page)).toBe(`All ${results.length} cells.`);
    expect(await rows(page)).toBe(0);
  });

  test('a square of the overview shows its cells, and a cell its decision', async () => {
    const { page } = await open();
    const square = page.locator('a[data-place="linux-6.12/pseries-ddw-lost/flag/normal"]');
    expect(await square.textContent()).toContain('works, but slow');
    await square.click();
    await expect.poll(() => rows(page)).toBe(6);
    await page.locator('tbody tr:visible a', { hasText: 'steps' }).first().click();
    const steps = page.locator('details[open] .steps:visible');
    expect(await steps.first().textContent()).toContain('create_ddw');
  });

  test('by keyboard alone: to a square, its cells, a filter, a fold; focus is seen', async () => {
    const { page } = await open();
    await page.locator('table.grid td a').first().focus();
    expect(await page.evaluate(OUTLINE)).toBe('solid');
    await page.keyboard.press('Enter');
    expect(await page.evaluate('document.activeElement.id')).toBe('shown');
    await expect.poll(() => rows(page)).toBeGreaterThan(0);
    await page.locator('#reset').press('Space');
    await expect.poll(() => rows(page)).toBe(0);
    // From the last button of the form to the first fold.
    await page.keyboard.press('Tab');
    expect(await page.evaluate('document.activeElement.localName')).toBe('summary');
    await page.keyboard.press('Enter');
    expect(await rows(page)).toBeGreaterThan(0);
  });

  test('every control has a name, every table a head with scopes', async () => {
    const { page } = await open();
    expect(await page.evaluate(UNNAMED)).toEqual([]);
  });

  test('without JavaScript all cells can be read, and nothing is offered that would not work', async () => {
    const { page } = await open({ javaScriptEnabled: false });
    expect(await page.locator('#filters').isVisible()).toBe(false);
    const folds = page.locator('details.group > summary');
    for (const fold of await folds.all()) await fold.click();
    expect(await rows(page)).toBe(results.length);
  });

  test.each([400, 1280])('at %i pixels only tables scroll sideways', async (width) => {
    const { page } = await open({ viewport: { width, height: 800 } });
    await page.locator('details.group > summary').first().click();
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(width);
  });

  test('opens and filters quickly', async () => {
    const { page } = await open();
    const took = (await page.evaluate(SPEED)) as number;
    expect(took).toBeLessThan(isQuiet() ? 2000 : 20_000);
  });
});

// Texts whose contrast with what is behind them is below 4.5.
const CONTRAST = `(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = (text) => {
    const [r, g, b] = rgb(text).map((value) => value / 255)
      .map((value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if ((rgb(color)[3] ?? 1) > 0) return color;
    }
  };
  const low = new Set();
  for (const element of document.querySelectorAll('main *, header *')) {
    const isText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== '');
    if (!isText || element.closest('svg, option') || !element.checkVisibility()) continue;
    const [a, b] = [getComputedStyle(element).color, behind(element)].map(luminance).sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.add(element.outerHTML.slice(0, 120));
  }
  return [...low];
})()`;

const OUTLINE = 'getComputedStyle(document.activeElement).outlineStyle';

const UNNAMED = `[...document.querySelectorAll('button, select, input, a, summary')]
  .filter((control) => {
    const label = control.labels?.[0]?.textContent ?? control.textContent;
    return label.trim() === '' && !control.getAttribute('aria-label');
  })
  .map(({ outerHTML }) => outerHTML.slice(0, 120))
  .concat([...document.querySelectorAll('main th:not([scope])')].map(({ outerHTML }) => outerHTML))`;

const SPEED = `(async () => {
  const start = performance.now();
  const text = document.getElementById('text');
  for (const fold of document.querySelectorAll('details.group')) fold.open = true;
  text.value = 'hypercalls';
  text.dispatchEvent(new Event('input', { bubbles: true }));
  await new Promise((resolve) => setTimeout(resolve, 100));
  await new Promise((resolve) => requestAnimationFrame(resolve));
  return performance.now() - start;
})()`;
