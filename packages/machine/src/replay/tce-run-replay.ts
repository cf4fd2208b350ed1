/** A run with TCE windows, replayed: QEMU's log and the guest's trace against the model, joined. */
import type { TraceEvent } from '@pinhole/base';
import { isPciLiobn } from '@pinhole/tce';
import { assumedWindow, liobnOf, routeFrom } from './device-route.js';
import type { Finding } from './findings.js';
import {
  type ExhaustionForecast,
  type FirstFailure,
  FORECAST_SAMPLE,
  forecastExhaustion,
  type MappingRequest,
} from './forecast.js';
import { type DeviceRoute, GuestModel, type GuestWindow } from './guest-model.js';
import { type GuestOperation, GuestOperationReader } from './guest-operations.js';
import { type Entries, GuestReplay } from './guest-replay.js';
import { HypervisorReplay } from './hypervisor-replay.js';
import { RunNarrator } from './run-narrator.js';
import {
  deviceSideOf,
  type RunEvidence,
  type RunReplay,
  type RunReplayOptions,
  type RunReplayResult,
} from './run-result.js';
import type { Boot, RunFacts } from './run-scout.js';
import { type LoggedCall, log2, loggedCall, TCE_PAGE_SHIFT } from './tce-call.js';
import { tceFindings } from './tce-findings.js';
import { TceLedger } from './tce-ledger.js';
import { VirtqueueReplay } from './virtqueue-replay.js';
import type { WindowUse } from './window-use.js';

/**
 * A run through TCE windows. Keeps the windows and a bounded look ahead, not the events.
 */
export class TceRunReplay implements RunReplay {
  readonly ledger: TceLedger;
  readonly join = 'by hypercalls';
  readonly #hypervisor: HypervisorReplay;
  readonly #virtqueues: VirtqueueReplay;
  readonly #model: GuestModel | undefined;
  readonly #guest: GuestReplay | undefined;
  readonly #reader: GuestOperationReader | undefined;
  readonly #pageShifts = new Map<number, number>();
  /** Events of the log between the hypercalls that wait. */
  readonly #held: Held[] = [];
  readonly #base: number;
  readonly #keep: number;
  readonly #begins: ReadonlyMap<number, number>;
  readonly #leaked: MappingRequest[] = [];
  readonly #leaksAfterLoss: boolean;
  readonly #narrator: RunNarrator | undefined;
  #leakedMappings = 0;
  #lastLeak: Entries | undefined;
  #firstFailure: FirstFailure | undefined;
  #calls = 0;
  #requests = 0;
  #hasAllQemu = false;
  #hasAllGuest = false;

  constructor(options: RunReplayOptions) {
    const { facts, inference, dmaWindowSize, pageSizes, keep = 10, observer } = options;
    this.#keep = keep;
    this.#narrator = observer === undefined ? undefined : new RunNarrator(observer);
    this.#virtqueues = new VirtqueueReplay(keep);
    this.#hypervisor = new HypervisorReplay({
      keep,
      ...(dmaWindowSize === undefined
        ? { windows: bridgeWindows(facts, inference.boot) }
        : { dmaWindowSize }),
      ...(pageSizes === undefined ? {} : { pageSizes }),
    });
    const { guest, alignment } = facts;
    const { boot } = inference;
    this.#leaksAfterLoss = inference.leaksAfterLoss;
    this.ledger = new TceLedger(
      new Map(inference.boot?.windows.map(({ liobn, busOffset }) => [liobn, busOffset])),
    );
    this.#base = alignment?.base ?? facts.calls;
    this.#begins = new Map(boot?.windows.map(({ liobn, endCall }) => [liobn, endCall]));
    if (guest === undefined) {
      this.#hasAllGuest = true;
      this.#narrator?.endOperations();
      return;
    }
    const model = new GuestModel({
      pageSize: inference.guestPageSize,
      allocator: inference.kernel.allocator,
      windows: windowsOf(facts, boot, dmaWindowSize),
      routeOf: (device) => routeIn(facts, device, inference.leaksAfterLoss),
      usePutIndirect: alignment?.usePutIndirect ?? true,
      useStuff: boot?.windows.every(({ isStuffed }) => isStuffed) ?? true,
    });
    this.#model = model;
    const replay = new GuestReplay({
      model: this.#model,
      hasCallEvents: guest.hasCallEvents,
      keep,
      listener: {
        happened: (call, operation, entries) => this.#happened(call, operation, entries),
        givenUp: (operation, entries) => this.#givenUp(operation, entries),
        failed: (operation, npages) => this.#failed(operation, npages),
      },
    });
    this.#guest = replay;
    this.#reader = new GuestOperationReader({
      hasDmaEvents: guest.hasDmaEvents,
      callsFor: (kind, npages) => model.callsFor(kind, npages),
      onOperation:
        this.#narrator === undefined
          ? (operation) => replay.operation(operation)
          : (operation) => this.#observed(operation, replay),
    });
  }

  /** The first mapping that found no room, and how many entries were free then. */
  get firstFailure(): FirstFailure | undefined {
    return this.#firstFailure;
  }

  /** Which file it needs more of; undefined: none. */
  get wants(): 'qemu' | 'guest' | undefined {
    if (!this.#hasAllGuest) {
      if (this.#guest?.wants === 'operations') return 'guest';
      if (this.#narrator?.wantsOperations === true) return 'guest';
    }
    if (!this.#hasAllQemu) return 'qemu';
    return this.#hasAllGuest ? undefined : 'guest';
  }

  qemuEvent(event: TraceEvent, line: number): void {
    this.#hypervisor.event(event, line);
    if (!event.name.startsWith('spapr_')) this.#virtqueues.event(event, line);
    if (event.name === 'spapr_iommu_ddw_create') {
      this.#pageShifts.set(Number(event.args.liobn), log2(event.args.pg_size as bigint));
    }
    const call = loggedCall(event, line, (liobn) => this.#pageShifts.get(liobn) ?? TCE_PAGE_SHIFT);
    if (call === undefined) {
      if (event.name === 'virtqueue_pop' && this.#calls >= this.#base) this.#requests += 1;
      if (this.#held.length === 0) this.#passed(event, line);
      else this.#held.push({ event, line, isCall: false });
      return;
    }
    this.#calls += 1;
    if (this.#guest === undefined || this.#calls <= this.#base) {
      if (this.#calls > (this.#begins.get(call.liobn) ?? 0)) this.#model?.observe(call);
      this.ledger.call(call, undefined);
      this.#narrator?.qemuEvent(event, line, { call, operation: undefined, entries: undefined });
      return;
    }
    this.#held.push({ event, line, isCall: true });
    this.#guest.call(call);
  }

  guestEvent(event: TraceEvent, line: number): void {
    this.#reader?.event(event, line);
  }

  endQemu(): void {
    this.#hasAllQemu = true;
    this.#guest?.endCalls();
  }

  endGuest(): void {
    this.#hasAllGuest = true;
    this.#reader?.end();
    this.#guest?.endOperations();
    this.#narrator?.endOperations();
  }

  /** After both have ended. */
  result(): RunReplayResult {
    this.#narrator?.end();
    const { kept, ...devices } = deviceSideOf(this.#virtqueues, undefined);
    const { mismatches, ...own } = this.#hypervisor.end();
    return {
      hypervisor: { ...own, ...devices, mismatches: [...mismatches, ...kept].slice(0, this.#keep) },
      guest: this.#guest?.result(),
    };
  }

  findings(evidence: RunEvidence): Finding[] {
    return tceFindings({ ...evidence, replay: this });
  }

  swiotlb(): undefined {
    return undefined;
  }

  /** How long the window lasts if nothing is ever given back, as in this trace. */
  forecast(): ExhaustionForecast | undefined {
    const { window } = this.#lastLeak ?? {};
    const table = window === undefined ? undefined : this.#model?.tables.get(window.liobn);
    if (table === undefined) return undefined;
    const perRequest = this.#requests === 0 ? undefined : this.#leakedMappings / this.#requests;
    return forecastExhaustion(table, this.#leaked, perRequest);
  }

  /** The windows that the guest allocates from, and how full they are. */
  windows(): WindowUse[] {
    return [...(this.#model?.tables.values() ?? [])].map((table) => {
      const { liobn, busOffset, size, pageShift } = table;
      const pools = table.pools.map(({ start, end }) => ({ start, end }));
      return { liobn, busOffset, size, pageShift, pools, ...this.ledger.usage(liobn) };
    });
  }

  // The hypercall at the head of what is held happened: what the log has up to the next one, too.
  #happened(
    call: LoggedCall,
    operation: GuestOperation | undefined,
    entries: Entries | undefined,
  ): void {
    const head = this.#held.shift() as Held;
    this.ledger.call(call, operation);
    this.#narrator?.qemuEvent(head.event, head.line, { call, operation, entries });
    if (operation !== undefined && entries !== undefined) this.#noteLeak(operation, entries, call);
    while (this.#held[0]?.isCall === false) {
      const { event, line } = this.#held.shift() as Held;
      this.#passed(event, line);
    }
  }

  #passed(event: TraceEvent, line: number): void {
    this.ledger.event(event, line);
    this.#narrator?.qemuEvent(event, line);
  }

  #observed(operation: GuestOperation, replay: GuestReplay): void {
    // Before the replay: hypercalls that it led to may happen at once.
    this.#narrator?.read(operation);
    replay.operation(operation);
  }

  #givenUp(operation: GuestOperation, entries: Entries): void {
    this.ledger.givenUp(operation, entries);
    this.#narrator?.givenUp(operation, entries);
  }

  #failed(operation: GuestOperation, npages: number): void {
    this.ledger.failedMap(operation, npages);
    this.#narrator?.failed(operation, npages);
    if (this.#firstFailure !== undefined) return;
    const table = this.#model?.tables.get(liobnOf(operation.device));
    if (table === undefined) return;
    const { alignOrder } = (this.#model as GuestModel).request(operation, table);
    // Entry 0 and the last one of each pool are never handed out.
    const unusable = table.pools.length + (table.busOffset === 0n ? 1 : 0);
    const free = table.size - table.inUse - unusable;
    const request = { npages, alignOrder, cpu: operation.cpu };
    this.#firstFailure = { window: table, request, free };
  }

  // A mapping that its kernel will never take down.
  #noteLeak(operation: GuestOperation, entries: Entries, call: LoggedCall): void {
    const { window, entry, npages } = entries;
    const isFirst = call.ioba === window.busOffset + (BigInt(entry) << BigInt(window.pageShift));
    if (operation.kind !== 'map' || !isFirst || !this.#leaksAfterLoss) return;
    const { alignOrder } = (this.#model as GuestModel).request(operation, window);
    this.#lastLeak = entries;
    this.#leaked[this.#leakedMappings % FORECAST_SAMPLE] = {
      npages,
      alignOrder,
      cpu: operation.cpu,
    };
    this.#leakedMappings += 1;
  }
}

/** An event of the log that waits for a hypercall before it, or is one. */
interface Held {
  readonly event: TraceEvent;
  readonly line: number;
  readonly isCall: boolean;
}

// Where the default windows of host bridges are, as far as a kernel cleared them from end to end.
function bridgeWindows(
  { hasPowerOn }: RunFacts,
  boot: Boot | undefined,
): Map<number, { address: bigint; size: number }> {
  const windows = new Map<number, { address: bigint; size: number }>();
  // A log that begins later may show the end of a clearing only.
  if (!hasPowerOn) return windows;
  for (const { liobn, busOffset, size } of boot?.windows ?? []) {
    if (!isPciLiobn(liobn) || (liobn & 0xff) !== 0) continue;
    const bytes = size * 2 ** TCE_PAGE_SHIFT;
    windows.set((liobn >>> 8) & 0xff, { address: busOffset, size: bytes });
  }
  return windows;
}

// The windows that the kernel allocates from: as it cleared them, or as they are by default.
function windowsOf(
  { guest }: RunFacts,
  boot: Boot | undefined,
  dmaWindowSize: number | undefined,
): GuestWindow[] {
  const windows = new Map<number, GuestWindow>();
  for (const [device, maps] of guest?.devices ?? []) {
    const { kind, liobn } = routeFrom(maps, liobnOf(device));
    if (kind === 'direct') continue;
    const { busOffset, size } = assumedWindow(liobn);
    const entries = dmaWindowSize === undefined ? size : dmaWindowSize / 2 ** TCE_PAGE_SHIFT;
    windows.set(liobn, { liobn, busOffset, size: entries, pageShift: TCE_PAGE_SHIFT });
  }
  for (const { liobn, busOffset, size } of boot?.windows ?? []) {
    windows.set(liobn, { liobn, busOffset, size, pageShift: TCE_PAGE_SHIFT });
  }
  return [...windows.values()];
}

function routeIn({ guest }: RunFacts, device: string, isNeverUnmapped: boolean): DeviceRoute {
  return { ...routeFrom(guest?.devices.get(device), liobnOf(device)), isNeverUnmapped };
}
