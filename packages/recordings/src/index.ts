export { deviceTrees, findRecording, recordings } from './catalogue.js';
export { RECORDING_NAMES } from './event-counts.js';
export type {
  DeviceTreeFile,
  Recording,
  RecordingFiles,
  RecordingMeta,
  RecordingName,
} from './types.js';
