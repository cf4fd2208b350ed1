/** Each kind of page in a real browser. */
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { findRecording } from '@pinhole/recordings';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BROWSER, launchBrowser, openPage } from '../browser.js';
import { pinhole, scratchFolder } from '../pinhole.js';

const folder = scratchFolder();

const trace = findRecording('linux7.2-ddw-lost').files;
const COMMANDS: Readonly<Record<string, readonly string[]>> = {
  compare: ['compare'],
  replay: [
    'replay',
    ...['--qemu-trace', fileURLToPath(trace.qemuTrace)],
    ...['--guest-trace', fileURLToPath(trace.guestTrace)],
  ],
  explain: [
    'explain',
    ...['--qemu', 'qemu-system-ppc64 -M pseries -device virtio-blk-pci,iommu_platform=on'],
    ...['--kernel', 'linux-6.12', '--kernel', 'linux-7.2'],
  ],
  sweep: ['sweep', '2-pinhole', '--set', 'devices[0].indirect=true,false'],
};

let browser: Browser | undefined;

beforeAll(async () => {
  if (BROWSER !== undefined) browser = await launchBrowser(BROWSER);
}, 120_000);

afterAll(() => browser?.close());

describe.skipIf(BROWSER === undefined).each(Object.entries(COMMANDS))('%s', (name, command) => {
  const file = join(folder, `${name}.html`);

  beforeAll(() => {
    pinhole([...command, '--html', file]);
  }, 120_000);

  const open = (options: BrowserContextOptions): ReturnType<typeof openPage> =>
    openPage(browser, file, options);

  const ground = (page: Page): Promise<string> =>
    page.evaluate('getComputedStyle(document.body).backgroundColor');

  test('asks for nothing but itself, and has nothing to complain about', async () => {
    const { page, heard } = await open({});
    await page.evaluate(
      'for (const fold of document.querySelectorAll("details")) fold.open = true',
    );
    expect(heard).toEqual([pathToFileURL(file).href]);
    // Its policy holds.
    await page.evaluate('new Image().src = "https://example.invalid/x"');
    await expect.poll(() => heard.join()).toContain('Content Security Policy');
    expect(heard.join()).not.toMatch(/net::/);
  });

  test.each(['light', 'dark'] as const)(
    'a %s system: the theme can be changed by keyboard',
    async (system) => {
      const { page } = await open({ colorScheme: system });
      const before = await ground(page);
      expect(before === 'rgb(255, 255, 255)').toBe(system === 'light');
      const button = page.locator('#theme');
      expect(await button.textContent()).toBe(system === 'light' ? 'Dark theme' : 'Light theme');
      for (let tabs = 0; tabs < 20 && !(await isFocused(page)); tabs += 1) {
        await page.keyboard.press('Tab');
      }
      await page.keyboard.press('Enter');
      const after = await ground(page);
      expect(after === 'rgb(255, 255, 255)').toBe(system === 'dark');
      await page.keyboard.press('Space');
      expect(await ground(page)).toBe(before);
      await page.keyboard.press('Space');
      // Nothing is remembered.
      await page.reload();
      expect(await ground(page)).toBe(before);
    },
  );

  test('without JavaScript it follows the system, and has no button', async () => {
    for (const colorScheme of ['light', 'dark'] as const) {
      const { page } = await open({ colorScheme, javaScriptEnabled: false });
      expect(await page.locator('#theme').isVisible()).toBe(false);
      expect(await page.locator('h1').isVisible()).toBe(true);
    }
  });

  test.each([400, 1280])('at %i pixels only tables and charts scroll sideways', async (width) => {
    const { page } = await open({ viewport: { width, height: 800 } });
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(width);
  });

  test('paper is white, with all that is folded', async () => {
    const { page } = await open({ colorScheme: 'dark' });
    await page.evaluate('dispatchEvent(new Event("beforeprint"))');
    await page.emulateMedia({ media: 'print', colorScheme: 'dark' });
    expect(await ground(page)).toBe('rgb(255, 255, 255)');
    expect(await page.locator('header button').isVisible()).toBe(false);
    expect(await page.evaluate('document.querySelectorAll("details:not([open])").length')).toBe(0);
  });
});

function isFocused(page: Page): Promise<boolean> {
  return page.evaluate('document.activeElement?.id === "theme"');
}
