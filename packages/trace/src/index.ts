export { arrayValues } from './array-values.js';
export type { ChromeWriter, FlowPoint } from './chrome.js';
export { createChromeWriter } from './chrome.js';
export type {
  CommandLineFact,
  ConsoleFact,
  ConsoleFactBase,
  CpusFact,
  DdwCreateFact,
  DdwNoteFact,
  DdwQueryFact,
  DdwResetFact,
  DirectMappingFact,
  DmaLimitFact,
  HostBridgeFact,
  HypervisorFact,
  IommuAllocFailedFact,
  IommuDomainFact,
  IommuGroupFact,
  IommuPolicyFact,
  IommuTableFact,
  KernelFact,
  MemoryEncryptionFact,
  MemoryFact,
  PageSizeFact,
  PciDeviceFact,
  SuppressedFact,
  SwiotlbAreasFact,
  SwiotlbFact,
  SwiotlbFullFact,
  VirtioFeaturesFact,
  VirtioRefusedFact,
  VirtioRequiredFact,
} from './console-facts.js';
export type { ConsoleReader, ConsoleReaderOptions, ConsoleSummary } from './console-reader.js';
export { createConsoleReader, readConsole } from './console-reader.js';
export type { LogFormat } from './detect.js';
export { detectFormat } from './detect.js';
export type { TraceErrorCode } from './errors.js';
export { TraceError } from './errors.js';
export { eventCatalogue } from './events.js';
export { formatEvent } from './format.js';
export { createFtraceReader, readFtrace } from './ftrace-reader.js';
export { createNdjsonWriter } from './ndjson.js';
export { createQemuLogReader, readQemuLog } from './qemu-reader.js';
export { createQemuTextWriter } from './qemu-text.js';
export type {
  LogReader,
  ProblemKind,
  ReaderOptions,
  ReadProblem,
  ReadSummary,
} from './reader.js';
export { findEvent, matchEvents } from './select.js';
export type { MemorySink, TraceWriter, WriteText } from './sinks.js';
export { createMemorySink, filterEvents } from './sinks.js';
export { createTraceCmdReader, readTraceCmd } from './trace-cmd-reader.js';
export type { ArgFormat, EventArg, EventArgs, EventSource, EventSpec } from './types.js';
