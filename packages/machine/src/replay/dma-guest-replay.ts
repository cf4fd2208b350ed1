/** The guest's part of a replay without hypercalls: each mapping's address, one after the other. */
import { hex } from '@pinhole/base';
import type { AddressModel, Disagreement } from './address-model.js';
import { DMA_MAPPING_ERROR, type GuestOperation, type IommuRange } from './guest-operations.js';
import type { GuestMismatch, GuestReplayResult } from './guest-replay.js';
import type { IommuRanges } from './iommu-ranges.js';
import { LiveMappings } from './live-mappings.js';

/** Options of {@link DmaGuestReplay}. */
export interface DmaGuestReplayOptions {
  readonly addresses: AddressModel;
  /** Of a guest with an IOMMU. */
  readonly ranges: IommuRanges | undefined;
  /** The guest's CPUs, if its console tells. */
  readonly cpus: number | undefined;
  /** How many mismatches are kept; all are counted. */
  readonly keep: number;
}

/** Takes the guest's trace in its order; keeps what drivers hold. */
export class DmaGuestReplay {
  readonly #options: DmaGuestReplayOptions;
  readonly #held = new LiveMappings();
  readonly #mismatches: GuestMismatch[] = [];
  readonly #counts = {
    maps: 0,
    unmaps: 0,
    allocs: 0,
    frees: 0,
    failedMaps: 0,
    dmaAddressMismatches: 0,
    requestsJoined: 0,
    requestMismatches: 0,
    rangesPaired: 0,
    rangeMismatches: 0,
  };
  /** The first mapping that found no room. */
  firstFailure: GuestOperation | undefined;

  constructor(options: DmaGuestReplayOptions) {
    this.#options = options;
  }

  /** Mappings that are held. */
  get held(): LiveMappings {
    return this.#held;
  }

  operation(operation: GuestOperation): void {
    const { addresses } = this.#options;
    const { kind, dmaAddr, isContinued } = operation;
    if (kind === 'calls') return;
    this.#held.see(operation);
    this.#checkCpu(operation.line, operation.cpu);
    for (const { line, cpu } of operation.bounced ?? []) this.#checkCpu(line, cpu);
    if (isContinued !== true) this.#count(kind);
    if (kind === 'map' || kind === 'alloc') {
      this.#note(operation, addresses.begin(operation));
      if (dmaAddr !== DMA_MAPPING_ERROR) this.#held.hold(operation, undefined);
      else {
        this.#counts.failedMaps += 1;
        this.firstFailure ??= operation;
      }
      return;
    }
    const wrong = addresses.end(operation);
    const { isUnknown } = this.#held.release(operation);
    if (isUnknown === undefined) this.#note(operation, wrong);
    else this.#note(operation, { what: 'unmap', recorded: hex(dmaAddr), model: isUnknown });
  }

  /** The IOMMU mapped or unmapped something. */
  range(range: IommuRange): void {
    this.#checkCpu(range.line, range.cpu);
    const wrong = this.#options.ranges?.take(range);
    if (wrong !== undefined) this.#addressMismatch(range.line, wrong);
  }

  /** An address of a trace that has no operations. */
  address(line: number | undefined, wrong: Disagreement | undefined): void {
    if (wrong !== undefined) this.#addressMismatch(line, wrong);
  }

  /** A request of the device that the guest's trace has, too. */
  joined(): void {
    this.#counts.requestsJoined += 1;
  }

  /** A request that the two files have differently. */
  requestMismatch(
    guestLine: number | undefined,
    qemuLine: number | undefined,
    wrong: Disagreement,
  ): void {
    this.#counts.requestMismatches += 1;
    this.#keep('request', guestLine, qemuLine, wrong);
  }

  /** The log has what the IOMMU was told of a range. */
  rangePaired(): void {
    this.#counts.rangesPaired += 1;
  }

  /** The log has something else, or nothing. */
  rangeMismatch(
    guestLine: number | undefined,
    qemuLine: number | undefined,
    wrong: Disagreement,
  ): void {
    this.#counts.rangeMismatches += 1;
    this.#keep('range', guestLine, qemuLine, wrong);
  }

  /** `consistent`: addresses of which only that can be said. */
  result(consistent: number): GuestReplayResult {
    return {
      ...this.#counts,
      hcallsPredicted: 0,
      hcallMismatches: 0,
      hcallsUntraced: 0,
      hcallsByKind: 0,
      consistentAddresses: consistent,
      inconsistentAddresses: 0,
      ordersFound: 0,
      mismatches: this.#mismatches,
    };
  }

  #checkCpu(line: number, cpu: number): void {
    const { cpus } = this.#options;
    if (cpus === undefined || cpu < cpus) return;
    this.#addressMismatch(line, { what: 'CPU', recorded: `${cpu}`, model: `below ${cpus}` });
  }

  #count(kind: GuestOperation['kind']): void {
    if (kind === 'map') this.#counts.maps += 1;
    else if (kind === 'unmap') this.#counts.unmaps += 1;
    else if (kind === 'alloc') this.#counts.allocs += 1;
    else this.#counts.frees += 1;
  }

  #note({ line }: GuestOperation, wrong: Disagreement | undefined): void {
    if (wrong !== undefined) this.#addressMismatch(line, wrong);
  }

  #addressMismatch(line: number | undefined, wrong: Disagreement): void {
    this.#counts.dmaAddressMismatches += 1;
    this.#keep('dma-address', line, undefined, wrong);
  }

  #keep(
    kind: GuestMismatch['kind'],
    guestLine: number | undefined,
    qemuLine: number | undefined,
    { what, recorded, model }: Disagreement,
  ): void {
    if (this.#mismatches.length >= this.#options.keep) return;
    this.#mismatches.push({ kind, guestLine, qemuLine, what, recorded, model });
  }
}
