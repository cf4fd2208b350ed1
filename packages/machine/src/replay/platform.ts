/** What kind of machine a run is of, and where its guest keeps its bounce buffers. */
import { type KernelProfile, parseKernelCommandLine, swiotlbPool } from '@pinhole/guest';
import type { BouncePool } from './bounce-addresses.js';
import type { ConsoleDigest } from './console-digest.js';
import { routeFrom } from './device-route.js';
import type { LoggedIommu } from './request-scout.js';
import type { RunFacts } from './run-scout.js';

/** What stands between a device and memory. */
export interface Platform {
  readonly machine: 'pseries' | 'x86-64' | 'arm64' | 's390x' | 'unknown';
  /** `generic`: the guest's kernel drives one, and the log does not say which. */
  readonly iommu: 'spapr-tce' | LoggedIommu | 'generic' | 'none';
  /** The guest bounces every buffer. */
  readonly isBounceForced: boolean;
}

/**
 * Where kernels live: on x86-64 the upper half of 48 bits, on arm64 as much again, on s390x memory as it
 * is. [linux v6.12 arch/arm64/include/asm/memory.h PAGE_OFFSET]
 */
export function kernelBeginsOn(machine: Platform['machine']): bigint {
  if (machine === 's390x') return 0n;
  return machine === 'arm64' ? 0xffff_0000_0000_0000n : 0xffff_8000_0000_0000n;
}

/** A pool that is larger than this is no pool. */
const MAX_POOL = 2 ** 32;
const SEGMENT = 2 ** 18;

/** What the files are of; undefined: a machine whose addresses nothing here predicts. */
export function platformOf(facts: RunFacts, console: ConsoleDigest): Platform | undefined {
  const { guest, calls, boots, requests } = facts;
  const machine = machineOf(requests.iommu, console.release ?? guest?.release ?? '');
  const isBounceForced = guest?.isBounceForced ?? false;
  const tce: Platform = { machine: 'pseries', iommu: 'spapr-tce', isBounceForced: false };
  if (calls > 0 || boots.length > 0 || guest?.hasCallEvents === true) return tce;
  if (guest === undefined) {
    if (requests.iommu !== undefined) return { machine, iommu: requests.iommu, isBounceForced };
    return machine === 'unknown' ? tce : { machine, iommu: 'none', isBounceForced };
  }
  // The second window of a pseries machine, if the log begins after it was made.
  const offsets = [...guest.devices.values()].flatMap(({ direct }) => [...direct.keys()]);
  if (offsets.some((offset) => offset !== 0n)) return tce;
  if (guest.hasIommuRanges) {
    return { machine, iommu: requests.iommu ?? 'generic', isBounceForced };
  }
  const isDirect = [...guest.devices.values()].every(
    (maps) => routeFrom(maps, 0).kind === 'direct',
  );
  if (isDirect || guest.bounce !== undefined) return { machine, iommu: 'none', isBounceForced };
  return undefined;
}

// Debian's releases end with the architecture, others may begin with it or not have it.
function machineOf(iommu: LoggedIommu | undefined, release: string): Platform['machine'] {
  if (iommu === 'intel-iommu' || /amd64|x86_64/.test(release)) return 'x86-64';
  if (release.includes('s390x')) return 's390x';
  return iommu === 'smmuv3' || /arm64|aarch64/.test(release) ? 'arm64' : 'unknown';
}

/**
 * The guest's pool of bounce buffers: the console says where it is, or the first buffer of a trace
 * that begins with the device's first mapping lies at its start.
 */
export function poolOf(
  { guest }: RunFacts,
  console: ConsoleDigest,
  { swiotlb }: KernelProfile,
  cpus: number,
): BouncePool | undefined {
  const bounce = guest?.bounce;
  if (bounce === undefined) return undefined;
  const printed = console.pool;
  const parameter = parseKernelCommandLine(console.commandLine).swiotlb;
  const asked = swiotlb.hasAreas ? (console.poolAreas ?? cpus) : 1;
  const { bytes, areas } = swiotlbPool(parameter, asked);
  const isFresh = bounce.isWhole;
  if (printed !== undefined) {
    // Kernels print the last byte or the one after it. [linux v6.12 kernel/dma/swiotlb.c swiotlb_print_info]
    const size = Number(printed.end - printed.start) + Number(printed.end & 1n);
    if (printed.start < 2n ** 52n && size > 0 && size <= MAX_POOL && size % SEGMENT === 0) {
      return { base: Number(printed.start), bytes: size, areas, from: 'the console', isFresh };
    }
  }
  const first = Number(bounce.first) - Math.floor(Number(bounce.first) % 2048);
  const base = isFresh ? first - bounce.cpu * (bytes / areas) : lowestOf(bounce.lowest);
  const from = isFresh ? 'the first bounce buffer' : 'the lowest bounce buffer';
  return { base: Math.max(0, base), bytes: Math.min(bytes, MAX_POOL), areas, from, isFresh };
}

// Segments are what a search never crosses; a pool begins with one.
function lowestOf(address: bigint): number {
  return Number(address - (address % BigInt(SEGMENT)));
}
