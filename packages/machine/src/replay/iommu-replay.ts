/** An emulated IOMMU in QEMU's log: what each kind of it has in common. */
import type { TraceEvent } from '@pinhole/base';
import { MismatchLog } from './mismatch-log.js';

/** A device access through the IOMMU, from the cache or from the guest's tables. */
export interface IommuAccess {
  readonly line: number;
  /** Bus, device and function of the requester. */
  readonly sid: number;
  readonly iova: bigint;
  /** The table's entry: the page, and in the low bits what is allowed. */
  readonly entry: bigint;
  /** The IOMMU's cache had it. */
  readonly isHit: boolean;
}

/** Something that the guest told its IOMMU about a range. */
export interface ToldRange {
  readonly kind: 'map' | 'unmap';
  readonly line: number;
  readonly iova: bigint;
  /** Bytes. */
  readonly size: bigint;
  /** Of a map: physical address. */
  readonly gpa: bigint | undefined;
}

/** What follows the IOMMU. */
export interface IommuListener {
  accessed?(access: IommuAccess): void;
  denied?(sid: number, iova: bigint, line: number): void;
  /** All translations of a domain, or of all, are forgotten. */
  flushed?(line: number): void;
  told?(range: ToldRange): void;
}

/** Checks an IOMMU's events against each other; others are passed over. */
export abstract class IommuReplay {
  readonly translationMismatches: MismatchLog;
  readonly invalidationMismatches: MismatchLog;
  /** Device accesses. */
  translations = 0;
  /** What the guest told the IOMMU. */
  invalidations = 0;
  protected readonly listener: IommuListener;

  /** Of each kind of mismatch the first `keep` are remembered. */
  constructor(keep: number, listener: IommuListener = {}) {
    this.translationMismatches = new MismatchLog(keep);
    this.invalidationMismatches = new MismatchLog(keep);
    this.listener = listener;
  }

  abstract event(event: TraceEvent, line: number): void;
  /** Says that the log is over. */
  abstract end(): void;
}
