import { parentPort } from 'node:worker_threads';

parentPort.on('message', (id) => {
  if (id === 'exits') process.exit(3);
  if (id === 'throws') throw new Error('out of luck');
  if (id === 'hangs') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  parentPort.postMessage({ cell: { id } });
});
