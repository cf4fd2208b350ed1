/** A run without TCE windows, replayed: direct, bounced, or behind an IOMMU of Linux's generic kind. */
import type { TraceEvent } from '@pinhole/base';
import { hex } from '@pinhole/base';
import { BounceAddresses } from './bounce-addresses.js';
import { DeviceAddresses } from './device-addresses.js';
import { dmaFindings, type Happened } from './dma-findings.js';
import { DmaGuestReplay } from './dma-guest-replay.js';
import type { Finding } from './findings.js';
import { type GuestOperation, GuestOperationReader } from './guest-operations.js';
import type { Inference } from './inference.js';
import { IommuRanges } from './iommu-ranges.js';
import { RequestJoin } from './request-join.js';
import type { RunObserver } from './run-observer.js';
import {
  deviceSideOf,
  type RunEvidence,
  type RunReplay,
  type RunReplayOptions,
  type RunReplayResult,
  type SwiotlbReport,
} from './run-result.js';
import type { Evidence } from './tce-ledger.js';
import { type TakenRequest, VirtqueueReplay } from './virtqueue-replay.js';
import { type IommuAccess, VtdReplay } from './vtd-replay.js';
import type { WindowUse } from './window-use.js';

/** An event of QEMU's log that waits for the guest's trace. */
interface Held {
  readonly event: TraceEvent;
  readonly line: number;
}

/** Follows both files; see {@link RunReplay}. */
export class DmaRunReplay implements RunReplay {
  readonly join: string;
  readonly bounce: BounceAddresses | undefined;
  readonly ranges: IommuRanges | undefined;
  readonly addresses: DeviceAddresses | undefined;
  readonly stale: Happened = { count: 0, first: undefined };
  readonly outside: Happened = { count: 0, first: undefined };
  readonly denied: Happened = { count: 0, first: undefined };
  /** Unmappings that one invalidation served, at most; and invalidations of everything. */
  readonly lazy = { most: 0, flushes: 0 };
  readonly #keep: number;
  readonly #inference: Inference;
  readonly #requests: VirtqueueReplay;
  readonly #vtd: VtdReplay;
  readonly #guest: DmaGuestReplay | undefined;
  readonly #reader: GuestOperationReader | undefined;
  readonly #join: RequestJoin | undefined;
  readonly #observer: RunObserver | undefined;
  /** Requests of the log before the guest's first one. */
  readonly #base: number;
  readonly #held: Held[] = [];
  #unmapped = 0;
  #hasAllQemu = false;
  #hasAllGuest = false;
  #qemuLine = 0;

  constructor({ facts, inference, keep = 10, observer }: RunReplayOptions) {
    this.#keep = keep;
    this.#inference = inference;
    this.#observer = observer;
    this.#base = facts.requests.base;
    this.#requests = new VirtqueueReplay(keep, {
      taken: (request) => this.#taken(request),
      given: (request, length, line) => this.#join?.given(request, length, line),
    });
    this.#vtd = new VtdReplay(keep, {
      accessed: (access) => {
        if (this.#isJoined) this.#join?.accessed(access);
      },
      denied: (sid, iova, line) => this.#denied(sid, iova, line),
      flushed: () => this.#flushed(),
    });
    const { guest } = facts;
    if (guest === undefined) {
      this.join = "not joined: there is no guest's trace";
      this.#hasAllGuest = true;
      return;
    }
    const { pool } = inference;
    this.bounce =
      pool === undefined
        ? undefined
        : new BounceAddresses(pool, inference.guestPageSize, inference.kernel.swiotlb.search);
    this.ranges = guest.hasIommuRanges && guest.devices.size <= 1 ? new IommuRanges() : undefined;
    this.addresses = new DeviceAddresses({
      inference,
      bounce: this.bounce,
      ranges: this.ranges,
      devices: guest.devices,
      isWhole: (device) => guest.whole.has(device),
    });
    const { addresses, ranges } = this;
    const replay = new DmaGuestReplay({ addresses, ranges, cpus: inference.cpusFromConsole, keep });
    this.#guest = replay;
    const { device } = facts.requests;
    this.join = facts.requests.text;
    this.#join = device === undefined ? undefined : this.#joinOf(device, replay);
    this.#reader = new GuestOperationReader({
      hasDmaEvents: true,
      callsFor: () => 0,
      onOperation: (operation) => this.#operation(operation, replay),
      onIommuRange: (range) => replay.range(range),
    });
  }

  get wants(): 'qemu' | 'guest' | undefined {
    if (this.#held.length > 0 && !this.#hasAllGuest) return 'guest';
    if (!this.#hasAllQemu) return 'qemu';
    return this.#hasAllGuest ? undefined : 'guest';
  }

  qemuEvent(event: TraceEvent, line: number): void {
    if (this.#held.length > 0 || !this.#isReadyFor(event)) this.#held.push({ event, line });
    else this.#happen(event, line);
  }

  guestEvent(event: TraceEvent, line: number): void {
    this.#reader?.event(event, line);
    this.#drain();
  }

  endQemu(): void {
    this.#hasAllQemu = true;
    this.#endJoin();
  }

  endGuest(): void {
    this.#hasAllGuest = true;
    this.#reader?.end();
    this.#join?.endOperations();
    this.#drain();
    this.#endJoin();
  }

  result(): RunReplayResult {
    this.#vtd.end();
    this.#checkFlushes();
    const { kept, ...devices } = deviceSideOf(this.#requests, this.#vtd);
    return {
      hypervisor: {
        hcalls: 0,
        hcallMismatches: 0,
        translations: this.#vtd.translations,
        translationMismatches: this.#vtd.translationMismatches.count,
        rtasCalls: 0,
        rtasMismatches: 0,
        newTables: 0,
        liobns: [],
        ...devices,
        mismatches: kept.slice(0, this.#keep),
      },
      guest: this.#guest?.result(this.bounce?.consistent ?? 0),
    };
  }

  windows(): WindowUse[] {
    return [];
  }

  swiotlb(): SwiotlbReport | undefined {
    if (this.bounce === undefined) return undefined;
    const { pool, slots, use } = this.bounce;
    const { base, bytes, areas, from } = pool;
    return {
      base: hex(base),
      bytes,
      areas,
      from,
      isForced: this.#inference.platform.isBounceForced,
      slots: slots.slots,
      peak: use.peak,
    };
  }

  findings(evidence: RunEvidence): Finding[] {
    return dmaFindings({ ...evidence, replay: this });
  }

  /** Requests that devices answered with an error. */
  get failed(): VirtqueueReplay['failed'] {
    return this.#requests.failed;
  }

  /** The first mapping that found no room. */
  get firstFailure(): GuestOperation | undefined {
    return this.#guest?.firstFailure;
  }

  get #isJoined(): boolean {
    return this.#requests.requests >= this.#base;
  }

  #operation(operation: GuestOperation, replay: DmaGuestReplay): void {
    replay.operation(operation);
    if (this.#join !== undefined) this.#join.operation(operation);
    else this.#told(operation);
  }

  #joinOf(device: string, replay: DmaGuestReplay): RequestJoin {
    return new RequestJoin({
      device,
      pagesOf: (operation) => this.addresses?.pagesOf(operation),
      followsAccesses: this.#inference.platform.iommu === 'intel-iommu',
      listener: {
        joined: () => replay.joined(),
        mismatch: (guestLine, qemuLine, wrong) =>
          replay.requestMismatch(guestLine, qemuLine, wrong),
        told: (operation) => this.#told(operation),
        stale: (access, unmap) => this.#staleAccess(access, unmap),
        outside: (access, near) => this.#outsideAccess(access, near),
      },
    });
  }

  // A request needs the mappings that it is made of.
  #isReadyFor({ name, args }: TraceEvent): boolean {
    if (this.#join === undefined || name !== 'virtqueue_pop' || !this.#isJoined) return true;
    return this.#join.isReadyFor({ inNum: Number(args.in_num), outNum: Number(args.out_num) });
  }

  #drain(): void {
    let done = 0;
    for (; done < this.#held.length; done += 1) {
      const { event, line } = this.#held[done] as Held;
      if (!this.#isReadyFor(event)) break;
      this.#happen(event, line);
    }
    if (done > 0) this.#held.splice(0, done);
    this.#endJoin();
  }

  #happen(event: TraceEvent, line: number): void {
    this.#requests.event(event, line);
    this.#vtd.event(event, line);
    this.#qemuLine = line;
    this.#observer?.qemuEvent?.(event, line, undefined);
  }

  // After the log's end, the guest's trace goes on alone.
  #endJoin(): void {
    if (this.#hasAllQemu && this.#held.length === 0) this.#join?.end();
  }

  #taken(request: TakenRequest): void {
    if (this.#requests.requests > this.#base) this.#join?.taken(request);
  }

  #told(operation: GuestOperation): void {
    if (operation.kind === 'unmap') {
      this.#unmapped += 1;
      this.lazy.most = Math.max(this.lazy.most, this.#unmapped);
    }
    this.#observer?.operation?.(operation, undefined, this.#qemuLine);
  }

  #flushed(): void {
    this.#unmapped = 0;
    if (this.#isJoined) this.lazy.flushes += 1;
  }

  // Each flush that the addresses show is an invalidation of the log.
  #checkFlushes(): void {
    const { forecasts = [] } = this.addresses ?? {};
    const flushes = forecasts.reduce((sum, forecast) => sum + forecast.flushes, 0);
    if (this.#join === undefined || this.#vtd.invalidations === 0) return;
    if (flushes <= this.lazy.flushes) return;
    this.#guest?.requestMismatch(undefined, undefined, {
      what: 'invalidations',
      recorded: `${this.lazy.flushes}`,
      model: `${flushes}: so often addresses came back`,
    });
  }

  #denied(sid: number, iova: bigint, line: number): void {
    const text = `the IOMMU denied requester ${hex(sid)} an access to ${hex(iova)}`;
    note(this.denied, { qemuLine: line, text });
  }

  #staleAccess({ iova, line }: IommuAccess, unmap: GuestOperation): void {
    const text = `a device accessed ${hex(iova)}, which its driver had unmapped`;
    note(this.stale, { qemuLine: line, guestLine: unmap.line, text });
  }

  #outsideAccess({ iova, line }: IommuAccess, near: GuestOperation | undefined): void {
    if (near === undefined) {
      const text = `a device accessed ${hex(iova)}, which no driver had mapped`;
      note(this.denied, { qemuLine: line, text });
      return;
    }
    const { dmaAddr, size } = near;
    const end = dmaAddr + BigInt(size) - 1n;
    const text = `a device accessed ${hex(iova)}, the buffer is ${hex(dmaAddr)} to ${hex(end)}`;
    note(this.outside, { qemuLine: line, guestLine: near.line, text });
  }
}

function note(happened: Happened, evidence: Evidence): void {
  happened.count += 1;
  happened.first ??= evidence;
}
