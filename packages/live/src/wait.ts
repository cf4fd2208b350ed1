/** Longer than nearly every hypercall: until then a processor is spent instead of time. */
const SPIN_MS = 1;
/** Then looks are this far apart, or twice as long as that: timers are not exact. */
const PAUSE_MS = 0.05;

const cell = new Int32Array(new SharedArrayBuffer(4));

/** Sleeps, blocking the thread. */
function sleep(milliseconds: number): void {
  Atomics.wait(cell, 0, 0, milliseconds);
}

/**
 * Waits until `isDone` says true, blocking the thread, for at most `timeoutMs`.
 * @param meanwhile - is called about once a millisecond; it may throw to end the wait.
 * @returns whether it is done.
 */
export function waitUntil(
  isDone: () => boolean,
  timeoutMs: number,
  meanwhile: () => void = () => {},
): boolean {
  if (isDone()) return true;
  const start = performance.now();
  let look = start + SPIN_MS;
  for (;;) {
    if (isDone()) return true;
    const now = performance.now();
    if (now >= look) {
      // Time may have been lost between the two readings: the last word is not the clock's.
      if (now - start >= timeoutMs) return isDone();
      meanwhile();
      look = now + SPIN_MS;
    }
    if (now - start > SPIN_MS) sleep(PAUSE_MS);
  }
}
