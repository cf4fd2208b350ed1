/** What `explain` answers. */
import type { CostName } from '../costs/constants.js';
import type { CostRange } from '../costs/types.js';
import type { DeviceFacts, Fact, NotUnderstood } from './facts.js';

/** How a device reaches memory. */
export const PATHS = {
  physical: 'physical addresses (IOMMU bypassed)',
  'no-iommu': 'DMA API, physical addresses (no IOMMU translates them)',
  'bus-offset': 'DMA API, physical addresses less the offset of dma-ranges',
  'default-window': 'default window: a hypercall per map and unmap',
  'default-window-leak': 'default window: a hypercall per map, and nothing is ever unmapped',
  'second-window': 'second window (DDW), permanently mapped',
  'second-window-bounced': 'bounce buffers behind the second window (DDW)',
  'second-window-dynamic': 'second window (DDW): a hypercall per map and unmap',
  viommu: 'translated by the emulated IOMMU: a map and unmap per buffer',
  bounced: 'bounce buffers (swiotlb) that are shared with the hypervisor',
  grants: 'grants of Xen: one for each page, given and ended per buffer',
  unreachable: 'broken: the device sees private memory as ciphertext',
  mismatched: 'broken: the guest uses bus addresses, the device takes them for physical ones',
  refused: 'probe refused',
  'qemu-refuses': 'QEMU does not start',
  unknown: 'not known',
} as const;

/** The way of a device to memory, as JSON has it. */
export type PathId = keyof typeof PATHS;

/** One step of a decision. */
export interface ExplanationStep {
  /** Who decides. */
  readonly side: 'qemu' | 'guest';
  readonly text: string;
  /** What decided it: an option, a property of the device tree, a line of the log. */
  readonly fact: string;
  /** In the grammar of citations; empty where only a log says so. */
  readonly source: string;
}

/** What one read of a block device costs; counts, not time. */
export interface CostRow {
  /** Bytes. */
  readonly size: number;
  /** Virtio requests that it takes, and the data segments in them. */
  readonly requests: number;
  readonly segments: number;
  readonly hcalls: number;
  /**
   * What the guest's driver of an IOMMU does without hypercalls: ranges (of Xen: pages) that it maps and
   * unmaps, and commands that the hypervisor acts on. A fraction where one command serves many unmaps.
   */
  readonly iommu: { readonly maps: number; readonly unmaps: number; readonly commands: number };
  /** Translations that the device asks for, ring accesses included. */
  readonly translations: number;
  readonly bytesCopied: number;
}

/** An estimate of the time of one read, and of the throughput of many. */
export interface CostTime {
  /** Bytes. */
  readonly size: number;
  /** Nanoseconds. */
  readonly ns: CostRange;
  /** Compared with the bypass: 1 is as fast. */
  readonly throughput: CostRange;
  /** The constant that most of the time is for, and what that prices. */
  readonly dominates: { readonly name: CostName; readonly what: string };
  /** How much of the time is guessed, 0 to 1. */
  readonly assumedShare: number;
}

/** Costs, counted in a run of the model. */
export interface Cost {
  readonly rows: readonly CostRow[];
  /** On the preset of the machine's architecture and accelerator; `null` where there is none. */
  readonly times: { readonly preset: string; readonly rows: readonly CostTime[] } | null;
  /** What the figures leave out. */
  readonly notes: readonly string[];
}

/** A danger or a cost that people do not expect. */
export interface Risk {
  readonly id: string;
  readonly severity: 'error' | 'warning' | 'note';
  readonly text: string;
  readonly source: string;
}

/** A change that helps. */
export interface Fix {
  /** What to write: `-m 2G,slots=2,maxmem=4G`. */
  readonly change: string;
  readonly effect: string;
  /** The model was run with it, and did what `effect` says. */
  readonly isVerified: boolean;
}

/** How much guest memory the device can get at. */
export interface Reach {
  /** Bytes, the most at any kick of the run; `null`: there was none. */
  readonly bytes: number | null;
  readonly text: string;
}

/** One device under one kernel, and under one assumption where an input leaves something open. */
export interface Answer {
  readonly kernel: string;
  /** Such as `iommu_platform=on`; `null` when nothing had to be assumed. */
  readonly assuming: string | null;
  readonly path: { readonly id: PathId; readonly name: string };
  readonly steps: readonly ExplanationStep[];
  readonly cost: Cost | null;
  readonly reach: Reach;
  readonly risks: readonly Risk[];
  readonly fixes: readonly Fix[];
}

/** A device and its answers. */
export interface DeviceExplanation {
  readonly name: string;
  readonly driver: string;
  readonly kind: string;
  readonly transport: DeviceFacts['transport'] | 'unknown';
  readonly place: string;
  readonly answers: readonly Answer[];
}

/** Something that an input proves or points at, of no single device. */
export interface Finding {
  readonly id: string;
  readonly severity: 'error' | 'warning' | 'note';
  readonly text: string;
  /** Line of the console log, from 1; `null` for other inputs. */
  readonly line: number | null;
  readonly fix: string | null;
  readonly source: string;
}

/** Two inputs that do not agree. */
export interface Contradiction {
  readonly what: string;
  readonly one: string;
  readonly other: string;
}

/** What changes from one kernel to another. */
export interface Difference {
  readonly device: string;
  readonly assuming: string | null;
  readonly what: string;
  /** By kernel, in the order asked for. */
  readonly values: readonly { readonly kernel: string; readonly value: string }[];
}

/** The whole answer. */
export interface Explanation {
  readonly schemaVersion: 1;
  readonly platform: string;
  readonly kernels: readonly string[];
  readonly facts: readonly Fact[];
  readonly devices: readonly DeviceExplanation[];
  readonly findings: readonly Finding[];
  readonly contradictions: readonly Contradiction[];
  readonly differences: readonly Difference[];
  readonly notUnderstood: readonly NotUnderstood[];
  readonly notes: readonly string[];
}
