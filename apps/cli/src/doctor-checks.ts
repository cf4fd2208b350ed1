import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { gunzipSync } from 'node:zlib';
import {
  ConsoleDigest,
  createRunReplay,
  inferRun,
  mismatchesOf,
  RunScout,
  reportRun,
  runScenario,
} from '@pinhole/machine';
import { findRecording } from '@pinhole/recordings';
import { createFtraceReader, createQemuLogReader, type ReaderOptions } from '@pinhole/trace';
import { loadScenario } from './scenarios.js';
import { showsColor, terminalWidth } from './terminal.js';

/** `warning`: it works, with a limit. `missing`: nothing that is required. */
export type Status = 'ok' | 'warning' | 'missing' | 'failed';

/** One thing that was looked at; a row of `pinhole doctor`. */
export interface Check {
  readonly name: string;
  readonly status: Status;
  /** Without it, or when it fails, `pinhole doctor` exits with 1. */
  readonly isRequired: boolean;
  readonly found: string;
  /** What it is for. */
  readonly purpose: string;
  readonly fix: string | null;
}

const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  engines: { node: string };
  dependencies: Record<string, string>;
};

/** Node, the packages, and what the operating system gives. */
export async function systemChecks(): Promise<Check[]> {
  return [
    await required('Node.js', 'running at all', 'install a newer Node.js', nodeVersion),
    await required('packages', 'running at all', 'npm install --global pinhole', packageVersions),
    await required(
      'worker threads',
      'work on several CPUs at once',
      'look for limits on threads or memory (ulimit -u, -v; a container)',
      workerThreads,
    ),
    await optional(
      'temporary folder',
      'the live QEMU of pinhole conform: its memory is a file there',
      'set TMPDIR to a folder that can be written to',
      temporaryFolder,
    ),
    terminal(),
  ];
}

/** Runs the model: a scenario with its data, and a recorded run of a real machine. */
export async function selfChecks(): Promise<Check[]> {
  const again = 'npm install --global pinhole; if that does not help, report it: a bug in pinhole';
  return [
    await required('model', 'every result of pinhole', again, scenarioRun),
    await required('recorded run', 'every result of pinhole', again, recordedRun),
  ];
}

type Look = () => string | Promise<string>;

// A look returns what it found, or throws what is wrong.
async function look(
  find: Look,
  bad: Status,
  rest: Omit<Check, 'status' | 'found' | 'fix'>,
  fix: string,
): Promise<Check> {
  try {
    return { ...rest, status: 'ok', found: await find(), fix: null };
  } catch (error) {
    const found = error instanceof Error ? error.message : String(error);
    return { ...rest, status: bad, found, fix };
  }
}

const required = (name: string, purpose: string, fix: string, find: Look): Promise<Check> =>
  look(find, 'failed', { name, purpose, isRequired: true }, fix);

const optional = (name: string, purpose: string, fix: string, find: Look): Promise<Check> =>
  look(find, 'missing', { name, purpose, isRequired: false }, fix);

function nodeVersion(): string {
  const wanted = manifest.engines.node.replace('>=', '');
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const [least = 0, leastMinor = 0] = wanted.split('.').map(Number);
  const text = `${process.versions.node} on ${process.platform} ${process.arch}`;
  if (major > least || (major === least && minor >= leastMinor)) return text;
  throw new Error(`${text}; expected ${wanted} or newer`);
}

function packageVersions(): string {
  const require = createRequire(import.meta.url);
  const wanted = Object.entries(manifest.dependencies).filter(([name]) =>
    name.startsWith('@pinhole/'),
  );
  const wrong = wanted.flatMap(([name, version]) => {
    try {
      const found = (require(`${name}/package.json`) as { version: string }).version;
      return found === version ? [] : [`${name} is ${found}, expected ${version}`];
    } catch {
      return [`${name} ${version} is not installed`];
    }
  });
  if (wrong.length > 0) throw new Error(wrong.join('; '));
  return `${wanted.length} of Pinhole's, all of the version that this one was made with`;
}

const WORKER_MS = 10_000;

async function workerThreads(): Promise<string> {
  const worker = new Worker('require("node:worker_threads").parentPort.postMessage(6 * 7)', {
    eval: true,
  });
  let timer: NodeJS.Timeout | undefined;
  try {
    const answer = await new Promise((resolve, reject) => {
      worker.once('message', resolve).once('error', reject);
      timer = setTimeout(() => reject(new Error(`no answer in ${WORKER_MS / 1000} s`)), WORKER_MS);
    });
    if (answer !== 42) throw new Error(`expected 42 from a thread, found ${String(answer)}`);
  } finally {
    clearTimeout(timer);
    await worker.terminate();
  }
  const cpus = availableParallelism();
  return `${cpus} ${cpus === 1 ? 'CPU' : 'CPUs'}`;
}

function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'pinhole-doctor-'));
  try {
    writeFileSync(join(folder, 'file'), 'written');
    if (readFileSync(join(folder, 'file'), 'utf8') !== 'written')
      throw new Error(`${folder}: a file reads back otherwise`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return tmpdir();
}

function terminal(): Check {
  const width = terminalWidth();
  const isTerminal = process.stdout.isTTY === true;
  const color = showsColor() ? 'colour' : 'no colour';
  const isNarrow = isTerminal && width < 72;
  return {
    name: 'terminal',
    isRequired: false,
    status: isNarrow ? 'warning' : 'ok',
    found: `${isTerminal ? 'a terminal' : 'a pipe or file'}, ${width} columns, ${color}`,
    purpose: 'tables: they need 72 columns',
    fix: isNarrow ? 'make the window wider' : null,
  };
}

// Path 2: its hypercalls follow from its requests. [linux v6.12 arch/powerpc/kernel/iommu.c iommu_map_page]
function scenarioRun(): string {
  const { data, counters } = runScenario(loadScenario('2-pinhole', []).scenario);
  const hcalls = Math.round(counters.hcallsPerRequestTotal * data.requests);
  const expected = 2 * (counters.dataSegments + 3 * data.requests);
  if (data.completed !== data.requests || data.bytesReadWrong + data.imageBytesWrong > 0) {
    throw new Error(
      `${data.completed} of ${data.requests} requests, ${data.bytesReadWrong} bytes read wrong, ${data.imageBytesWrong} written wrong`,
    );
  }
  if (hcalls !== expected) throw new Error(`expected ${expected} hypercalls, found ${hcalls}`);
  return `${data.requests} requests through the pinhole, every byte right, ${hcalls} hypercalls as expected`;
}

/** The shortest recording with DMA events of the guest. */
const RECORDING = 'linux6.12-pinhole-rng';

function recordedRun(): string {
  const { files, meta, kernel } = findRecording(RECORDING);
  const qemu = gunzipSync(readFileSync(files.qemuTrace));
  const guest = gunzipSync(readFileSync(files.guestTrace));
  const feed = (
    create: typeof createQemuLogReader,
    bytes: Uint8Array,
    onEvent: ReaderOptions['onEvent'],
  ): void => {
    const reader = create({ onEvent });
    reader.push(bytes);
    reader.end();
  };
  const scout = new RunScout();
  feed(createFtraceReader, guest, (event, line) => scout.guestEvent(event, line));
  feed(createQemuLogReader, qemu, (event, line) => scout.qemuEvent(event, line));
  const facts = scout.facts();
  const console = new ConsoleDigest();
  const inference = inferRun(facts, console, kernel);
  const replay = createRunReplay({ facts, inference });
  feed(createFtraceReader, guest, (event, line) => replay.guestEvent(event, line));
  replay.endGuest();
  feed(createQemuLogReader, qemu, (event, line) => replay.qemuEvent(event, line));
  replay.endQemu();
  const report = reportRun({ facts, inference, console, replay });
  const { hypervisor, guest: predicted } = report;
  const maps = meta.guestEvents.dma_map_page;
  if (predicted === null || predicted.maps !== maps) {
    throw new Error(`${RECORDING}: expected ${maps} mappings, found ${predicted?.maps ?? 'none'}`);
  }
  const wrong = mismatchesOf(report);
  if (wrong > 0) throw new Error(`${RECORDING}: ${wrong} lines are not as the model has them`);
  return `${RECORDING}: ${hypervisor.hcalls} hypercalls, ${hypervisor.translations} translations and ${predicted.hcallsPredicted} predictions, all as recorded`;
}
