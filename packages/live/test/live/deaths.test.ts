// How a machine ends, and what is left of it then: nothing.
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { LiveError, LiveQemu } from '../../src/index.js';
import { eventually, processesWith } from '../support/processes.js';
import { describeLive, QEMU } from './support/live.js';

const root = join(import.meta.dirname, '../..');
const holder = join(import.meta.dirname, 'support/holder.mjs');
const put = (qemu: LiveQemu): number => qemu.call(0x20, [0x8000_0000n, 0n, 3n]).ret;

function failure(act: () => unknown): LiveError {
  try {
    act();
  } catch (error) {
    if (error instanceof LiveError) return error;
    throw error;
  }
  throw new Error('no error');
}

describeLive('an end', () => {
  let marker: string;
  let files: string[];
  const shm = (): string[] => readdirSync('/dev/shm').filter((name) => /pinhole|qemu/.test(name));

  beforeEach(({ task }) => {
    marker = `pinhole-test-${process.pid}-${task.id}`;
    files = shm();
  });
  // Whatever happened: no process, no file.
  afterEach(async () => {
    await eventually(() => processesWith(marker).length === 0);
    expect(shm()).toEqual(files);
  });
  const start = (timeoutMs = 10_000): LiveQemu =>
    LiveQemu.start({ qemu: QEMU, timeoutMs, args: ['-name', marker] });

  test('close: at once, twice, and everything after it says so', () => {
    const qemu = start();
    qemu.close();
    qemu.close();
    const acts = [
      () => put(qemu),
      () => qemu.reset(),
      () => qemu.deviceTree(),
      () => qemu.qmp('query-status'),
      () => qemu.memory.readU8(0),
      () => qemu.memory.writeU8(0, 0),
      () => qemu.batches.submit(1),
      () => qemu.batches.collect(),
    ];
    expect(acts.map((act) => failure(act).code)).toEqual(acts.map(() => 'E_CLOSED'));
  });

  test('QEMU is killed in the middle of calls', async () => {
    const qemu = start();
    expect(put(qemu)).toBe(0);
    process.kill(qemu.pid, 'SIGKILL');
    const begin = performance.now();
    const error = failure(() => {
      for (;;) put(qemu);
    });
    expect(performance.now() - begin).toBeLessThan(500);
    expect(error.code).toBe('E_QEMU_EXITED');
    expect(error.message).toContain('by SIGKILL');
    // The same error from now on.
    expect(failure(() => put(qemu))).toBe(error);
    expect(failure(() => qemu.reset())).toBe(error);
    expect(failure(() => qemu.memory.readU8(0))).toBe(error);
    qemu.close();
  });

  test('QEMU ends in an orderly way, by its own', () => {
    const qemu = start();
    qemu.qmp('quit');
    const error = failure(() => {
      for (;;) put(qemu);
    });
    expect(error.code).toBe('E_QEMU_EXITED');
    expect(error.details.exitCode).toBe(0);
  });

  test('QEMU is stopped: an error within the bound, and it is killed', async () => {
    const qemu = start(500);
    process.kill(qemu.pid, 'SIGSTOP');
    const begin = performance.now();
    const error = failure(() => {
      for (;;) put(qemu);
    });
    expect(error.code).toBe('E_QEMU_HANG');
    expect(performance.now() - begin).toBeLessThan(2_000);
    expect(failure(() => qemu.qmp('query-status'))).toBe(error);
  });

  test('the options are not to its liking: it says which', () => {
    const error = failure(() =>
      LiveQemu.start({ qemu: QEMU, args: ['-name', marker, '-device', 'no-such-device'] }),
    );
    expect(error.code).toBe('E_QEMU_EXITED');
    expect(error.message).toContain('no-such-device');
  });

  /** A program that holds a machine, and what it has said so far. */
  function hold(way: string, detached = false): { child: ChildProcess; said: () => string } {
    const child = spawn(process.execPath, [holder, way, marker], {
      cwd: root,
      detached,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    let text = '';
    child.stdout?.on('data', (data) => {
      text += data;
    });
    return { child, said: () => text };
  }
  const ended = (child: ChildProcess): boolean =>
    child.exitCode !== null || child.signalCode !== null;

  test.each([
    ['has nothing more to do', 'nothing', 0],
    ['closes it', 'close', 0],
    ['throws', 'throw', 1],
    ['exits', 'exit', 7],
  ])('the program %s', async (_, way, code) => {
    const { child, said } = hold(way);
    await eventually(() => ended(child), 20_000);
    expect([said(), child.exitCode]).toEqual(['ready 0\n', code]);
  });

  test.each([
    ['SIGINT', 'wait'],
    ['SIGTERM', 'wait'],
    ['SIGKILL', 'wait'],
    ['SIGTERM', 'loop'],
    ['SIGKILL', 'loop'],
  ] as const)('the program gets %s (%s)', async (signal, way) => {
    const { child, said } = hold(way);
    await eventually(() => said() !== '' || ended(child), 20_000);
    expect(processesWith(marker).length).toBeGreaterThan(1);
    child.kill(signal);
    await eventually(() => ended(child));
    expect(child.signalCode).toBe(signal);
  });

  test('Ctrl-C is for the program, which may go on with its machine', async () => {
    const { child, said } = hold('interrupted', true);
    await eventually(() => said() !== '' || ended(child), 20_000);
    process.kill(-(child.pid as number), 'SIGINT');
    await eventually(() => ended(child));
    expect([said(), child.exitCode]).toEqual(['ready 0\nafter SIGINT: 0\n', 0]);
  });

  test('the program is killed during the start', async () => {
    for (let ms = 0; ms < 200; ms += 20) {
      const { child } = hold('wait');
      // Node itself takes a while before it starts anything.
      const others = (): boolean => processesWith(marker).some((pid) => pid !== child.pid);
      await eventually(() => others() || ended(child), 20_000);
      await new Promise((resolve) => setTimeout(resolve, ms));
      child.kill('SIGKILL');
      await eventually(() => ended(child) && processesWith(marker).length === 0);
    }
  });
});
