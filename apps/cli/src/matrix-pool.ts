import { setImmediate } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { InternalError } from '@pinhole/base';
import { type CellResult, matrixDisk, runCell } from '@pinhole/machine';

/** Fewer cells than this are not worth a thread. */
const FEW = 12;
/** More threads than this gain nothing anywhere, and each takes memory. */
const MAX_THREADS = 64;
/** As many cells wait in each thread, so that none waits for the main one. */
const AHEAD = 4;
/** A cell takes milliseconds; one that takes this long will not end. */
const TIMEOUT_MS = 120_000;

/** Options of {@link runCells}. */
export interface PoolOptions {
  readonly ids: readonly string[];
  /** Threads at most. */
  readonly jobs: number;
  /** Called for each cell as it is done, in any order. */
  readonly onResult: (result: CellResult) => void;
  /** Asked before each cell: true ends it all, with what there is. */
  readonly isStopped: () => boolean;
  /** What the threads run. */
  readonly worker?: URL;
  readonly timeoutMs?: number;
}

/**
 * Runs cells in threads.
 * @throws InternalError that names the cell, when a thread dies over it or it does not end.
 */
export async function runCells(options: PoolOptions): Promise<void> {
  const { ids, jobs, onResult, isStopped } = options;
  if (options.worker === undefined && (jobs === 1 || ids.length < FEW)) {
    const disk = matrixDisk();
    for (const id of ids) {
      // Lets Ctrl-C in between two cells.
      await setImmediate();
      if (isStopped()) return;
      onResult(runCell(id, { disk }).result);
    }
    return;
  }
  const queue = [...ids].reverse();
  const next = (): string | undefined => (isStopped() ? undefined : queue.pop());
  const crews = Array.from({ length: Math.min(jobs, ids.length, MAX_THREADS) }, () =>
    work(options, next),
  );
  try {
    await Promise.all(crews.map(({ done }) => done));
  } finally {
    await Promise.all(crews.map(({ worker }) => worker.terminate()));
  }
}

function work(
  { onResult, worker: url, timeoutMs = TIMEOUT_MS }: PoolOptions,
  next: () => string | undefined,
): { readonly worker: Worker; readonly done: Promise<void> } {
  const worker = new Worker(url ?? new URL('./matrix-worker.js', import.meta.url));
  const done = new Promise<void>((resolve, reject) => {
    // Those that the thread has, in its order: the first is the one that it runs.
    const given: string[] = [];
    let timer: NodeJS.Timeout | undefined;
    const fail = (what: string): void => {
      clearTimeout(timer);
      reject(new InternalError(`cell ${given[0] ?? '(none)'}: ${what}`));
    };
    const give = (): void => {
      clearTimeout(timer);
      while (given.length < AHEAD) {
        const id = next();
        if (id === undefined) break;
        given.push(id);
        worker.postMessage(id);
      }
      if (given.length === 0) resolve();
      else timer = setTimeout(() => fail(`it did not end within ${timeoutMs} ms`), timeoutMs);
    };
    worker.on('message', (result: CellResult) => {
      given.shift();
      onResult(result);
      give();
    });
    worker.on('error', (error) => fail(error instanceof Error ? error.message : String(error)));
    // After `done` this says nothing any more.
    worker.on('exit', (code) => fail(`its thread ended with ${code}`));
    give();
  });
  return { worker, done };
}
