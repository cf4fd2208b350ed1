/** What a replay takes for granted about the run, and how it knows. */
import {
  DmaDispatch,
  findKernelProfile,
  type KernelProfile,
  kernelProfileForRelease,
  parseIommuCommandLine,
} from '@pinhole/guest';
import type { BouncePool } from './bounce-addresses.js';
import type { ConsoleDigest } from './console-digest.js';
import type { GuestFacts } from './guest-scout.js';
import { type Platform, platformOf, poolOf } from './platform.js';
import type { Boot, RunFacts } from './run-scout.js';

/** The second window of the boot that the guest's trace is of; `none`: the machine has no windows. */
type DdwState = 'created' | 'lost' | 'not asked for' | 'unknown' | 'none';

/** What is known of a run. */
export interface Inference {
  readonly kernel: KernelProfile;
  /** Where that comes from: an option, the console, a mark in the trace, the trace's events. */
  readonly kernelFrom: string;
  /** `uname -r`, if a file has it. */
  readonly release: string | undefined;
  readonly guestPageSize: number;
  readonly ddw: DdwState;
  /**
   * What a window that was lost leaves behind in this kernel: maps through the window, and unmaps
   * that it takes for direct ones.
   */
  readonly leaksAfterLoss: boolean;
  readonly cpus: number | undefined;
  /** The same, if it is the console that tells. */
  readonly cpusFromConsole: number | undefined;
  readonly boot: Boot | undefined;
  readonly platform: Platform;
  /** The IOMMU forgets at once what the guest unmaps, and not later. */
  readonly isStrict: boolean;
  /** The guest's bounce buffers; undefined: it uses none. */
  readonly pool: BouncePool | undefined;
}

/** Why two files are not of one run, or not of a machine that is modelled. */
export type RunProblem =
  | 'no-guest-events'
  | 'no-tce-calls'
  | 'other-hypercalls'
  | 'other-accesses'
  | 'other-requests';

const UNKNOWN: Platform = { machine: 'unknown', iommu: 'spapr-tce', isBounceForced: false };
/** Less of the buffers that the guest's trace begins with: devices accessed others. */
const MIN_ACCESSED = 0.5;

/**
 * Whether the guest's trace and QEMU's log belong together: the hypercalls that the trace begins
 * with are in the log, or where there are none, devices accessed the buffers that it begins with.
 */
export function problemOfRun(facts: RunFacts, console: ConsoleDigest): RunProblem | undefined {
  const { guest, alignment, calls, accesses, requests } = facts;
  if (guest === undefined) return 'no-guest-events';
  const platform = platformOf(facts, console);
  if (platform === undefined) return 'no-tce-calls';
  if (platform.iommu !== 'spapr-tce') return requests.isOther ? 'other-requests' : undefined;
  if (alignment !== undefined && calls === 0) return 'no-tce-calls';
  if (alignment !== undefined && alignment.score < alignment.needed) return 'other-hypercalls';
  return accesses.found < MIN_ACCESSED * accesses.lookedFor ? 'other-accesses' : undefined;
}

/** Puts together what the files say. */
export function inferRun(
  facts: RunFacts,
  console: ConsoleDigest,
  kernelId: string | undefined,
): Inference {
  const { guest, alignment } = facts;
  const boot = facts.boots[alignment?.boot ?? facts.boots.length - 1];
  const { kernel, kernelFrom, release } = inferKernel(guest, console, kernelId);
  const platform = platformOf(facts, console) ?? UNKNOWN;
  const ddw = platform.iommu === 'spapr-tce' ? inferDdw(boot, kernel) : 'none';
  const cpus = console.cpus ?? guest?.cpus;
  return {
    kernel,
    kernelFrom,
    release,
    guestPageSize: console.pageSize ?? alignment?.pageSize ?? kernel.pageSize,
    ddw,
    leaksAfterLoss: ddw === 'lost' && leaksAfterLoss(kernel),
    cpus,
    cpusFromConsole: console.cpus,
    boot,
    platform,
    isStrict: isStrict(console, platform, kernel),
    pool: poolOf(facts, console, kernel, cpus ?? 1),
  };
}

// The console says what the kernel prefers; Debian's arm64 is built strict. What the driver cannot defer
// it does at once. [linux drivers/iommu/virtio-iommu.c viommu_capable]
function isStrict(
  console: ConsoleDigest,
  { machine, iommu }: Platform,
  kernel: KernelProfile,
): boolean {
  if (iommu === 'virtio-iommu' && !kernel.iommuDma.virtioIommuDefers) return true;
  const asked = parseIommuCommandLine(console.commandLine).isStrict;
  return console.isStrict ?? asked ?? machine === 'arm64';
}

function inferKernel(
  guest: GuestFacts | undefined,
  console: ConsoleDigest,
  kernelId: string | undefined,
): { kernel: KernelProfile; kernelFrom: string; release: string | undefined } {
  const release = console.release ?? guest?.release;
  const given = kernelId === undefined ? undefined : findKernelProfile(kernelId);
  if (given !== undefined) return { kernel: given, kernelFrom: '--kernel', release };
  const known = release === undefined ? undefined : kernelProfileForRelease(release);
  if (known !== undefined) {
    const file = console.release === undefined ? "a mark in the guest's trace" : 'the console';
    return { kernel: known, kernelFrom: `${file}: ${release}`, release };
  }
  if (guest === undefined) return fallback('linux-6.12', "nothing: there is no guest's trace");
  if (guest.hasMapPhys) return fallback('linux-7.2', 'dma_map_phys: 7.0 or later');
  if (guest.hasDmaEvents) return fallback('linux-6.12', 'dma_map_page: 6.12 to 6.19');
  return fallback('linux-6.1', 'no dma_* events: before 6.12');
}

function fallback(
  id: string,
  kernelFrom: string,
): { kernel: KernelProfile; kernelFrom: string; release: undefined } {
  return { kernel: findKernelProfile(id) as KernelProfile, kernelFrom, release: undefined };
}

// A query is a kernel that wants a window, but for the one that some make at boot for each bridge.
// QEMU logs a creation only when it worked.
function inferDdw(boot: Boot | undefined, { ddw }: KernelProfile): DdwState {
  if (boot === undefined) return 'unknown';
  if (boot.created.length > 0) return 'created';
  const atBoot = ddw.queriesAtBoot ? Math.max(1, boot.windows.length) : 0;
  return boot.queries.length > atBoot ? 'lost' : 'not asked for';
}

/**
 * Whether creating a window without success leaves the device with a limit and no offset: memory's
 * maximum is 0 then, and the limit 0 + 2^0. [linux v6.1 enable_ddw] and the dispatch of the profile.
 */
function leaksAfterLoss({ dispatch: rule, ddw }: KernelProfile): boolean {
  if (rule.busDmaLimit !== 'whenever-direct' || !ddw.answersDirectAfterFailure) return false;
  const dispatch = new DmaDispatch({ rule, endOfMemory: 2 ** 31 });
  dispatch.busDmaLimit = 1n;
  return dispatch.leaksMappings;
}
