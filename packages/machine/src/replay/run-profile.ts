/** What a run used: windows, hypercalls by request, devices. An observer of a replay. */
import { BusAddresses } from './bus-addresses.js';
import { DMA_MAPPING_ERROR, type GuestOperation } from './guest-operations.js';
import { IommuProfile } from './iommu-profile.js';
import type { ObservedCall, RunObserver } from './run-observer.js';
import { isMapping, type LoggedCall, log2 } from './tce-call.js';
import { type Mapped, type ProfiledWindow, WindowProfile } from './window-profile.js';

/** A device's share; `device` is empty for what the guest's trace does not explain. */
export interface DeviceUse {
  readonly device: string;
  maps: number;
  tces: number;
  hypercalls: number;
  translations: number;
}

/** One virtqueue, by QEMU's names of it. */
export interface QueueUse {
  readonly vq: string;
  /** The device, and the queue's number in it, if the log has a kick. */
  vdev: string | undefined;
  number: number | undefined;
  /** Taken off the queue, and put back with an answer. */
  requests: number;
  completed: number;
  /** Of its requests. */
  hypercalls: number;
  most: number;
}

/** A request that a device took. */
interface Request {
  readonly queue: QueueUse;
  hypercalls: number;
  /** Hypercalls' worth of buffers that are still mapped. */
  open: number;
}

interface Owner {
  readonly device: string;
  /** Memory for rings and the like: of no request. */
  readonly isCoherent: boolean;
  request: Request | undefined;
  isPending: boolean;
}

/** Distinct numbers of hypercalls that are told apart; a request with more counts as this many. */
const MAX_HYPERCALLS = 4096;
const MAX_QUEUES = 4096;
const MAX_DEVICES = 4096;

/**
 * Follows a replay and adds up. A hypercall that maps counts for the request that the device took
 * next after it accessed what was mapped; a hypercall that unmaps, for the request of what it unmaps.
 */
export class RunProfile implements RunObserver {
  readonly windows: Map<number, WindowProfile<Owner>> = new Map();
  readonly devices: Map<string, DeviceUse> = new Map();
  readonly queues: Map<string, QueueUse> = new Map();
  /** How many requests took how many hypercalls. */
  readonly histogram: Map<number, number> = new Map();
  /** Of a run without TCE windows. */
  readonly iommu: IommuProfile = new IommuProfile();
  /** Requests whose buffers were still mapped at the end. */
  openRequests = 0;
  /** Lines of QEMU's log. */
  lines = 0;
  readonly #addresses = new BusAddresses();
  /** Whose buffer begins at an address that needs no entry of a window. */
  readonly #direct = new Map<bigint, string>();
  /** Accessed since the last request was taken. */
  #pending: Mapped<Owner>[] = [];

  /** Before the replay: what is known of the windows. */
  addWindows(windows: readonly ProfiledWindow[]): void {
    for (const window of windows) this.windows.set(window.liobn, new WindowProfile(window));
  }

  qemuEvent(...[event, line, observed]: Parameters<Required<RunObserver>['qemuEvent']>): void {
    this.lines = line;
    this.iommu.qemuEvent(event, line);
    const { name, args } = event;
    const address = this.#addresses.event(event);
    if (observed !== undefined) this.#call(observed);
    else if (address !== undefined)
      this.#access(args.liobn as bigint, args.ioba as bigint, address);
    else if (name === 'virtqueue_pop') this.#pop(String(args.vq));
    else if (name === 'virtqueue_fill') this.#queue(String(args.vq)).completed += 1;
    else if (name === 'virtio_queue_notify') {
      const queue = this.#queue(String(args.vq));
      queue.vdev = String(args.vdev);
      queue.number = Number(args.n);
    } else if (name === 'spapr_iommu_ddw_create') {
      const pageShift = log2(args.pg_size as bigint);
      const size = Number((args.req_size as bigint) >> BigInt(pageShift));
      const [liobn, busOffset] = [Number(args.liobn), args.start as bigint];
      if (size < 1 || size > 2 ** 31) return;
      this.windows.set(liobn, new WindowProfile({ liobn, busOffset, pageShift, size, pools: [] }));
    } else if (name === 'spapr_iommu_new_table' || name === 'spapr_iommu_ddw_remove') {
      const window = this.windows.get(Number(args.liobn));
      if (window !== undefined) this.#gone(window.unmap(0, window.size, line));
    }
  }

  operation(...[operation, entries, line]: Parameters<Required<RunObserver>['operation']>): void {
    this.iommu.operation(operation, line);
    const { kind, device, dmaAddr } = operation;
    if (kind === 'map') {
      this.#device(device).maps += 1;
      if (entries === undefined && dmaAddr !== DMA_MAPPING_ERROR) this.#direct.set(dmaAddr, device);
    } else if (kind === 'unmap') this.#direct.delete(dmaAddr);
  }

  givenUp(
    ...[_, { window, entry, npages }, line]: Parameters<Required<RunObserver>['givenUp']>
  ): void {
    this.windows.get(window.liobn)?.giveUp(entry, npages, line);
  }

  /** After the replay: requests that still hold their buffers are counted as they are. */
  end(): void {
    this.iommu.end(this.lines);
    const open = new Set<Request>();
    for (const window of this.windows.values()) {
      window.occupancy.until(this.lines);
      for (const { of } of window.all) if (of.request !== undefined) open.add(of.request);
    }
    this.openRequests = open.size;
    for (const request of open) this.#count(request);
  }

  #call({ call, operation }: ObservedCall): void {
    this.#device(operation?.device ?? '').hypercalls += 1;
    const { liobn, ret, ioba, npages, line, tce } = call;
    if (ret !== 0n) return;
    const window = this.#window(liobn);
    const first = window.entryOf(ioba);
    if (isMapping(call)) this.#map(call, operation, window, first);
    else if (tce === 0n && first >= 0) {
      const count = Math.min(npages, window.size - first);
      this.#gone(window.unmap(first, count, line), true);
    }
  }

  #map(
    { npages, line }: LoggedCall,
    operation: GuestOperation | undefined,
    window: WindowProfile<Owner>,
    first: number,
  ): void {
    const device = operation?.device ?? '';
    this.#device(device).tces += npages;
    this.#gone(window.unmap(first, Math.min(npages, Math.max(0, window.size - first)), line));
    const isCoherent = operation?.kind === 'alloc';
    window.map(first, npages, line, { device, isCoherent, request: undefined, isPending: false });
  }

  #gone(gone: ReadonlySet<Mapped<Owner>>, isCall = false): void {
    let isCounted = !isCall;
    for (const { of, left } of gone) {
      const { request } = of;
      if (request === undefined) continue;
      if (!isCounted) request.hypercalls += 1;
      isCounted = true;
      if (left > 0) continue;
      request.open -= 1;
      if (request.open === 0) this.#count(request);
    }
  }

  #access(liobn: bigint, ioba: bigint, address: bigint): void {
    const window = this.windows.get(Number(BigInt.asUintN(32, liobn)));
    const mapped = window?.at(Number(ioba >> BigInt(window.pageShift)));
    const device = mapped?.of.device;
    this.#device(device || (this.#direct.get(address) ?? '')).translations += 1;
    if (mapped === undefined || mapped.of.isPending || mapped.of.isCoherent) return;
    mapped.of.isPending = true;
    this.#pending.push(mapped);
  }

  #pop(vq: string): void {
    const queue = this.#queue(vq);
    queue.requests += 1;
    const own = this.#pending.filter(({ left }) => left > 0);
    this.#pending = [];
    const request: Request = { queue, hypercalls: own.length, open: own.length };
    for (const { of } of own) of.request = request;
    if (own.length === 0) this.#count(request);
  }

  #count({ queue, hypercalls }: Request): void {
    const bin = Math.min(hypercalls, MAX_HYPERCALLS);
    this.histogram.set(bin, (this.histogram.get(bin) ?? 0) + 1);
    queue.hypercalls += hypercalls;
    queue.most = Math.max(queue.most, hypercalls);
  }

  #window(liobn: number): WindowProfile<Owner> {
    let window = this.windows.get(liobn);
    if (window === undefined) {
      window = WindowProfile.assumed(liobn);
      this.windows.set(liobn, window);
    }
    return window;
  }

  #queue(vq: string): QueueUse {
    const known = this.queues.get(vq);
    if (known !== undefined) return known;
    const queue: QueueUse = {
      vq,
      vdev: undefined,
      number: undefined,
      requests: 0,
      completed: 0,
      hypercalls: 0,
      most: 0,
    };
    if (this.queues.size < MAX_QUEUES) this.queues.set(vq, queue);
    return queue;
  }

  #device(device: string): DeviceUse {
    const known = this.devices.get(device);
    if (known !== undefined) return known;
    const use: DeviceUse = { device, maps: 0, tces: 0, hypercalls: 0, translations: 0 };
    if (this.devices.size < MAX_DEVICES) this.devices.set(device, use);
    return use;
  }
}
