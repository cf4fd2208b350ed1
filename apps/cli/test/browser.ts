import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';

/** The browser of this machine, if it has one. */
export const BROWSER: string | undefined = (process.env.PATH ?? '')
  .split(':')
  .flatMap((folder) =>
    ['chromium', 'chromium-browser', 'google-chrome'].map((name) => join(folder, name)),
  )
  .find((path) => existsSync(path));

/** Starts the browser at `executablePath`, without a window. */
export function launchBrowser(executablePath: string): Promise<Browser> {
  return chromium.launch({ executablePath });
}

/** Opens a file: the page, and all that it asked for or complained about. */
export async function openPage(
  browser: Browser | undefined,
  file: string,
  options: BrowserContextOptions = {},
): Promise<{ page: Page; heard: string[] }> {
  if (browser === undefined) throw new Error('expected a browser that was started');
  const page = await browser.newPage(options);
  const heard: string[] = [];
  page.on('console', (message) => heard.push(message.text()));
  page.on('pageerror', (error) => heard.push(error.message));
  page.on('request', (request) => heard.push(request.url()));
  await page.goto(pathToFileURL(file).href);
  return { page, heard };
}
