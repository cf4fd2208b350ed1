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
import type { IommuAccess, IommuListener, IommuReplay } from './iommu-replay.js';
import { forecastOptionsOf, IovaForecast } from './iova-forecast.js';
import { RangeAddresses } from './range-addresses.js';
import { RangePairs } from './range-pairs.js';
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
import { SmmuReplay } from './smmu-replay.js';
import type { Evidence } from './tce-ledger.js';
import { ViommuReplay } from './viommu-replay.js';
import { type TakenRequest, VirtqueueReplay } from './virtqueue-replay.js';
import { VtdReplay } from './vtd-replay.js';
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
  /** Unmappings that one invalidation or kick served, at most; and how many of these there were. */
  readonly lazy = { most: 0, flushes: 0 };
  readonly #keep: number;
  readonly #inference: Inference;
  readonly #requests: VirtqueueReplay;
  readonly #iommu: IommuReplay;
  readonly #pairs: RangePairs | undefined;
  readonly #rangeAddresses: RangeAddresses | undefined;
  readonly #guest: DmaGuestReplay | undefined;
  readonly #reader: GuestOperationReader | undefined;
  readonly #join: RequestJoin | undefined;
  readonly #observer: RunObserver | undefined;
  /** Requests of the log before the guest's first one. */
  readonly #base: number;
  readonly #held: Held[] = [];
  readonly #iommuQueues: ReadonlySet<string>;
  /** Requests to devices, those to the IOMMU apart. */
  #ownRequests = 0;
  #unmapped = 0;
  /** Unmappings that a virtio-iommu was told of since it was kicked. */
  #batch = 0;
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
    this.#iommuQueues = facts.requests.iommuQueues;
    this.#iommu = createIommuReplay(inference, keep, {
      accessed: (access) => {
        if (this.#isJoined) this.#join?.accessed(access);
      },
      denied: (sid, iova, line) => this.#denied(sid, iova, line),
      flushed: () => this.#flushed(),
      told: (range) => {
        if (range.kind === 'unmap') this.#batch += 1;
        if (this.#isJoined) this.#pairs?.told(range);
      },
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
    const hasRangesOnly = guest.hasIommuRanges && !guest.hasDmaEvents;
    this.#rangeAddresses = hasRangesOnly
      ? new RangeAddresses(new IovaForecast(forecastOptionsOf(inference)))
      : undefined;
    this.join = facts.requests.text;
    this.#join = device === undefined ? undefined : this.#joinOf(device, replay);
    this.#pairs = device === undefined && !hasRangesOnly ? undefined : pairsOf(inference, replay);
    this.#reader = new GuestOperationReader({
      hasDmaEvents: true,
      callsFor: () => 0,
      onOperation: (operation) => this.#operation(operation, replay),
      onIommuRange: (range) => {
        replay.range(range);
        replay.address(range.line, this.#rangeAddresses?.take(range));
        this.#pairs?.guest(range);
      },
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
    this.#guest?.address(undefined, this.#rangeAddresses?.end());
    this.#join?.endOperations();
    this.#drain();
    this.#endJoin();
  }

  result(): RunReplayResult {
    this.#iommu.end();
    this.#checkFlushes();
    const { kept, ...devices } = deviceSideOf(this.#requests, this.#iommu);
    return {
      hypervisor: {
        hcalls: 0,
        hcallMismatches: 0,
        translations: this.#iommu.translations,
        translationMismatches: this.#iommu.translationMismatches.count,
        rtasCalls: 0,
        rtasMismatches: 0,
        newTables: 0,
        liobns: [],
        ...devices,
        mismatches: kept.slice(0, this.#keep),
      },
      guest: this.#guest?.result(this.bounce?.consistent ?? this.#rangeAddresses?.predicted ?? 0),
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
    return this.#ownRequests >= this.#base;
  }

  #doorbellAt(iova: bigint): bigint | undefined {
    const range = this.ranges?.at(iova);
    if (range === undefined || range.isOwned) return undefined;
    // To be written, and no memory. [linux drivers/iommu/dma-iommu.c iommu_dma_get_msi_page]
    const flags = this.#inference.platform.iommu === 'virtio-iommu' ? 6n : 3n;
    return range.gpa + ((iova - range.iova) & -PAGE) + flags;
  }

  #operation(operation: GuestOperation, replay: DmaGuestReplay): void {
    replay.operation(operation);
    if (this.#join !== undefined) this.#join.operation(operation);
    else this.#told(operation);
  }

  #joinOf(device: string, replay: DmaGuestReplay): RequestJoin {
    const { iommu } = this.#inference.platform;
    return new RequestJoin({
      device,
      pagesOf: (operation) => this.addresses?.pagesOf(operation),
      followsAccesses: iommu !== 'none' && iommu !== 'generic',
      // A page that VT-d and SMMUv3 let a device write it may always read. [linux v6.12
      // drivers/iommu/intel/iommu.c __domain_mapping, drivers/iommu/io-pgtable-arm.c arm_lpae_prot_to_pte]
      writable: iommu === 'virtio-iommu' ? 2n : 3n,
      doorbellAt: (iova) => this.#doorbellAt(iova),
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
    if (this.#iommuQueues.has(String(args.vq))) return true;
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
    const { name, args } = event;
    if (name === 'virtio_queue_notify' && this.#iommuQueues.has(String(args.vq))) this.#kicked();
    this.#requests.event(event, line);
    this.#iommu.event(event, line);
    this.#qemuLine = line;
    this.#observer?.qemuEvent?.(event, line, undefined);
  }

  // After the log's end, the guest's trace goes on alone.
  #endJoin(): void {
    if (!this.#hasAllQemu || this.#held.length > 0) return;
    this.#join?.end();
    if (this.#hasAllGuest) this.#pairs?.end();
  }

  #taken(request: TakenRequest): void {
    if (this.#iommuQueues.has(request.vq)) return;
    this.#ownRequests += 1;
    if (this.#ownRequests > this.#base) this.#join?.taken(request);
  }

  #told(operation: GuestOperation): void {
    if (operation.kind === 'unmap' && this.#iommuQueues.size === 0) {
      this.#unmapped += 1;
      this.lazy.most = Math.max(this.lazy.most, this.#unmapped);
    }
    this.#observer?.operation?.(operation, undefined, this.#qemuLine);
  }

  #flushed(): void {
    this.#unmapped = 0;
    if (this.#isJoined) this.lazy.flushes += 1;
  }

  // What waited for a kick goes together.
  #kicked(): void {
    if (this.#isJoined && this.#batch > 1) {
      this.lazy.flushes += 1;
      this.lazy.most = Math.max(this.lazy.most, this.#batch);
    }
    this.#batch = 0;
  }

  // Each flush that the addresses show is an invalidation of the log.
  #checkFlushes(): void {
    const { forecasts = [] } = this.addresses ?? {};
    const flushes = forecasts.reduce((sum, forecast) => sum + forecast.flushes, 0);
    if (this.#join === undefined || this.#inference.platform.iommu !== 'intel-iommu') return;
    if (this.#iommu.invalidations === 0) return;
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

const PAGE = 4096n;

// Without events of an IOMMU there is nothing to check, whichever it is.
function createIommuReplay(
  { platform }: Inference,
  keep: number,
  listener: IommuListener,
): IommuReplay {
  if (platform.iommu === 'smmuv3') return new SmmuReplay(keep, listener);
  if (platform.iommu === 'virtio-iommu') return new ViommuReplay(keep, listener);
  return new VtdReplay(keep, listener);
}

// virtio-iommu is told of every range, an SMMU of what it is to forget, unless that is put off.
function pairsOf(
  { platform, isStrict }: Inference,
  replay: DmaGuestReplay,
): RangePairs | undefined {
  const { iommu } = platform;
  if (iommu !== 'virtio-iommu' && (iommu !== 'smmuv3' || !isStrict)) return undefined;
  return new RangePairs((kind) => iommu === 'virtio-iommu' || kind === 'unmap', replay);
}

function note(happened: Happened, evidence: Evidence): void {
  happened.count += 1;
  happened.first ??= evidence;
}
