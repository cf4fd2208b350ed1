import { findKernelProfile } from '@pinhole/guest';
import type { Architecture, PlatformVariant } from '../architecture.js';
import { architectures } from '../architectures/index.js';
import { MatrixError } from './errors.js';

/** The policies of the matrix: kernel profiles, as real kernels and proposals had them. */
export const MATRIX_POLICIES = [
  'linux-4.18',
  'rfc-2018',
  'rfc-2018-direct-ops',
  'always-flag',
  'linux-5.10',
  'linux-6.1',
  'linux-6.12',
  'linux-7.2',
] as const;

/** The rings: both formats, and the split one without indirect tables. */
export const MATRIX_RINGS = ['split', 'split-noindirect', 'packed'] as const;
/** One of the rings. */
export type MatrixRing = (typeof MATRIX_RINGS)[number];

/** A row of the matrix: a machine of an architecture. */
export interface MatrixPlatform {
  readonly id: string;
  /** For people: `pseries (PAPR): second window`. */
  readonly title: string;
  readonly variant: PlatformVariant;
  readonly architecture: Architecture;
}

/** One point of the matrix. */
export interface MatrixCell {
  /** `linux-6.1/pseries-ddw/flag/secure/vhost/packed`. */
  readonly id: string;
  readonly policy: string;
  readonly platform: string;
  /** `iommu_platform` of the device. */
  readonly flag: boolean;
  readonly secure: boolean;
  readonly vhost: boolean;
  readonly ring: MatrixRing;
}

/** Which cells; an axis that is left out is whole. */
export interface MatrixFilter {
  /** Architectures or machines: `pseries` is all of `pseries-pinhole`, `pseries-ddw`, ... */
  readonly platforms?: readonly string[];
  readonly policies?: readonly string[];
  readonly flag?: boolean;
  readonly secure?: boolean;
  readonly vhost?: boolean;
  readonly rings?: readonly string[];
}

/** What a two-valued axis is called in an id: first false, then true. */
const WORDS = {
  flag: ['no-flag', 'flag'],
  secure: ['normal', 'secure'],
  vhost: ['qemu', 'vhost'],
} as const;

/** An id has at most this many characters that are looked at. */
const MAX_ID = 256;

/** The machines of all architectures. */
export function matrixPlatforms(
  known: readonly Architecture[] = architectures,
): readonly MatrixPlatform[] {
  return known.flatMap((architecture) =>
    architecture.variants.map((variant) => ({
      id: variant.id,
      title: `${architecture.title}: ${variant.title}`,
      variant,
      architecture,
    })),
  );
}

/**
 * The cells of the matrix, or of a part of it, in the order of its axes: machine by machine, then
 * policy, flag, protection, data plane, ring.
 * @throws MatrixError `E_MATRIX_AXIS` when a filter names what is not on its axis.
 */
export function matrixCells(
  filter: MatrixFilter = {},
  known: readonly Architecture[] = architectures,
): readonly MatrixCell[] {
  const platforms = choosePlatforms(filter.platforms, known);
  const policies = choose('policy', MATRIX_POLICIES, filter.policies);
  const rings = choose('ring', MATRIX_RINGS, filter.rings);
  const both = (only: boolean | undefined): readonly boolean[] =>
    only === undefined ? [false, true] : [only];
  return platforms.flatMap((platform) =>
    policies.flatMap((policy) =>
      both(filter.flag).flatMap((flag) =>
        both(filter.secure)
          .filter((secure) => guestsOf(platform).includes(secure))
          .flatMap((secure) =>
            both(filter.vhost).flatMap((vhost) =>
              rings.map((ring) => makeCell(platform.id, policy, flag, secure, vhost, ring)),
            ),
          ),
      ),
    ),
  );
}

/**
 * The cell of an id.
 * @throws MatrixError `E_MATRIX_CELL` that says which part is wrong, and what is possible there.
 */
export function parseCellId(
  id: string,
  known: readonly Architecture[] = architectures,
): MatrixCell {
  const parts = id.length > MAX_ID ? [] : id.split('/');
  const [policy = '', platformId = '', flag = '', secure = '', vhost = '', ring = ''] = parts;
  if (parts.length !== 6) {
    throw new MatrixError(
      'E_MATRIX_CELL',
      `expected a cell such as linux-6.1/pseries-ddw/flag/normal/qemu/split, found ${quote(id)}`,
    );
  }
  const part = <T extends string>(what: string, found: string, of: readonly T[]): T => {
    const match = of.find((value) => value === found);
    if (match !== undefined) return match;
    throw new MatrixError(
      'E_MATRIX_CELL',
      `${quote(id)}: expected as its ${what} ${of.join(', ')}; found ${quote(found)}`,
    );
  };
  const platforms = matrixPlatforms(known);
  const policyId = part('policy', policy, MATRIX_POLICIES);
  const at = part(
    'machine',
    platformId,
    platforms.map((each) => each.id),
  );
  const platform = platforms.find((each) => each.id === at) as MatrixPlatform;
  const guests = guestsOf(platform).map((isSecure) => WORDS.secure[isSecure ? 1 : 0]);
  return makeCell(
    at,
    policyId,
    part('flag', flag, WORDS.flag) === 'flag',
    part('kind of guest', secure, guests) === 'secure',
    part('data plane', vhost, WORDS.vhost) === 'vhost',
    part('ring', ring, MATRIX_RINGS),
  );
}

function makeCell(
  platform: string,
  policy: string,
  flag: boolean,
  secure: boolean,
  vhost: boolean,
  ring: MatrixRing,
): MatrixCell {
  const words = [
    policy,
    platform,
    WORDS.flag[flag ? 1 : 0],
    WORDS.secure[secure ? 1 : 0],
    WORDS.vhost[vhost ? 1 : 0],
    ring,
  ];
  return { id: words.join('/'), policy, platform, flag, secure, vhost, ring };
}

/** Which guests a machine has: ordinary ones, secure ones; a variant may be for one kind alone. */
function guestsOf({ architecture, variant }: MatrixPlatform): readonly boolean[] {
  const only = variant.guest?.secure;
  if (typeof only === 'boolean') return [only];
  return architecture.secure === undefined ? [false] : [false, true];
}

function choosePlatforms(
  wanted: readonly string[] | undefined,
  known: readonly Architecture[],
): readonly MatrixPlatform[] {
  const all = matrixPlatforms(known);
  if (wanted === undefined) return all;
  const names = new Set([...known.map(({ id }) => id), ...all.map(({ id }) => id)]);
  checkNames('machine', [...names], wanted);
  return all.filter(({ id, architecture }) =>
    wanted.some((name) => name === id || name === architecture.id),
  );
}

function choose<T extends string>(
  axis: string,
  all: readonly T[],
  wanted: readonly string[] | undefined,
): readonly T[] {
  if (wanted === undefined) return all;
  checkNames(axis, all, wanted);
  return all.filter((value) => wanted.includes(value));
}

function checkNames(axis: string, all: readonly string[], wanted: readonly string[]): void {
  for (const name of wanted) {
    if (all.includes(name)) continue;
    throw new MatrixError(
      'E_MATRIX_AXIS',
      `${axis}: expected ${all.join(', ')}; found ${quote(name)}`,
    );
  }
}

function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
}

/** For people: what a policy is. */
export function policyTitle(policy: string): string {
  return findKernelProfile(policy)?.title ?? policy;
}
