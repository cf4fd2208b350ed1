/** Replays a recorded run in this process as `pinhole replay` does it: inference included. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import type { Recording } from '@pinhole/recordings';
import {
  createConsoleReader,
  createFtraceReader,
  createQemuLogReader,
  type ReaderOptions,
  type ReadSummary,
} from '@pinhole/trace';
import {
  ConsoleDigest,
  createRunReplay,
  inferRun,
  problemOfRun,
  type ReplayReport,
  type RunObserver,
  RunScout,
  reportRun,
} from '../src/index.js';

/** What a run left behind. */
export interface RunFiles {
  readonly qemu: Uint8Array;
  readonly guest?: Uint8Array;
  readonly console?: Uint8Array;
}

/** What a replay says, and what it could not read. */
export interface ReplayedRun {
  readonly report: ReplayReport;
  readonly qemu: ReadSummary;
  readonly guest: ReadSummary | undefined;
  /** The files do not belong together: the program refuses them. */
  readonly isRefused: boolean;
}

/** The files of a recording, unpacked. */
export function filesOf({ files }: Recording): Required<RunFiles> {
  const bytes = (url: URL): Uint8Array => gunzipSync(readFileSync(url));
  return {
    qemu: bytes(files.qemuTrace),
    guest: bytes(files.guestTrace),
    console: bytes(files.console),
  };
}

const CHUNK = 2 ** 16;

type Feed = (options: ReaderOptions) => Generator<undefined, ReadSummary>;

function feedOf(
  create: typeof createQemuLogReader | typeof createFtraceReader,
  bytes: Uint8Array,
): Feed {
  return function* feed(options) {
    const reader = create(options);
    for (let at = 0; at < bytes.length; at += CHUNK) {
      reader.push(bytes.subarray(at, at + CHUNK));
      yield undefined;
    }
    return reader.end();
  };
}

function drain(feed: Generator<undefined, ReadSummary>): ReadSummary {
  for (;;) {
    const { done, value } = feed.next();
    if (done === true) return value as ReadSummary;
  }
}

/** Both files, each read as far as the replay wants it. */
export function replayRun(files: RunFiles, observer?: RunObserver): ReplayedRun {
  const digest = new ConsoleDigest();
  if (files.console !== undefined) {
    const reader = createConsoleReader({ onFact: (fact) => digest.fact(fact) });
    reader.push(files.console);
    reader.end();
  }
  const qemuFeed = feedOf(createQemuLogReader, files.qemu);
  const guestFeed = files.guest === undefined ? undefined : feedOf(createFtraceReader, files.guest);
  const scout = new RunScout();
  if (guestFeed !== undefined) {
    drain(guestFeed({ onEvent: (event, line) => scout.guestEvent(event, line) }));
  }
  drain(qemuFeed({ onEvent: (event, line) => scout.qemuEvent(event, line) }));
  const facts = scout.facts();
  const inference = inferRun(facts, digest, undefined);
  const replay = createRunReplay({
    facts,
    inference,
    ...(observer === undefined ? {} : { observer }),
  });
  const qemu = qemuFeed({ onEvent: (event, line) => replay.qemuEvent(event, line) });
  const guest = guestFeed?.({ onEvent: (event, line) => replay.guestEvent(event, line) });
  let qemuSummary: ReadSummary | undefined;
  let guestSummary: ReadSummary | undefined;
  for (let wants = replay.wants; wants !== undefined; wants = replay.wants) {
    if (wants === 'guest' && guest !== undefined) {
      const { done, value } = guest.next();
      if (done !== true) continue;
      guestSummary = value;
      replay.endGuest();
    } else {
      const { done, value } = qemu.next();
      if (done !== true) continue;
      qemuSummary = value;
      replay.endQemu();
    }
  }
  const report = reportRun({ facts, inference, console: digest, replay });
  return {
    report,
    qemu: qemuSummary as ReadSummary,
    guest: guestSummary,
    isRefused: files.guest !== undefined && problemOfRun(facts, digest) !== undefined,
  };
}

/** Lines that could not be read, those of other programs apart. */
export function problemsOf({ qemu, guest }: ReplayedRun): number {
  return [qemu, guest].reduce((sum, summary) => {
    if (summary === undefined) return sum;
    const { malformed, binary, cut } = summary.problems;
    return sum + malformed + binary + cut + summary.problems['too-long'];
  }, 0);
}
