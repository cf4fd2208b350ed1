import { type Gpa, hex } from '@pinhole/base';
import type { HypervisorView } from '@pinhole/memory';
import type { GivenMemory } from './given-memory.js';

/** Pages named: how many, and the addresses of the first few as `0x...`. */
export interface NamedPages {
  readonly count: number;
  readonly first: readonly string[];
}

/** Where what went wrong was first seen. Addresses are `0x...`. */
export interface RunEvidence {
  /** The first device access to a page that it was not given. */
  readonly firstStray: {
    readonly gpa: string;
    readonly length: number;
    readonly isWrite: boolean;
  } | null;
  /** The first address that the two sides understood differently. */
  readonly misread: {
    readonly address: string;
    /** What the guest gave: an address of the bus (the DMA API's), or a guest-physical one. */
    readonly guest: AddressKind;
    /** What the device takes addresses for. */
    readonly device: AddressKind;
    /** The guest-physical place that the guest meant; `null`: its bounce buffer. */
    readonly meant: string | null;
    /** Where the device came out; `null`: nowhere. */
    readonly landed: string | null;
    readonly isWrite: boolean;
  } | null;
  /** Private pages of a secure guest that the hypervisor side touched, and got nothing from. */
  readonly privatePagesTouched: NamedPages;
  /** Pages of its buffers that the hypervisor side saw in clear. */
  readonly privatePagesExposed: NamedPages;
  /** IOMMU entries that the workload left behind, when none of its requests was under way any more. */
  readonly entriesLeft: number;
  /** And the pages that the guest had unmapped and the device still reached: the invalidation is to come. */
  readonly entriesDeferred: number;
}

export type AddressKind = 'physical' | 'bus';

/** What {@link describeEvidence} looks at. */
export interface EvidenceSources {
  readonly given: GivenMemory;
  readonly guest: AddressKind;
  readonly device: AddressKind;
  /** Of a secure guest. */
  readonly view: HypervisorView | undefined;
  readonly privatePagesExposed: ReadonlySet<Gpa>;
  readonly entriesLeft: number;
  readonly entriesDeferred: number;
}

const NAMED = 4;

/** Puts what a run noticed into words that reports have. */
export function describeEvidence(sources: EvidenceSources): RunEvidence {
  const { given, guest, device, view } = sources;
  const { firstStray, misread } = given;
  const place = (gpa: Gpa | undefined): string | null => (gpa === undefined ? null : address(gpa));
  return {
    firstStray: firstStray === undefined ? null : { ...firstStray, gpa: address(firstStray.gpa) },
    misread:
      misread === undefined
        ? null
        : {
            address: hex(misread.address),
            guest,
            device,
            meant: place(misread.meant),
            landed: place(misread.landed),
            isWrite: misread.isWrite,
          },
    privatePagesTouched: named(view?.privatePagesTouched ?? new Set()),
    privatePagesExposed: named(sources.privatePagesExposed),
    entriesLeft: sources.entriesLeft,
    entriesDeferred: sources.entriesDeferred,
  };
}

function named(pages: ReadonlySet<Gpa>): NamedPages {
  const first = [...pages].sort((a, b) => a - b).slice(0, NAMED);
  return { count: pages.size, first: first.map(address) };
}

function address(gpa: Gpa): string {
  return hex(BigInt(gpa));
}
