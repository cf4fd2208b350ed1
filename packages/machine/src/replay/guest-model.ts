/** The guest's side of a recorded run: what its kernel would do with the windows that it had. */
import { NO_TRACE } from '@pinhole/base';
import {
  IommuTable,
  iommuCoherent,
  iommuMapping,
  iommuPagesTouched,
  type KernelProfile,
  TceCalls,
} from '@pinhole/guest';
import { callStep, type Step } from './allocation-order.js';
import { DMA_MAPPING_ERROR, type GuestOperation } from './guest-operations.js';
import { CallRecorder, type LoggedCall, TCE_CALL_MAX, type TceCall } from './tce-call.js';

/** A window that the guest allocates from. */
export interface GuestWindow {
  readonly liobn: number;
  readonly busOffset: bigint;
  readonly pageShift: number;
  /** Number of TCEs. */
  readonly size: number;
}

/** How one device's buffers get their addresses. */
export interface DeviceRoute {
  /** `direct`: physical address + `offset`; `window`: the allocator of this window. */
  readonly kind: 'direct' | 'window';
  readonly offset: bigint;
  readonly liobn: number;
  /** The kernel takes every unmap for a direct one: no TCE is ever cleared. */
  readonly isNeverUnmapped: boolean;
}

/** What is known of the guest. */
export interface GuestModelOptions {
  /** Bytes of a guest page. */
  readonly pageSize: number;
  readonly windows: readonly GuestWindow[];
  /** The kernel's; default: that of all kernels so far. */
  readonly allocator?: KernelProfile['allocator'];
  readonly routeOf: (device: string) => DeviceRoute;
  readonly usePutIndirect: boolean;
  readonly useStuff: boolean;
}

/** What an operation amounts to. */
export interface OperationPlan {
  readonly steps: Step[];
  /** The address that the model gives without asking the allocator; undefined where it has to. */
  readonly expected: bigint | undefined;
  /** Entries that it concerns. */
  readonly entries:
    | { readonly window: GuestWindow; readonly entry: number; readonly npages: number }
    | undefined;
  /** An unmap after which the TCEs stay. */
  readonly isGivenUp: boolean;
}

/** A mapping that is larger than this is none: 4 GiB. */
const MAX_SIZE = 2 ** 32;

const NOTHING: OperationPlan = {
  steps: [],
  expected: undefined,
  entries: undefined,
  isGivenUp: false,
};

/** The guest's allocators, and what its kernel does for each operation of the trace. */
export class GuestModel {
  readonly tables: ReadonlyMap<number, IommuTable>;
  readonly #options: GuestModelOptions;
  readonly #recorder = new CallRecorder();
  readonly #calls: TceCalls;
  #handle: number | undefined;

  constructor(options: GuestModelOptions) {
    this.#options = options;
    const { windows, allocator } = options;
    this.tables = new Map(
      windows.map((window) => [
        window.liobn,
        new IommuTable(allocator === undefined ? window : { ...window, allocator }),
      ]),
    );
    this.#calls = new TceCalls({
      hypercalls: this.#recorder,
      memory: this.#recorder.memory,
      listPage: this.#recorder.listPage,
      usePutIndirect: options.usePutIndirect,
      useStuff: options.useStuff,
      tracer: NO_TRACE,
    });
  }

  /** The steps of an operation, taking the guest's recorded address for right. */
  plan(operation: GuestOperation): OperationPlan {
    const route = this.#options.routeOf(operation.device);
    if (operation.kind === 'calls') {
      const call = operation.traced[0];
      const step = callStep(operation, call?.opcode ?? 0);
      step.ret = call?.ret;
      return { ...NOTHING, steps: [step] };
    }
    if (operation.size > MAX_SIZE) return NOTHING;
    const isMap = operation.kind === 'map' || operation.kind === 'alloc';
    if (route.kind === 'direct') return isMap ? this.#direct(operation, route) : NOTHING;
    const window = this.#windowAt(route, operation.dmaAddr);
    if (window === undefined) return NOTHING;
    return isMap ? this.#map(operation, window) : this.#unmap(operation, window, route);
  }

  /** The hypercalls of a mapping, had the allocator given it this entry. */
  buildCalls(operation: GuestOperation, window: GuestWindow, entry: number): TceCall[] {
    const { npages } = this.request(operation, window);
    const { gpa = 0, direction } = operation;
    this.#calls.build(window, entry, npages, gpa, direction);
    return this.#recorder.take();
  }

  /** The address of an entry for this operation. */
  addressOf(operation: GuestOperation, window: GuestWindow, entry: number): bigint {
    if (entry < 0) return DMA_MAPPING_ERROR;
    const pageSize = 2 ** window.pageShift;
    const offset = operation.kind === 'map' ? (operation.gpa ?? 0) % pageSize : 0;
    return window.busOffset + BigInt(entry) * BigInt(pageSize) + BigInt(offset);
  }

  /** What the allocator would give now, without taking it. */
  allocDry(
    table: IommuTable,
    npages: number,
    alignOrder: number,
    cpu: number,
    handle?: number,
  ): number {
    const { hints } = table;
    const entry = table.alloc(npages, alignOrder, cpu, handle === undefined ? {} : { handle });
    if (entry >= 0) table.free(entry, npages);
    table.hints = hints;
    return entry;
  }

  /** log2 of a guest page, in entries of 2^`pageShift` bytes. */
  pageOrder(pageShift: number): number {
    return Math.max(0, Math.log2(this.#options.pageSize) - pageShift);
  }

  /** How many hypercalls the kernel makes to map or unmap as many TCEs. */
  callsFor(kind: 'map' | 'unmap', npages: number): number {
    const { usePutIndirect, useStuff } = this.#options;
    return callsFor(kind === 'map' ? usePutIndirect : useStuff, npages);
  }

  /** Follows a hypercall that nothing in the guest's trace explains. */
  observe({ liobn, ioba, npages, tce, ret }: LoggedCall): void {
    const table = this.tables.get(liobn);
    if (table === undefined || ret !== 0n) return;
    const entry = Number((ioba - table.busOffset) >> BigInt(table.pageShift));
    if ((tce & 3n) !== 0n) {
      if (table.isFree(entry, npages)) table.observe(entry, npages);
    } else if (table.isTaken(entry, npages)) table.free(entry, npages);
  }

  #direct({ gpa }: GuestOperation, route: DeviceRoute): OperationPlan {
    return { ...NOTHING, expected: gpa === undefined ? undefined : BigInt(gpa) + route.offset };
  }

  #map(operation: GuestOperation, window: GuestWindow): OperationPlan {
    const table = this.tables.get(window.liobn);
    if (table === undefined) return NOTHING;
    const { npages, alignOrder } = this.request(operation, window);
    const hasFailed = operation.dmaAddr === DMA_MAPPING_ERROR;
    const entry = hasFailed ? -1 : entryOf(window, operation.dmaAddr);
    const steps: Step[] = [];
    const handle = operation.isContinued === true ? this.#handle : undefined;
    steps.push({ kind: 'alloc', operation, table, npages, alignOrder, handle, entry });
    // The next element of a scatter list is looked for from here.
    this.#handle = entry + npages;
    if (hasFailed) return { ...NOTHING, steps };
    if (operation.isMerged === true) {
      // Its elements were allocated one by one, each with hypercalls of its own.
      steps.length = 0;
      for (const { opcode } of operation.traced) steps.push(callStep(operation, opcode));
      return { ...NOTHING, steps };
    }
    if (operation.gpa === undefined) {
      // Memory without a linear address: which pages is not in the trace.
      for (const { opcode } of operation.traced) steps.push(callStep(operation, opcode));
    } else {
      for (const call of this.buildCalls(operation, window, entry)) {
        steps.push(callStep(operation, call.opcode, call));
      }
    }
    return { ...NOTHING, steps, entries: { window, entry, npages } };
  }

  #unmap(operation: GuestOperation, window: GuestWindow, route: DeviceRoute): OperationPlan {
    const table = this.tables.get(window.liobn);
    if (table === undefined) return NOTHING;
    const entry = entryOf(window, operation.dmaAddr);
    const { pageSize } = this.#options;
    const npages =
      operation.kind === 'free'
        ? iommuCoherent(operation.size, pageSize, window.pageShift).npages
        : iommuPagesTouched(
            Number(operation.dmaAddr & ((1n << BigInt(window.pageShift)) - 1n)),
            operation.size,
            window.pageShift,
          );
    const entries = { window, entry, npages };
    if (route.isNeverUnmapped) return { ...NOTHING, entries, isGivenUp: true };
    this.#calls.free(window, entry, npages);
    const steps: Step[] = this.#recorder
      .take()
      .map((call) => callStep(operation, call.opcode, call));
    steps.push({ kind: 'free', operation, table, npages, entry });
    return { ...NOTHING, steps, entries };
  }

  /** What an operation asks of the allocator. */
  request(
    { kind, gpa, size }: GuestOperation,
    { pageShift }: GuestWindow,
  ): { npages: number; alignOrder: number } {
    const { pageSize } = this.#options;
    return kind === 'alloc'
      ? iommuCoherent(size, pageSize, pageShift)
      : iommuMapping(gpa ?? 0, size, pageSize, pageShift);
  }

  // The window that an address lies in, or the device's own for one that is in none.
  #windowAt({ liobn }: DeviceRoute, address: bigint): GuestWindow | undefined {
    const { windows } = this.#options;
    const own = windows.find((window) => window.liobn === liobn);
    if (own !== undefined && contains(own, address)) return own;
    const others = windows.filter((window) => (window.liobn ^ liobn) < 256);
    return others.find((window) => contains(window, address)) ?? own;
  }
}

/** Hypercalls for as many TCEs, one for each or one for each 512. */
export function callsFor(isMulti: boolean, npages: number): number {
  return isMulti ? Math.ceil(npages / TCE_CALL_MAX) : npages;
}

function contains({ busOffset, pageShift, size }: GuestWindow, address: bigint): boolean {
  return address >= busOffset && address < busOffset + (BigInt(size) << BigInt(pageShift));
}

function entryOf({ busOffset, pageShift }: GuestWindow, address: bigint): number {
  return Number((address - busOffset) >> BigInt(pageShift));
}
