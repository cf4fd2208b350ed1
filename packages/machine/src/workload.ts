import type { GuestPages, VirtioBlkDriver } from '@pinhole/guest';
import { isBlkSuccess } from '@pinhole/guest';
import type { GuestMemory } from '@pinhole/memory';
import { type CopyOnWriteDisk, countDifferent, fillSeeded } from './disk.js';
import { MachineError } from './errors.js';
import type { Transfer, WorkloadOperation } from './scenario-config.js';

/** What a read buffer holds before the read: what it still holds where nothing arrived. */
const STALE = 0xa5;
/** Privacy is looked at in pieces of this many bytes: chance does not make two of them equal. */
const PROBE = 64;

/** What became of the workload. Bytes unless said otherwise. */
export interface WorkloadResult {
  /** Requests that the block layer issued. */
  requests: number;
  /** Requests that the device completed without error. */
  completed: number;
  /** Requests that it completed with an error status. */
  failed: number;
  /** Requests that could not be given to it. */
  rejected: number;
  /** Requests that it never completed, or that the guest tries to give to it for ever. */
  hung: number;
  bytesRead: number;
  bytesReadWrong: number;
  /** Of those, bytes of reads that the device said were done. */
  bytesReadWrongSilently: number;
  bytesWritten: number;
  /** Bytes of the image that differ from the independent copy after all writes. */
  imageBytesWrong: number;
  /** Bytes of a secure guest's buffers that the hypervisor saw in clear. */
  privateBytesExposed: number;
  /** The first wrong byte of a read. */
  firstWrong?: { readonly offset: number; readonly expected: string; readonly found: string };
  /** The first request that was not served. */
  firstFailure?: string;
}

/** What the workload runs on. */
export interface WorkloadOptions {
  readonly driver: VirtioBlkDriver;
  readonly memory: GuestMemory;
  readonly pages: GuestPages;
  /** Memory as the hypervisor sees it, of a secure guest: its buffers must not show there. */
  readonly hypervisorMemory?: GuestMemory;
  /** The disk that the device has. */
  readonly disk: CopyOnWriteDisk;
  /** A copy of it that the device never sees: what must come out. */
  readonly expected: CopyOnWriteDisk;
  readonly seed: number;
  /** Told of each piece of a secure guest's buffers that the hypervisor saw in clear. */
  readonly onExposed?: (gpa: number) => void;
}

/** @throws MachineError `E_WORKLOAD` when an operation does not fit the disk. */
export function checkWorkload(workload: readonly WorkloadOperation[], diskSize: number): void {
  const problems = workload.flatMap((operation, i) => {
    const [kind, { offset, length }] =
      'read' in operation
        ? (['read', operation.read] as const)
        : (['write', operation.write] as const);
    if (offset + length <= diskSize) return [];
    return [
      {
        path: `workload[${i}].${kind}`,
        message: `expected an operation inside the disk of ${diskSize} bytes, found ${length} bytes at ${offset}: past the end`,
      },
    ];
  });
  if (problems.length > 0) throw new MachineError('E_WORKLOAD', problems);
}

/** Of a workload that did not run. */
export function emptyResult(): WorkloadResult {
  return {
    requests: 0,
    completed: 0,
    failed: 0,
    rejected: 0,
    hung: 0,
    bytesRead: 0,
    bytesReadWrong: 0,
    bytesReadWrongSilently: 0,
    bytesWritten: 0,
    imageBytesWrong: 0,
    privateBytesExposed: 0,
  };
}

/** Runs every operation and checks every byte. A request that hangs ends it. */
export function runWorkload(
  workload: readonly WorkloadOperation[],
  options: WorkloadOptions,
): WorkloadResult {
  const result = emptyResult();
  const run = new WorkloadRun(options, result);
  for (const operation of workload) {
    const isRead = 'read' in operation;
    const { offset, length, block } = isRead ? operation.read : operation.write;
    for (let done = 0; done < length && result.hung === 0; done += block) {
      const bytes = Math.min(block, length - done);
      if (isRead) run.read(offset + done, bytes);
      else run.write(offset + done, bytes, operation.write.fill);
    }
  }
  result.imageBytesWrong = options.disk.bytesDifferent(options.expected);
  return result;
}

class WorkloadRun {
  readonly #options: WorkloadOptions;
  readonly #result: WorkloadResult;
  #writes = 0;

  constructor(options: WorkloadOptions, result: WorkloadResult) {
    this.#options = options;
    this.#result = result;
  }

  read(offset: number, length: number): void {
    const { driver, memory, expected } = this.#options;
    const runs = this.#buffer(length);
    for (const { gpa, length: bytes } of runs) memory.fill(gpa, bytes, STALE);
    const isServed = this.#note(`read of ${length} bytes at ${offset}`, driver.read(offset, runs));
    const found = new Uint8Array(length);
    const right = new Uint8Array(length);
    let at = 0;
    for (const { gpa, length: bytes } of runs) {
      memory.read(gpa, found.subarray(at, at + bytes));
      at += bytes;
    }
    expected.read(offset, right);
    this.#checkPrivate(runs);
    this.#result.bytesRead += length;
    const wrong = countDifferent(found, right);
    this.#result.bytesReadWrong += wrong;
    if (isServed) this.#result.bytesReadWrongSilently += wrong;
    if (wrong > 0) this.#result.firstWrong ??= firstDifference(offset, right, found);
  }

  write(offset: number, length: number, fill: number | undefined): void {
    const { driver, memory, expected, seed } = this.#options;
    const data = new Uint8Array(length);
    this.#writes += 1;
    if (fill === undefined) fillSeeded(data, seed + this.#writes * 0x1_0000_0001);
    else data.fill(fill);
    const runs = this.#buffer(length);
    let at = 0;
    for (const { gpa, length: bytes } of runs) {
      memory.write(gpa, data.subarray(at, at + bytes));
      at += bytes;
    }
    expected.write(offset, data);
    this.#result.bytesWritten += length;
    this.#note(`write of ${length} bytes at ${offset}`, driver.write(offset, runs));
    this.#checkPrivate(runs);
  }

  #buffer(length: number): readonly { gpa: number; length: number }[] {
    const runs = this.#options.pages.allocUser(length);
    if (runs !== undefined) return runs;
    throw new MachineError('E_WORKLOAD', [
      {
        path: 'machine.memory',
        message: `expected enough guest memory for the workload's buffers, found no room for ${length} bytes more`,
      },
    ]);
  }

  // A page that looks the same from outside as from inside is not private.
  #checkPrivate(runs: readonly { gpa: number; length: number }[]): void {
    const { memory, hypervisorMemory } = this.#options;
    if (hypervisorMemory === undefined) return;
    for (const { gpa, length } of runs) {
      const inside = new Uint8Array(length);
      const outside = new Uint8Array(length);
      memory.read(gpa, inside);
      hypervisorMemory.read(gpa, outside);
      for (let at = 0; at < length; at += PROBE) {
        const end = Math.min(at + PROBE, length);
        let same = at;
        while (same < end && inside[same] === outside[same]) same += 1;
        if (same < end) continue;
        this.#result.privateBytesExposed += end - at;
        this.#options.onExposed?.(gpa + at);
      }
    }
  }

  // Says whether the device served all of it.
  #note(what: string, outcomes: ReturnType<VirtioBlkDriver['read']>): boolean {
    for (const outcome of outcomes) {
      this.#result.requests += 1;
      if (isBlkSuccess(outcome)) this.#result.completed += 1;
      else if (outcome.kind === 'done') this.#result.failed += 1;
      else if (outcome.kind === 'rejected') this.#result.rejected += 1;
      else this.#result.hung += 1;
      if (isBlkSuccess(outcome)) continue;
      const how =
        outcome.kind === 'done'
          ? `status ${outcome.status}`
          : (outcome.reason ?? 'no answer from the device');
      this.#result.firstFailure ??= `${what}: ${how}`;
    }
    return outcomes.every(isBlkSuccess);
  }
}

function firstDifference(
  offset: number,
  right: Uint8Array,
  found: Uint8Array,
): { offset: number; expected: string; found: string } {
  const at = right.findIndex((byte, i) => byte !== found[i]);
  const show = (bytes: Uint8Array): string =>
    [...bytes.subarray(at, at + 8)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return { offset: offset + at, expected: show(right), found: show(found) };
}

/**
 * Makes a workload fit a smaller disk: an operation that reaches past the end moves down, and
 * shrinks if it must. Nothing changes on a disk that is large enough.
 */
export function fitWorkload(
  workload: readonly WorkloadOperation[],
  diskSize: number,
): WorkloadOperation[] {
  const fit = (transfer: Transfer): Transfer => {
    if (transfer.offset + transfer.length <= diskSize) return transfer;
    const length = Math.min(transfer.length, diskSize);
    const offset = Math.floor((diskSize - length) / 512) * 512;
    return { offset, length, block: Math.min(transfer.block, length) };
  };
  return workload.map((operation) =>
    'read' in operation
      ? { read: fit(operation.read) }
      : { write: { ...operation.write, ...fit(operation.write) } },
  );
}
