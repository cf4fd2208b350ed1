import type { CostName, CostRole } from './constants.js';

/** Where a figure comes from: a measurement of ours, a source that was read, or a guess. */
export type CostStatus = 'measured' | 'cited' | 'assumed';

/** A figure that is not known exactly. `low` is at most `mid`, and that at most `high`. */
export interface CostRange {
  readonly low: number;
  readonly mid: number;
  readonly high: number;
}

/** One constant of a machine. */
export interface CostConstant extends CostRange {
  /** Nanoseconds each, or bytes a second. */
  readonly unit: 'ns' | 'bytes/s';
  readonly status: CostStatus;
  /** Who says so, or how it was measured. */
  readonly source: string;
}

/** The constants of one machine. A constant that nothing there asks for may be missing. */
export interface CostPreset {
  /** As `--costs` names it. */
  readonly id: string;
  readonly title: string;
  /** Ids of the architectures that it is for; those whose first preset it is have it by default. */
  readonly architectures: readonly string[];
  readonly constants: Readonly<Partial<Record<CostName, CostConstant>>>;
}

/** What one kind of event costs a request. */
export interface CostPart {
  readonly name: CostName;
  readonly what: string;
  readonly role: CostRole;
  /** How many, a request or in all of set-up; bytes where the constant is a rate. Exact: counted. */
  readonly count: number;
  readonly ns: CostRange;
  /** Of the middle estimate of the time that it is a part of, 0 to 1. */
  readonly share: number;
  readonly status: CostStatus;
}

/** An estimate of time, on exact counts. */
export interface CostEstimate {
  /** The preset's id. */
  readonly preset: string;
  /** Nanoseconds, once: until the driver was up, and first uses of pages that stay mapped. */
  readonly setup: { readonly ns: CostRange; readonly parts: readonly CostPart[] };
  /** Nanoseconds, one request at a time, first uses apart. */
  readonly perRequest: CostRange;
  /** Nanoseconds of the same request by physical addresses: the base parts alone. */
  readonly bypass: CostRange;
  /** Requests a second, compared with the bypass: 1 is as fast. */
  readonly throughput: CostRange;
  /** Of a request, the most expensive first, by the middle estimate. */
  readonly parts: readonly CostPart[];
  /** The first of them. */
  readonly dominates: CostName;
  /** How much of the middle estimate of a request's time is guessed, 0 to 1. */
  readonly assumedShare: number;
}
