import { closeSync } from 'node:fs';
import { Tracer, type TraceSink } from '@pinhole/base';
import {
  type ChromeWriter,
  createChromeWriter,
  createNdjsonWriter,
  createQemuTextWriter,
  eventCatalogue,
  filterEvents,
  matchEvents,
  type WriteText,
} from '@pinhole/trace';
import { checkWritable, openToWrite, writeAll } from './files.js';
import { terminalWidth } from './terminal.js';
import { wrap } from './terminal-text.js';

/** The trace options of a command. */
export interface TraceOptions {
  readonly trace?: string;
  readonly traceFile?: string;
  readonly traceFormat: 'qemu' | 'ndjson' | 'chrome';
}

const WRITERS = {
  qemu: createQemuTextWriter,
  ndjson: createNdjsonWriter,
  chrome: createChromeWriter,
} as const;
const BUFFER = 65536;

/** A tracer that writes where the options say, and how to finish it. */
export function openTrace(options: TraceOptions): { tracer: Tracer; close(): void } {
  if (options.trace === undefined && options.traceFile === undefined) {
    return { tracer: new Tracer(), close: () => {} };
  }
  const names = matchEvents(options.trace ?? '*');
  const { write, close } = openOutput(options.traceFile);
  const writer = WRITERS[options.traceFormat](write);
  const sink: TraceSink = filterEvents(writer, names);
  return {
    tracer: new Tracer(sink),
    close() {
      writer.close();
      close();
    },
  };
}

/** The options of a timeline that is put together from recorded files. */
export interface TimelineOptions {
  readonly traceFile?: string;
  readonly traceFormat?: 'chrome' | 'ndjson';
}

/** A writer of a timeline; undefined when the options ask for none. */
export function openTimeline({
  traceFile,
  traceFormat,
}: TimelineOptions): ChromeWriter | undefined {
  if (traceFile === undefined && traceFormat === undefined) return undefined;
  const output = openOutput(traceFile);
  const writer = traceFormat === 'ndjson' ? createNdjsonWriter : createChromeWriter;
  const { emit, close } = writer(output.write);
  return {
    emit,
    close() {
      close();
      output.close();
    },
  };
}

/** `--trace help`: what can be traced. */
export function describeEvents(): string {
  const width = Math.max(...eventCatalogue.map(({ name }) => name.length));
  const lines = eventCatalogue.flatMap(({ name, source, summary }) => {
    const head = `${name.padEnd(width)}  ${source.padEnd(7)}  `;
    // In a narrow terminal, what it means stands below the name.
    const indent = terminalWidth() - head.length < 30 ? 4 : head.length;
    const start = indent === head.length ? [] : [head.trimEnd()];
    const summaryHead = indent === head.length ? head : ' '.repeat(indent);
    return [...start, ...wrap(summary, terminalWidth(), ' '.repeat(indent), summaryHead)];
  });
  return `${lines.join('\n')}\n`;
}

// The file comes into being with the first text that is written to it.
function openOutput(path: string | undefined): { write: WriteText; close(): void } {
  if (path !== undefined) checkWritable(path);
  let fd = path === undefined ? process.stderr.fd : -1;
  let pending = '';
  const flush = (): void => {
    if (fd < 0) fd = openToWrite(path as string, 'w');
    const text = pending;
    pending = '';
    writeAll(fd, text, path ?? 'standard error');
  };
  return {
    write(text) {
      pending += text;
      if (pending.length > BUFFER) flush();
    },
    close() {
      flush();
      if (path !== undefined) closeSync(fd);
    },
  };
}
