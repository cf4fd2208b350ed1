/** Tells an observer what the guest did, in an order that agrees with QEMU's log. */
import type { TraceEvent } from '@pinhole/base';
import { BusAddresses } from './bus-addresses.js';
import { DMA_MAPPING_ERROR, type GuestOperation } from './guest-operations.js';
import type { Entries } from './guest-replay.js';
import type { ObservedCall, RunObserver } from './run-observer.js';

/** Operations of a CPU that wait for a hypercall after them; more are told without. */
const MAX_WAITING = 16_384;
/** Operations that an access is looked for in. */
const ACCESS_AHEAD = 1024;
/** Operations that should wait before more of QEMU's log is told. */
const MIN_WAITING = 1024;

/** Holds operations of the guest until it is known where they belong. */
export class RunNarrator {
  readonly #observer: RunObserver;
  /** By CPU, in the order of the trace. */
  readonly #waiting = new Map<number, GuestOperation[]>();
  /** How many of them map at an address without a hypercall. */
  readonly #direct = new Map<bigint, number>();
  /** How many were told since, and no device accessed them yet. */
  readonly #untouched = new Map<bigint, number>();
  /** Those that were told and are held, by the page where they begin. */
  readonly #held = new Map<bigint, GuestOperation[]>();
  readonly #addresses = new BusAddresses();
  /** What is told when enough of the guest's trace is known. */
  readonly #later: (() => void)[] = [];
  #hasAllOperations = false;
  #count = 0;
  #qemuLine = 0;

  constructor(observer: RunObserver) {
    this.#observer = observer;
  }

  /** Whether it should know more of the guest's trace before it goes on. */
  get wantsOperations(): boolean {
    return this.#count < MIN_WAITING && !this.#hasAllOperations;
  }

  /** The guest's trace has ended, or there is none. */
  endOperations(): void {
    this.#hasAllOperations = true;
    this.#drain();
  }

  /** An operation was read. */
  read(operation: GuestOperation): void {
    if (operation.kind === 'calls') return;
    const list = this.#waiting.get(operation.cpu) ?? [];
    if (list.length === 0) this.#waiting.set(operation.cpu, list);
    list.push(operation);
    this.#count += 1;
    if (isDirectMap(operation)) add(this.#direct, operation.dmaAddr, 1);
    if (list.length > MAX_WAITING) this.#tellFirst(list);
    this.#drain();
  }

  /** A hypercall happened, or another event of the log did. */
  qemuEvent(event: TraceEvent, line: number, call?: ObservedCall): void {
    this.#tellLater(() => {
      if (call === undefined) {
        const address = this.#addresses.event(event);
        if (address !== undefined) this.#access(address);
      } else if (call.operation !== undefined) this.#begin(call.operation, call.entries);
      this.#qemuLine = line;
      this.#observer.qemuEvent?.(event, line, call);
    });
  }

  /** An unmap that leaves its TCEs. */
  givenUp(operation: GuestOperation, entries: Entries): void {
    this.#tellLater(() => {
      this.#begin(operation, entries);
      this.#observer.givenUp?.(operation, entries, this.#qemuLine);
    });
  }

  /** A mapping that found no room. */
  failed(operation: GuestOperation, npages: number): void {
    this.#tellLater(() => {
      this.#begin(operation, undefined);
      this.#observer.failed?.(operation, npages, this.#qemuLine);
    });
  }

  /** Both files have ended. */
  end(): void {
    this.endOperations();
    const rest = [...this.#waiting.values()].flat();
    rest.sort((a, b) => a.line - b.line);
    this.#waiting.clear();
    for (const operation of rest) this.#tell(operation, undefined);
  }

  #tellLater(tell: () => void): void {
    if (this.#later.length === 0 && !this.wantsOperations) tell();
    else this.#later.push(tell);
  }

  #drain(): void {
    let told = 0;
    while (told < this.#later.length && !this.wantsOperations) this.#later[told++]?.();
    this.#later.splice(0, told);
  }

  // What its CPU did before, then the operation itself: once, at its first hypercall.
  #begin(operation: GuestOperation, entries: Entries | undefined): void {
    const list = this.#waiting.get(operation.cpu);
    if (list === undefined) return;
    while ((list[0]?.line ?? operation.startLine) < operation.startLine) {
      this.#tellFirst(list);
    }
    // Ahead of it may be interrupts that came while it went on.
    for (let i = 0; (list[i]?.line ?? Infinity) <= operation.line; i += 1) {
      if (list[i] !== operation) continue;
      if (i === 0) list.shift();
      else list.splice(i, 1);
      this.#tell(operation, entries);
      return;
    }
  }

  // A mapping that needs no hypercall comes before its first access.
  #access(address: bigint): void {
    if (this.#untouched.has(address)) {
      add(this.#untouched, address, -1);
      return;
    }
    if (!this.#direct.has(address) || this.#isInside(address)) return;
    for (const list of this.#waiting.values()) {
      const end = Math.min(list.length, ACCESS_AHEAD);
      for (let i = 0; i < end; i += 1) {
        const operation = list[i] as GuestOperation;
        if (operation.traced.length > 0) break;
        if (operation.dmaAddr !== address || !isDirectMap(operation)) continue;
        for (let told = 0; told <= i; told += 1) this.#tellFirst(list);
        add(this.#untouched, address, -1);
        return;
      }
    }
  }

  // Further on in a buffer that is held: its second descriptor, say.
  #isInside(address: bigint): boolean {
    const held = this.#held.get(address >> PAGE_SHIFT) ?? [];
    return held.some(({ dmaAddr, size }) => dmaAddr < address && address < dmaAddr + BigInt(size));
  }

  #tellFirst(list: GuestOperation[]): void {
    this.#tell(list.shift() as GuestOperation, undefined);
  }

  #tell(operation: GuestOperation, entries: Entries | undefined): void {
    this.#count -= 1;
    const { kind, dmaAddr } = operation;
    if (isDirectMap(operation)) {
      add(this.#direct, dmaAddr, -1);
      add(this.#untouched, dmaAddr, 1);
      const page = dmaAddr >> PAGE_SHIFT;
      const held = this.#held.get(page);
      if (held === undefined) this.#held.set(page, [operation]);
      else held.push(operation);
    } else if (kind === 'unmap') this.#release(operation);
    this.#observer.operation?.(operation, entries, this.#qemuLine);
  }

  #release({ dmaAddr, size }: GuestOperation): void {
    this.#untouched.delete(dmaAddr);
    const page = dmaAddr >> PAGE_SHIFT;
    const held = this.#held.get(page);
    const at = held?.findIndex((other) => other.dmaAddr === dmaAddr && other.size === size) ?? -1;
    if (held === undefined || at < 0) return;
    held.splice(at, 1);
    if (held.length === 0) this.#held.delete(page);
  }
}

const PAGE_SHIFT = 12n;

function add(counts: Map<bigint, number>, address: bigint, change: number): void {
  const count = (counts.get(address) ?? 0) + change;
  if (count > 0) counts.set(address, count);
  else counts.delete(address);
}

function isDirectMap({ kind, traced, dmaAddr }: GuestOperation): boolean {
  return kind === 'map' && traced.length === 0 && dmaAddr !== DMA_MAPPING_ERROR;
}
