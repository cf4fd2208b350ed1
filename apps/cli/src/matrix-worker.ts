// Runs cells of the matrix: an id comes in, what the cell shows goes out, until the pool ends it.
import { parentPort } from 'node:worker_threads';
import { matrixDisk, runCell } from '@pinhole/machine';

const disk = matrixDisk();
parentPort?.on('message', (id: string) => parentPort?.postMessage(runCell(id, { disk }).result));
