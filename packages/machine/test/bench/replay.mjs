// Events a second of a whole replay: both files read twice (a first look, then the run), joined, and
// every address and hypercall predicted. In one process, from memory, without unpacking. Build all
// first. Run: node test/bench/replay.mjs
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { ConsoleDigest, createRunReplay, inferRun, RunScout } from '@pinhole/machine';
import { findRecording } from '@pinhole/recordings';
import { createFtraceReader, createQemuLogReader } from '@pinhole/trace';

const ROUNDS = 7;
const CHUNK = 2 ** 18;

for (const name of [
  'linux6.12-pinhole-mix',
  'linux6.12-pinhole-smp2',
  'linux6.12-ddw',
  'linux7.2-ddw-lost',
]) {
  const { files } = findRecording(name);
  const [qemu, guest] = [files.qemuTrace, files.guestTrace].map((url) =>
    gunzipSync(readFileSync(url)),
  );
  let best = Number.POSITIVE_INFINITY;
  let events = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const start = performance.now();
    events = replay(qemu, guest);
    best = Math.min(best, performance.now() - start);
  }
  const rate = Math.round((events / best) * 1000);
  console.log(
    `${name.padEnd(24)} ${String(events).padStart(7)} events ${rate.toLocaleString('en')}/s`,
  );
}

function replay(qemu, guest) {
  const scout = new RunScout();
  const first = createFtraceReader({ onEvent: (event, line) => scout.guestEvent(event, line) });
  first.push(guest);
  first.end();
  const log = createQemuLogReader({
    only: scout.qemuEvents,
    onEvent: (event, line) => scout.qemuEvent(event, line),
  });
  log.push(qemu);
  log.end();
  const facts = scout.facts();
  const inference = inferRun(facts, new ConsoleDigest(), undefined);
  const run = createRunReplay({ facts, inference });
  const sides = {
    qemu: side(qemu, createQemuLogReader, (event, line) => run.qemuEvent(event, line)),
    guest: side(guest, createFtraceReader, (event, line) => run.guestEvent(event, line)),
  };
  const end = { qemu: () => run.endQemu(), guest: () => run.endGuest() };
  for (let wants = run.wants; wants !== undefined; wants = run.wants) {
    if (!sides[wants].advance()) end[wants]();
  }
  const { hypervisor, guest: found } = run.result();
  if (hypervisor.hcallMismatches + found.hcallMismatches + found.dmaAddressMismatches > 0) {
    throw new Error('the replay has mismatches');
  }
  return sides.qemu.events + sides.guest.events;
}

function side(bytes, createReader, onEvent) {
  const reader = createReader({ onEvent });
  let at = 0;
  return {
    events: 0,
    advance() {
      if (at >= bytes.length) {
        this.events = reader.end().events;
        return false;
      }
      reader.push(bytes.subarray(at, at + CHUNK));
      at += CHUNK;
      return true;
    },
  };
}
