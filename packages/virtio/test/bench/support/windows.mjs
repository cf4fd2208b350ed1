// Times functions that do the same work against each other: in many short windows, one after the
// other and round and round, so that whatever else the machine does meets all of them alike.

const ROUNDS = 60;
const WARM_UP_NS = 300e6;

const now = () => Number(process.hrtime.bigint());

/**
 * `cases`: name and a function that does `count` pieces of work when called. Returns nanoseconds for
 * a piece: the median of the windows.
 */
export function measure(cases, rounds = ROUNDS) {
  for (const { run } of cases) {
    const end = now() + WARM_UP_NS;
    while (now() < end) run();
  }
  const times = cases.map(() => []);
  for (let round = 0; round < rounds; round += 1) {
    cases.forEach(({ run }, i) => {
      // Once without the clock: the caches are this case's then.
      run();
      const start = now();
      const pieces = run();
      times[i].push((now() - start) / pieces);
    });
  }
  return cases.map(({ name }, i) => {
    const sorted = times[i].sort((a, b) => a - b);
    return { name, ns: sorted[sorted.length >> 1], best: sorted[Math.floor(sorted.length / 10)] };
  });
}

/** Bytes that the heap grows by for each piece of work. */
export function heapGrowth({ run }, pieces) {
  const measureHeap = () => {
    globalThis.gc();
    return process.memoryUsage().heapUsed;
  };
  run();
  const before = measureHeap();
  let done = 0;
  while (done < pieces) done += run();
  return { allocated: process.memoryUsage().heapUsed - before, kept: measureHeap() - before, done };
}
