import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { findRecording, type RecordingName } from '@pinhole/recordings';
import { createConsoleReader, createFtraceReader, createQemuLogReader } from '@pinhole/trace';
import {
  ConsoleDigest,
  inferRun,
  type ReplayReport,
  type RunObserver,
  RunReplay,
  RunScout,
  reportRun,
} from '../src/index.js';

const CHUNK = 2 ** 16;

function chunksOf(url: URL): Uint8Array[] {
  const bytes = gunzipSync(readFileSync(url));
  const count = Math.ceil(bytes.length / CHUNK);
  return Array.from({ length: count }, (_, i) => bytes.subarray(i * CHUNK, (i + 1) * CHUNK));
}

/** Replays all files of a recording, a piece of each at a time, as the command does. */
export function replayRecording(
  name: RecordingName,
  observer?: RunObserver,
): { replay: RunReplay; report: ReplayReport } {
  const { files } = findRecording(name);
  const [qemu, guest] = [chunksOf(files.qemuTrace), chunksOf(files.guestTrace)];
  const scout = new RunScout();
  const ahead = createFtraceReader({ onEvent: (event, line) => scout.guestEvent(event, line) });
  for (const chunk of guest) if (!scout.hasSeenEnough) ahead.push(chunk);
  const first = createQemuLogReader({ onEvent: (event, line) => scout.qemuEvent(event, line) });
  for (const chunk of qemu) first.push(chunk);
  first.end();
  const console = new ConsoleDigest();
  const reader = createConsoleReader({ onFact: (fact) => console.fact(fact) });
  for (const chunk of chunksOf(files.console)) reader.push(chunk);
  reader.end();
  const facts = scout.facts();
  const inference = inferRun(facts, console, undefined);
  const replay = new RunReplay({
    facts,
    inference,
    ...(observer === undefined ? {} : { observer }),
  });
  const sides = {
    qemu: {
      chunks: qemu,
      reader: createQemuLogReader({ onEvent: (event, line) => replay.qemuEvent(event, line) }),
      end: () => replay.endQemu(),
    },
    guest: {
      chunks: guest,
      reader: createFtraceReader({ onEvent: (event, line) => replay.guestEvent(event, line) }),
      end: () => replay.endGuest(),
    },
  };
  for (let wants = replay.wants; wants !== undefined; wants = replay.wants) {
    const { chunks, reader: own, end } = sides[wants];
    const chunk = chunks.shift();
    if (chunk !== undefined) own.push(chunk);
    else {
      own.end();
      end();
    }
  }
  return { replay, report: reportRun({ facts, inference, console, replay }) };
}
