import { type RunFacts, type RunObserver, RunProfile } from '@pinhole/machine';
import { checkWritable } from './files.js';
import { ReplayTimeline } from './replay-timeline.js';
import { openTimeline, type TimelineOptions } from './trace-output.js';

/** What follows a replay besides the report itself. */
export interface ReplayObservers {
  /** All of them as one; undefined: nobody follows. */
  readonly observer: RunObserver | undefined;
  readonly profile: RunProfile | undefined;
  close(): void;
}

/** Those that the options ask for. @throws InputError where a file could not be written. */
export function openObservers(
  options: TimelineOptions & { readonly html?: string },
  facts: RunFacts,
): ReplayObservers {
  if (options.html !== undefined) checkWritable(options.html);
  const profile = options.html === undefined ? undefined : new RunProfile();
  const writer = openTimeline(options);
  const timeline =
    writer === undefined ? undefined : new ReplayTimeline(writer.emit, facts.guest?.cpus ?? 1);
  return {
    observer: together(profile, timeline),
    profile,
    close() {
      timeline?.end();
      writer?.close();
    },
  };
}

function together(a: RunObserver | undefined, b: RunObserver | undefined): RunObserver | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return {
    qemuEvent(...told) {
      a.qemuEvent?.(...told);
      b.qemuEvent?.(...told);
    },
    operation(...told) {
      a.operation?.(...told);
      b.operation?.(...told);
    },
    givenUp(...told) {
      a.givenUp?.(...told);
      b.givenUp?.(...told);
    },
    failed(...told) {
      a.failed?.(...told);
      b.failed?.(...told);
    },
  };
}
