import {
  createRng,
  type HiLo,
  hi32,
  hiOf,
  joinU64,
  lo32,
  loOf,
  ModelError,
  NO_TRACE,
} from '@pinhole/base';
import { findKernelProfile, type KernelProfile } from '@pinhole/guest';
import type {
  Architecture,
  GuestConfig,
  MachineConfig,
  Platform,
  Scenario,
} from '@pinhole/machine';
import { DmaAccess, type DmaSpace, DmaStatus, type Translation } from '@pinhole/memory';
import type { Findings } from './check.js';

/** Bytes of coherent memory that are asked for: more than a page of any kernel. */
const COHERENT = 3 * 65_536;
/** Edges of windows and of address widths, and what a guest in error would send. */
const HOSTILE: readonly (readonly [number, number])[] = [0, 1, 0xfff, 2 ** 31, 2 ** 32 - 1].flatMap(
  (lo) =>
    [0, 1, 0xffff, 2 ** 20, 2 ** 21, 0x0800_0000, 0x4000_0000, 2 ** 31, 2 ** 32 - 1].map(
      (hi) => [hi, lo] as const,
    ),
);

/** Builds the machine of a scenario. */
export function buildPlatform(
  architecture: Architecture,
  { machine, guest, seed }: Scenario,
  change: { readonly machine?: Partial<MachineConfig>; readonly guest?: Partial<GuestConfig> } = {},
): Platform {
  return architecture.build({
    machine: { ...machine, ...change.machine },
    guest: { ...guest, ...change.guest },
    // The scenario was parsed: it is one of those that there are.
    kernel: findKernelProfile(guest.kernel) as KernelProfile,
    rng: createRng(seed),
    tracer: NO_TRACE,
  });
}

/** Machines that no platform has, and IOMMUs that it may have. */
export function checkImpossible(
  architecture: Architecture,
  scenario: Scenario,
  findings: Findings,
): void {
  const { memory } = scenario.machine;
  const impossible: [string, Parameters<typeof buildPlatform>[2]][] = [
    ['a byte of memory', { machine: { memory: 1 } }],
    ['a page and a byte too much', { machine: { memory: memory + 4097 } }],
    ['4 PiB of memory', { machine: { memory: 2 ** 52 } }],
  ];
  if (architecture.secure === undefined && !scenario.guest.secure) {
    impossible.push(['a secure guest', { guest: { secure: true } }]);
  }
  const iommus = ['intel-iommu', 'virtio-iommu', 'smmuv3'] as const;
  for (const iommu of iommus) impossible.push([iommu, { machine: { iommu } }]);
  for (const [what, change] of impossible) {
    let refusal: unknown;
    try {
      buildPlatform(architecture, scenario, change);
    } catch (error) {
      refusal = error;
    }
    const mayExist = change?.machine?.iommu !== undefined && refusal === undefined;
    findings.hold('impossible', mayExist || namesItsPath(refusal), () => {
      const found = refusal === undefined ? 'a machine' : String(refusal);
      return `${what}: expected a ModelError whose details.path is a key of machine or guest, found ${found}`;
    });
  }
}

function namesItsPath(error: unknown): boolean {
  if (!(error instanceof ModelError)) return false;
  const { path } = error.details;
  return typeof path === 'string' && /^(machine|guest)\.\w/.test(path) && error.message !== '';
}

/** System memory is where a device works without the flag, if it is let. */
export function checkPhysical(platform: Platform, where: string, findings: Findings): void {
  const { guestMemory, systemMemory } = platform;
  const out: Translation = { gpa: 0, length: 0 };
  for (const { base, size } of guestMemory.regions) {
    for (const gpa of [base, base + size - 1]) {
      const status = systemMemory.translate(hiOf(gpa), loOf(gpa), 1, DmaAccess.READ, out);
      const isThere = status === DmaStatus.OK && out.gpa === gpa;
      const isKept = systemMemory.isIdentity && (isThere || status === DmaStatus.NO_PERMISSION);
      findings.hold('physical', isKept, () => {
        return `${where}: expected system memory to show 0x${gpa.toString(16)} there, found status ${status}, 0x${out.gpa.toString(16)}`;
      });
    }
  }
}

/** A guest can send a device anywhere. */
export function checkSpaces(platform: Platform, where: string, findings: Findings): void {
  for (const space of [platform.systemMemory, platform.busSpace ?? platform.systemMemory]) {
    for (const [hi, lo] of HOSTILE) {
      for (const length of [1, 2 ** 20]) checkTranslation(platform, space, hi, lo, length);
    }
  }
  function checkTranslation(
    { guestMemory }: Platform,
    space: DmaSpace,
    hi: number,
    lo: number,
    length: number,
  ): void {
    const out: Translation = { gpa: -1, length: -1 };
    let found: string;
    try {
      space.covers(hi, lo, length);
      const status = space.translate(hi, lo, length, DmaAccess.WRITE, out);
      const isMemory =
        out.length > 0 && out.length <= length && guestMemory.isBacked(out.gpa, out.length);
      if (status === DmaStatus.OK ? isMemory : STATUSES.includes(status)) found = '';
      else found = `status ${status}, ${out.length} bytes at 0x${out.gpa.toString(16)}`;
    } catch (error) {
      found = String(error);
    }
    findings.hold('space', found === '', () => {
      const address = `${hi.toString(16)}_${lo.toString(16).padStart(8, '0')}`;
      return `${where}: ${space.name} at 0x${address}, ${length} bytes: expected memory or a fault, found ${found}`;
    });
  }
}

const STATUSES: readonly number[] = Object.values(DmaStatus);

/** Memory that both sides use at once, given back and asked for again. */
export function checkCoherent(platform: Platform, where: string, findings: Findings): void {
  const { dma, guestMemory, hypervisorMemory } = platform;
  const space = platform.busSpace ?? platform.systemMemory;
  const address: HiLo = { hi: 0, lo: 0 };
  const out: Translation = { gpa: 0, length: 0 };
  const hold = (isKept: boolean, what: string): void =>
    findings.hold('coherent', isKept, () => `${where}: ${what}`);
  for (const round of [1, 2]) {
    const gpa = dma.ops.allocCoherent(COHERENT, address);
    hold(gpa !== undefined, `no room for ${COHERENT} bytes`);
    if (gpa === undefined) return;
    const bytes = new Uint8Array(COHERENT);
    guestMemory.read(gpa, bytes);
    hold(
      bytes.every((byte) => byte === 0),
      `not zeroed, the ${round}. time`,
    );
    for (const access of [DmaAccess.READ, DmaAccess.WRITE]) {
      for (let done = 0; done < COHERENT; done += out.length) {
        const at = joinU64(address.hi, address.lo) + BigInt(done);
        const status = space.translate(hi32(at), lo32(at), COHERENT - done, access, out);
        const isThere = status === DmaStatus.OK && out.length > 0 && out.gpa === gpa + done;
        hold(isThere, `not where the device looks: byte ${done}, status ${status}`);
        if (!isThere) return;
      }
    }
    hypervisorMemory.fill(gpa, COHERENT, 0xc7);
    guestMemory.read(gpa, bytes);
    hold(
      bytes.every((byte) => byte === 0xc7),
      'what the device writes, the guest does not read',
    );
    dma.ops.freeCoherent(gpa, address.hi, address.lo, COHERENT);
  }
}

/** A page that was never shared, looked at from outside. */
export function checkPrivate(platform: Platform, where: string, findings: Findings): void {
  const { guestMemory, hypervisorMemory, observer, pages } = platform;
  findings.hold('private', observer !== undefined, () => {
    return `${where}: a secure platform has an observer: without, no run can see what is exposed`;
  });
  const run = pages.allocUser(pages.pageSize)?.[0];
  if (run === undefined) return;
  const inside = new Uint8Array(run.length).map((_, i) => i ^ 0x5a);
  guestMemory.write(run.gpa, inside);
  for (const view of [hypervisorMemory, observer ?? hypervisorMemory]) {
    const outside = new Uint8Array(run.length);
    view.read(run.gpa, outside);
    const same = outside.filter((byte, i) => byte === inside[i]).length;
    // One in 256 by chance.
    findings.hold('private', same < run.length / 16, () => {
      return `${where}: ${same} of ${run.length} bytes of a private page seen in clear`;
    });
  }
}
