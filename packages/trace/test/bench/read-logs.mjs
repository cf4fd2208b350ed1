// Lines a second of the readers and the writers, over all recorded runs, in chunks of 64 KiB as a
// file stream gives them. Build first. Run: node test/bench/read-logs.mjs
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { recordings } from '@pinhole/recordings';
import {
  createChromeWriter,
  createConsoleReader,
  createFtraceReader,
  createNdjsonWriter,
  createQemuLogReader,
  createQemuTextWriter,
  createTraceCmdReader,
} from '@pinhole/trace';

const CHUNK = 65_536;
const ROUNDS = 5;
const MIB = 2 ** 20;

const join = (key) =>
  Buffer.concat(recordings.map(({ files }) => gunzipSync(readFileSync(files[key]))));
const qemu = join('qemuTrace');
const ftrace = join('guestTrace');
const consoles = join('console');
// The guest traces in the form of `trace-cmd report`.
const traceCmd = Buffer.from(
  ftrace
    .toString('latin1')
    .replace(/^#.*\n/gm, '')
    .replace(/(: )(\w+): /g, (_, colon, name) => `${colon}${`${name}: `.padEnd(22)}`),
  'latin1',
);

/** Reads `log` some times over; the first rounds are for the compiler. */
function measure(label, log, createReader, onEvent) {
  let best = 0;
  let lines = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const reader = createReader({ onEvent, onFact: onEvent });
    const start = performance.now();
    for (let at = 0; at < log.length; at += CHUNK) reader.push(log.subarray(at, at + CHUNK));
    ({ lines } = reader.end());
    best = Math.max(best, lines / (performance.now() - start));
  }
  const speed = (best / 1000).toFixed(2);
  const bytes = ((best * 1000 * log.length) / lines / MIB).toFixed(0);
  console.log(`${label.padEnd(30)} ${lines} lines  ${speed} million lines/s  ${bytes} MiB/s`);
}

let written = 0;
const write = (text) => {
  written += text.length;
};
const writerOf = (create) => {
  const writer = create(write);
  return (event) => writer.emit(event);
};

measure('read QEMU log', qemu, createQemuLogReader, () => {});
measure('read ftrace', ftrace, createFtraceReader, () => {});
measure('read trace-cmd report', traceCmd, createTraceCmdReader, () => {});
measure('read consoles', consoles, createConsoleReader, () => {});
measure('read, write QEMU text', qemu, createQemuLogReader, writerOf(createQemuTextWriter));
measure('read, write NDJSON', qemu, createQemuLogReader, writerOf(createNdjsonWriter));
measure('read, write Chrome JSON', qemu, createQemuLogReader, writerOf(createChromeWriter));
console.log(`(${(written / MIB).toFixed(0)} MiB written)`);
