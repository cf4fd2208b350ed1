import { parseSize } from '@pinhole/base';
import { KERNEL_PROFILES } from '@pinhole/guest';
import {
  ConsoleDigest,
  createRunReplay,
  type Inference,
  inferRun,
  problemOfRun,
  type RunFacts,
  type RunProblem,
  type RunReplay,
  RunScout,
  reportRun,
  windowWithPools,
} from '@pinhole/machine';
import {
  createConsoleReader,
  createFtraceReader,
  createQemuLogReader,
  createTraceCmdReader,
  type LogReader,
  type ReaderOptions,
  type ReadProblem,
} from '@pinhole/trace';
import { commandLine } from './command-line.js';
import { EXIT, InputError, interrupt } from './exit.js';
import { writeWhole } from './files.js';
import { renderReplayHtml } from './replay-html.js';
import { checkFormat, InputFile } from './replay-inputs.js';
import { openObservers } from './replay-observers.js';
import { type FileReport, isClean, type ReplayOutcome, toJson } from './replay-outcome.js';
import { renderReplay } from './replay-text.js';
import { Progress, showsColor, terminalWidth } from './terminal.js';

/** Options of `pinhole replay`. */
export interface ReplayOptions {
  readonly qemuTrace: string;
  readonly guestTrace?: string;
  readonly console?: string;
  readonly kernel?: string;
  readonly format: 'table' | 'json';
  readonly set: readonly string[];
  readonly html?: string;
  readonly traceFile?: string;
  readonly traceFormat?: 'chrome' | 'ndjson';
}

/** How many problems of a log are shown; all are counted. */
const KEEP_PROBLEMS = 10;

/** `pinhole replay`: the logs of a real run against the model. */
export async function replay(options: ReplayOptions): Promise<void> {
  const machine = machineOf(options.set);
  checkKernel(options.kernel);
  const progress = new Progress();
  const qemu = new InputFile(options.qemuTrace, "QEMU's log of trace events");
  await checkFormat(qemu, '--qemu-trace', ['qemu-log', 'console']);
  const guest = await openGuest(options.guestTrace);
  const digest = await readConsole(options.console);
  const facts = await scout(qemu, guest, progress);
  const inference = inferRun(facts, digest, options.kernel);
  if (guest !== undefined) checkSameRun(facts, inference, digest, qemu, guest);
  const { observer, profile, close } = openObservers(options, facts);
  const run = createRunReplay({
    facts,
    inference,
    ...machine,
    ...(observer === undefined ? {} : { observer }),
  });
  profile?.addWindows(
    guest === undefined ? (inference.boot?.windows ?? []).map(windowWithPools) : run.windows(),
  );
  const outcome = await feed(run, qemu, guest, progress);
  progress.clear();
  checkHasEvents(outcome.qemu);
  const result: ReplayOutcome = {
    ...outcome,
    report: reportRun({ facts, inference, console: digest, replay: run }),
  };
  close();
  if (options.html !== undefined && profile !== undefined) {
    profile.end();
    writeWhole(options.html, renderReplayHtml(result, profile, commandLine()));
  }
  process.stdout.write(
    options.format === 'json'
      ? toJson(result)
      : renderReplay(result, { width: terminalWidth(), color: showsColor() }),
  );
  if (!isClean(result)) process.exitCode = EXIT.FAILED;
}

interface GuestInput {
  readonly file: InputFile;
  readonly createReader: (options: ReaderOptions) => LogReader;
}

async function openGuest(path: string | undefined): Promise<GuestInput | undefined> {
  if (path === undefined) return undefined;
  const file = new InputFile(path, "a trace of the guest's kernel");
  const format = await checkFormat(file, '--guest-trace', ['ftrace', 'trace-cmd']);
  return { file, createReader: format === 'ftrace' ? createFtraceReader : createTraceCmdReader };
}

async function readConsole(path: string | undefined): Promise<ConsoleDigest> {
  const digest = new ConsoleDigest();
  if (path === undefined) return digest;
  const file = new InputFile(path, "a guest's console log");
  await checkFormat(file, '--console', ['console']);
  const reader = createConsoleReader({ onFact: (fact) => digest.fact(fact) });
  for await (const chunk of file.chunks()) reader.push(chunk);
  const { facts, lines } = reader.end();
  if (facts === 0) {
    throw new InputError(
      `--console ${path}: expected the console or dmesg of a Linux guest, found nothing of it in ${lines} lines`,
    );
  }
  return digest;
}

// The first look at both files.
async function scout(
  qemu: InputFile,
  guest: GuestInput | undefined,
  progress: Progress,
): Promise<RunFacts> {
  const first = new RunScout();
  if (guest !== undefined) {
    const reader = guest.createReader({ onEvent: (event, line) => first.guestEvent(event, line) });
    for await (const chunk of guest.file.chunks(progress)) {
      reader.push(chunk);
      if (first.hasSeenEnough) break;
    }
    reader.end();
  }
  const reader = createQemuLogReader({
    only: first.qemuEvents,
    onEvent: (event, line) => first.qemuEvent(event, line),
  });
  for await (const chunk of qemu.chunks(progress)) reader.push(chunk);
  reader.end();
  return first.facts();
}

function checkHasEvents({ path, summary, cutShort }: FileReport): void {
  if (summary.events > 0 || interrupt.isRequested) return;
  const cut = cutShort === undefined ? '' : ` (${cutShort})`;
  throw new InputError(
    `${path}: expected a QEMU log with trace events (-trace 'spapr_iommu_*', -trace 'vtd_*', -trace 'virtqueue_*' ...), found none in ${summary.lines} lines${cut}`,
  );
}

// Files of two runs do not fit, and every line would be a mismatch.
function checkSameRun(
  facts: RunFacts,
  { release }: Inference,
  digest: ConsoleDigest,
  qemu: InputFile,
  input: GuestInput,
): void {
  if (interrupt.isRequested) return;
  const { path } = input.file;
  const { guest, alignment, accesses, requests } = facts;
  const marked = guest?.release;
  if (digest.release !== undefined && marked !== undefined && marked !== release) {
    throw new InputError(
      `--console is of Linux ${digest.release}, ${path} of Linux ${marked}: they are not of one run`,
    );
  }
  const problem = problemOfRun(facts, digest);
  if (problem === undefined) return;
  const together = `${qemu.path} and ${path} are not of one run`;
  const texts: Record<RunProblem, string> = {
    'no-guest-events': `${path}: expected events of the guest's kernel (dma:*, powerpc:hcall_*, swiotlb:*, iommu:*), found none that are known`,
    'no-tce-calls': `${path}: the guest's addresses are neither physical ones, nor those of a machine that is predicted: expected TCE hypercalls in ${qemu.path} (pseries, with -trace 'spapr_iommu_*'), or in the guest's trace swiotlb:swiotlb_bounced (bounce buffers), or iommu:map and iommu:unmap (Linux's generic IOMMU code, as for Intel VT-d)`,
    'other-hypercalls': `${together}: of the first ${alignment?.of} hypercalls in the guest's trace, at most ${alignment?.score} are in QEMU's log in this order`,
    'other-accesses': `${together}: of the first ${accesses.lookedFor} buffers in the guest's trace, devices accessed ${accesses.found}`,
    'other-requests': `${together}: the requests that the guest's trace begins with are nowhere in QEMU's log (of ${requests.of}, at most ${requests.found} have such buffers)`,
  };
  throw new InputError(texts[problem]);
}

// Reads both files side by side, each as far as the replay wants it.
async function feed(
  run: RunReplay,
  qemu: InputFile,
  guest: GuestInput | undefined,
  progress: Progress,
): Promise<Omit<ReplayOutcome, 'report'>> {
  const qemuSide = new Side(qemu, createQemuLogReader, progress, {
    event: (event, line) => run.qemuEvent(event, line),
    end: () => run.endQemu(),
  });
  const guestSide =
    guest === undefined
      ? undefined
      : new Side(guest.file, guest.createReader, progress, {
          event: (event, line) => run.guestEvent(event, line),
          end: () => run.endGuest(),
        });
  for (let wants = run.wants; wants !== undefined; wants = run.wants) {
    await (wants === 'guest' && guestSide !== undefined ? guestSide : qemuSide).advance();
  }
  return { qemu: qemuSide.report(), guest: guestSide?.report() };
}

/** One of the two files, read a chunk at a time. */
class Side {
  readonly #file: InputFile;
  readonly #chunks: AsyncGenerator<Uint8Array>;
  readonly #reader: LogReader;
  readonly #end: () => void;
  readonly #problems: ReadProblem[] = [];
  #summary: FileReport['summary'] | undefined;

  constructor(
    file: InputFile,
    createReader: (options: ReaderOptions) => LogReader,
    progress: Progress,
    to: { event: ReaderOptions['onEvent']; end: () => void },
  ) {
    this.#file = file;
    this.#chunks = file.chunks(progress);
    this.#end = to.end;
    this.#reader = createReader({
      onEvent: to.event,
      onProblem: (problem) => {
        if (problem.kind === 'unknown-event' || this.#problems.length >= KEEP_PROBLEMS) return;
        this.#problems.push(problem);
      },
    });
  }

  async advance(): Promise<void> {
    const { value, done } = await this.#chunks.next();
    if (done !== true) {
      this.#reader.push(value);
      return;
    }
    this.#summary = this.#reader.end();
    this.#end();
  }

  report(): FileReport {
    const summary = this.#summary ?? this.#reader.end();
    const { path, cutShort } = this.#file;
    return { path, summary, problems: this.#problems, cutShort };
  }
}

function checkKernel(id: string | undefined): void {
  const ids = KERNEL_PROFILES.map((kernel) => kernel.id);
  if (id === undefined || ids.includes(id)) return;
  throw new InputError(`--kernel: expected one of ${ids.join(', ')}; found "${id}"`);
}

// What the log does not say about the machine.
function machineOf(set: readonly string[]): { dmaWindowSize?: number; pageSizes?: bigint } {
  const machine: { dmaWindowSize?: number; pageSizes?: bigint } = {};
  for (const setting of set) {
    const [path, value = ''] = setting.split(/=(.*)/s);
    if (path === 'machine.dmaWindowSize') machine.dmaWindowSize = parseSize(value);
    else if (path === 'machine.pageSizes' && /^(0x[0-9a-f]{1,16}|\d{1,16})$/i.test(value)) {
      machine.pageSizes = BigInt(value);
    } else {
      throw new InputError(
        `--set: expected machine.dmaWindowSize=SIZE or machine.pageSizes=0x..., found "${setting}"`,
      );
    }
  }
  return machine;
}
