import { closeSync, readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import {
  ExplainError,
  type ExplainInput,
  type Explanation,
  explain as explainMachine,
} from '@pinhole/machine';
import { type ConsoleFact, createConsoleReader } from '@pinhole/trace';
import { commandLine } from './command-line.js';
import { EXIT, InputError } from './exit.js';
import { renderExplainHtml } from './explain-html.js';
import { renderExplanation } from './explain-text.js';
import { checkWritable, openToRead, writeWhole } from './files.js';
import { loadScenario } from './scenarios.js';
import { showsColor, terminalWidth } from './terminal.js';

/** Options of `pinhole explain`. */
export interface ExplainOptions {
  readonly qemu?: string;
  readonly dtb?: string;
  readonly console?: string;
  readonly kernel: readonly string[];
  readonly format: 'table' | 'json';
  readonly html?: string;
  readonly set: readonly string[];
}

/** A device tree or a console log is not larger than this once it is unpacked. */
const MAX_BYTES = 256 * 2 ** 20;

/** `pinhole explain`: how each virtio device reaches memory, and why. */
export function explain(scenario: string | undefined, options: ExplainOptions): void {
  if (options.html !== undefined) checkWritable(options.html);
  const explanation = explained(inputOf(scenario, options), options);
  process.stdout.write(
    options.format === 'json'
      ? `${JSON.stringify(explanation, null, 2)}\n`
      : renderExplanation(explanation, { width: terminalWidth(), color: showsColor() }),
  );
  if (options.html !== undefined) {
    writeWhole(options.html, renderExplainHtml(explanation, commandLine()));
    process.stderr.write(`wrote ${options.html}\n`);
  }
  if (hasError(explanation)) process.exitCode = EXIT.FAILED;
}

// What is wrong with a device tree is said with the file's name.
function explained(input: ExplainInput, { dtb }: ExplainOptions): Explanation {
  try {
    return explainMachine(input);
  } catch (error) {
    if (!(error instanceof ExplainError) || error.code !== 'E_DEVICE_TREE') throw error;
    throw new InputError(`${dtb ?? ''}: expected a flattened device tree: ${error.message}`, error);
  }
}

function inputOf(scenario: string | undefined, options: ExplainOptions): ExplainInput {
  const { qemu, dtb, console, kernel } = options;
  // A version is text, and YAML would take it for a number.
  const set = options.set.map((one) =>
    one.replace(/^machine\.qemu=([\d.]+)$/, 'machine.qemu="$1"'),
  );
  if (scenario === undefined && qemu === undefined && dtb === undefined && console === undefined) {
    throw new InputError(
      "expected something to explain: --qemu 'qemu-system-ppc64 ...', --dtb FILE, --console FILE or a scenario; found none",
    );
  }
  return {
    kernels: kernel,
    set,
    ...(qemu === undefined ? {} : { qemu }),
    ...(dtb === undefined ? {} : { dtb: readWhole(dtb, 'a flattened device tree') }),
    ...(console === undefined ? {} : { console: readFacts(console) }),
    ...(scenario === undefined ? {} : { scenario: loadScenario(scenario, set).scenario }),
  };
}

// Plain or gzipped.
function readWhole(path: string, what: string): Uint8Array {
  const fd = openToRead(path, `${what}, plain or gzipped`);
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(fd);
  } finally {
    closeSync(fd);
  }
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  try {
    return gunzipSync(bytes, { maxOutputLength: MAX_BYTES });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const why =
      code === 'Z_BUF_ERROR'
        ? 'is cut short'
        : code === 'ERR_BUFFER_TOO_LARGE'
          ? `is larger than ${MAX_BYTES} bytes once it is unpacked`
          : `is damaged (${code ?? String(error)})`;
    throw new InputError(`${path}: expected ${what}; the gzip file ${why}`, error);
  }
}

function readFacts(path: string): ConsoleFact[] {
  const what = 'the console log of a Linux guest';
  const bytes = readWhole(path, what);
  const facts: ConsoleFact[] = [];
  const reader = createConsoleReader({ onFact: (fact) => facts.push(fact) });
  reader.push(bytes);
  // What was pasted may lack the end of its last line.
  if (bytes.at(-1) !== 0x0a) reader.push(new Uint8Array([0x0a]));
  const { lines } = reader.end();
  if (facts.length === 0) {
    throw new InputError(
      `${path}: expected ${what} (dmesg), found no line about the kernel, its devices or DMA in ${lines} lines`,
    );
  }
  return facts;
}

function hasError({ devices, findings, contradictions }: Explanation): boolean {
  return (
    contradictions.length > 0 ||
    findings.some(({ severity }) => severity === 'error') ||
    devices.some(({ answers }) =>
      answers.some(
        ({ path, risks }) =>
          path.id === 'refused' ||
          path.id === 'qemu-refuses' ||
          risks.some(({ severity }) => severity === 'error'),
      ),
    )
  );
}
