/** A recorded run, replayed: the replay for each kind of machine. */
import { DmaRunReplay } from './dma-run-replay.js';
import type { RunReplay, RunReplayOptions } from './run-result.js';
import { TceRunReplay } from './tce-run-replay.js';

/** The replay for the machine that the files are of. */
export function createRunReplay(options: RunReplayOptions): RunReplay {
  return options.inference.platform.iommu === 'spapr-tce'
    ? new TceRunReplay(options)
    : new DmaRunReplay(options);
}
