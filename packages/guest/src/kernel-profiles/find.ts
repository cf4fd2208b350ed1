import {
  alwaysFlag,
  linux54,
  linux61,
  linux72,
  linux418,
  linux510,
  linux612,
  linux6120,
  rfc2018,
  rfc2018DirectOps,
} from './linux.js';
import type { KernelProfile } from './types.js';

/** All kernels, oldest first. */
export const KERNEL_PROFILES: readonly KernelProfile[] = [
  linux418,
  rfc2018,
  rfc2018DirectOps,
  alwaysFlag,
  linux54,
  linux510,
  linux61,
  linux6120,
  linux612,
  linux72,
];

/** The profile with this id, or undefined. */
export function findKernelProfile(id: string): KernelProfile | undefined {
  return KERNEL_PROFILES.find((profile) => profile.id === id);
}

/**
 * The profile for a release as `uname -r` gives it: the newest that is not newer. 5.15 and later 5.x
 * are like 6.1 in all that profiles say; 6.2 to 6.11 are taken for 6.1, 6.13 to 6.19 for 6.12.y.
 * @returns undefined for a release before 4.8, or text that is none.
 */
export function kernelProfileForRelease(release: string): KernelProfile | undefined {
  const match = /^\s*(?:[Ll]inux(?: version)?[ -])?v?(\d+)\.(\d+)(?:\.(\d+))?/.exec(release);
  if (match === null) return undefined;
  const wanted = match.slice(1).map((part) => Number(part ?? 0));
  return KERNEL_PROFILES.filter(({ since }) => since !== undefined && !isBefore(wanted, since)).at(
    -1,
  );
}

function isBefore(a: readonly number[], b: readonly number[]): boolean {
  for (let i = 0; i < b.length; i += 1) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}
