import type { RECORDING_NAMES } from './event-counts.js';

/** The name of a recorded run: also its folder under `data/`. */
export type RecordingName = (typeof RECORDING_NAMES)[number];

/** What `meta.json` of a run says: how it was made and how often each event is in its traces. */
export interface RecordingMeta {
  readonly name: RecordingName;
  /** Version, package and accelerator. */
  readonly qemu: string;
  /** Release, package and page size. */
  readonly linux: string;
  readonly machine: 'pseries' | 'q35' | 'virt' | 's390-ccw-virtio';
  readonly cpu: string;
  /** The argument of `-m`. */
  readonly memory: string;
  readonly smp: number;
  readonly qemuCommand: string;
  readonly kernelCommandLine: string;
  readonly workload: string;
  readonly qemuEvents: Readonly<Record<string, number>>;
  readonly guestEvents: Readonly<Record<string, number>>;
}

/** The files of a run. All but `meta` are gzipped text. */
export interface RecordingFiles {
  readonly meta: URL;
  /** QEMU's log of its trace events, in the order in which they happened. */
  readonly qemuTrace: URL;
  /** The guest's ftrace, from the start of user space until before power-off. */
  readonly guestTrace: URL;
  readonly console: URL;
}

/** One recorded run of an unmodified Linux on an unmodified QEMU. */
export interface Recording {
  readonly name: RecordingName;
  /** What the run shows. */
  readonly title: string;
  readonly kernel: 'linux-6.1' | 'linux-6.12' | 'linux-7.2';
  /** Bytes. */
  readonly guestPageSize: 4096 | 65536;
  /**
   * Boots in QEMU's log, one after the other. The guest's trace and the console are of the last.
   */
  readonly boots: 1 | 2;
  readonly meta: RecordingMeta;
  readonly files: RecordingFiles;
}

/** A device tree that QEMU made. */
export interface DeviceTreeFile {
  readonly name: string;
  readonly title: string;
  readonly url: URL;
  readonly isGzipped: boolean;
}
