export type { TraceErrorCode } from './errors.js';
export { TraceError } from './errors.js';
export { eventCatalogue } from './events.js';
export { createQemuLogReader, readQemuLog } from './qemu-reader.js';
export type {
  LogReader,
  ProblemKind,
  ReaderOptions,
  ReadProblem,
  ReadSummary,
} from './reader.js';
export { findEvent, matchEvents } from './select.js';
export type { ArgFormat, EventArg, EventArgs, EventSource, EventSpec } from './types.js';
