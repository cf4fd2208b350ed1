import { parentPort } from 'node:worker_threads';

parentPort.on('message', (id) => {
  if (id === 'exits') process.exit(3);
  if (id === 'throws') throw new Error('out of luck');
  if (id !== 'hangs') parentPort.postMessage({ cell: { id } });
});
