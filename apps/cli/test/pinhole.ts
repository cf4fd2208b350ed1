import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

const MAIN = join(import.meta.dirname, '../dist/main.js');

/** How the program ended, and what it said. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the built program as a user would; output is a pipe. */
export function pinhole(args: readonly string[], env: NodeJS.ProcessEnv = {}): Ended {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    maxBuffer: 2 ** 27,
  });
  return { code: status, stdout, stderr };
}

/** For tests that start it themselves. */
export const PROGRAM: readonly string[] = [process.execPath, MAIN];

/** An empty folder that is gone after the file's tests. */
export function scratchFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'pinhole-test-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A small scenario, changed. */
export const scenario = (change: (text: string) => string = (text) => text): string =>
  change(`machine: { arch: pseries, memory: 2GiB, ddw: false }
devices:
  - { type: virtio-blk, iommuPlatform: true }
workload:
  - { read: { offset: 0, length: 16KiB, block: 4KiB } }
`);
