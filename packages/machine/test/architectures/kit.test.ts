/** The conformance kit can fail: each architecture here breaks one rule, and exactly that check fails. */
import { createRng, invariant, ModelError } from '@pinhole/base';
import { GuestPages } from '@pinhole/guest';
import {
  type Architecture,
  architectures,
  type Platform,
  type PlatformOptions,
} from '@pinhole/machine';
import { checkArchitecture, RULES, type Rule } from '@pinhole/machine/testing';
import { DmaDirection, type DmaOps, DmaStatus } from '@pinhole/memory';
import {
  connectPciInterrupts,
  createPciTransport,
  createVirtioPci,
  hasFeature,
  VIRTIO_F_ACCESS_PLATFORM,
} from '@pinhole/virtio';
import { describe, expect, test } from 'vitest';
import { banked } from './toy-arch/banked.js';

type Spoil = (platform: Platform, options: PlatformOptions) => Partial<Platform>;

const one = (architecture: Architecture, id: string): Architecture => ({
  ...architecture,
  variants: architecture.variants.filter((variant) => variant.id === id),
});
const toy = one(banked, 'banked');
const pseries = architectures.find(({ id }) => id === 'pseries') as Architecture;
const ddw = one(pseries, 'pseries-ddw');

const spoil = (architecture: Architecture, how: Spoil): Architecture => ({
  ...architecture,
  build: (options) => {
    const platform = architecture.build(options);
    return { ...platform, ...how(platform, options) };
  },
});

const spoilSecure = (architecture: Architecture, how: Spoil): Architecture =>
  spoil(architecture, (platform, options) => (options.guest.secure ? how(platform, options) : {}));

const withOps = (platform: Platform, ops: Partial<DmaOps>): Partial<Platform> => ({
  dma: { ...platform.dma, ops: wrapOps(platform.dma.ops, ops) },
});

function wrapOps(ops: DmaOps, own: Partial<DmaOps>): DmaOps {
  return {
    name: ops.name,
    maxMappingSize: ops.maxMappingSize,
    map: (...args) => ops.map(...args),
    unmap: (...args) => ops.unmap(...args),
    allocCoherent: (...args) => ops.allocCoherent(...args),
    freeCoherent: (...args) => ops.freeCoherent(...args),
    ...own,
  };
}

const withSpace = (
  platform: Platform,
  translate: NonNullable<Platform['busSpace']>['translate'],
): Partial<Platform> => {
  const space = platform.busSpace;
  invariant(space !== undefined, 'the toy has a bus');
  return {
    busSpace: { name: space.name, isIdentity: false, translate, covers: space.covers },
  };
};

const counting = (change: (n: number) => Partial<ReturnType<Platform['counters']>>): Spoil => {
  return (platform) => {
    let n = 0;
    return {
      counters: () => {
        n += 1;
        return { ...platform.counters(), ...change(n) };
      },
    };
  };
};

/** Builds, but if it cannot, does something else. */
const instead = (
  otherwise: (error: Error, options: PlatformOptions) => Platform,
): Architecture => ({
  ...toy,
  build: (options) => {
    try {
      return toy.build(options);
    } catch (error) {
      return otherwise(error as Error, options);
    }
  },
});

let builds = 0;

const SABOTAGE: readonly (readonly [Rule, string, Architecture])[] = [
  ['declares', 'a variant of another name', { ...toy, variants: [{ id: 'x', title: 'x' }] }],
  [
    'impossible',
    'throws another error',
    instead((error) => {
      throw new RangeError(error.message);
    }),
  ],
  [
    'impossible',
    'does not say where',
    instead((error) => {
      throw new ModelError('E_MACHINE', error.message);
    }),
  ],
  [
    'impossible',
    'builds it all the same',
    instead((_error, options) => {
      const guest = { ...options.guest, secure: false };
      const machine = { ...options.machine, memory: 2 ** 28, iommu: 'none' as const };
      return toy.build({ ...options, guest, machine });
    }),
  ],
  [
    'answers',
    'throws when a device without the flag is plugged in',
    spoil(toy, () => ({
      connect: (core) => {
        if (!hasFeature(core.offeredFeatures, VIRTIO_F_ACCESS_PLATFORM)) throw new Error('no');
        const fn = createVirtioPci({ device: core, mode: 'modern', name: '0000:00:01.0' });
        const plugged = createPciTransport(fn, { interrupts: connectPciInterrupts(fn) });
        invariant(plugged.ok, 'the function is a virtio function');
        return plugged.transport;
      },
    })),
  ],
  [
    'works',
    'the ring of a device without the flag lies at 0, which is no ring',
    spoil(toy, () => ({
      pages: new GuestPages({
        pageSize: 4096,
        kernel: { base: 0, size: 2 ** 20 },
        user: { base: 2 ** 27, size: 2 ** 27 },
        rng: createRng(1),
      }),
    })),
  ],
  [
    'data',
    'a byte of each buffer of a secure guest is lost, and nothing tells',
    spoilSecure(ddw, (platform) => {
      const { ops } = platform.dma;
      const buffers = new Map<string, number>();
      return withOps(platform, {
        map: (gpa, length, direction, out) => {
          const isMapped = ops.map(gpa, length, direction, out);
          buffers.set(`${out.hi}:${out.lo}`, gpa);
          return isMapped;
        },
        unmap: (hi, lo, length, direction) => {
          ops.unmap(hi, lo, length, direction);
          const gpa = buffers.get(`${hi}:${lo}`);
          if (gpa === undefined || length < 512 || direction !== DmaDirection.FROM_DEVICE) return;
          platform.guestMemory.writeU8(gpa, platform.guestMemory.readU8(gpa) ^ 1);
        },
      });
    }),
  ],
  [
    'stray',
    'bounces, and does not say so',
    spoilSecure(ddw, (platform) => ({
      dma: { ...platform.dma, isBounced: false },
      bouncePool: { base: 0, size: 0 },
    })),
  ],
  [
    'balance',
    'unmaps nothing',
    spoil(one(pseries, 'pseries-pinhole'), (platform) => withOps(platform, { unmap: () => {} })),
  ],
  [
    'balance',
    'counts a map too much',
    spoil(
      toy,
      counting((n) => ({ iommu: { maps: n, unmaps: 0, commands: 0 } })),
    ),
  ],
  [
    'private',
    'private memory can be looked into',
    spoilSecure(ddw, ({ guestMemory }) => ({ observer: guestMemory })),
  ],
  [
    'private',
    'the hypervisor has memory as the guest sees it',
    spoilSecure(ddw, ({ guestMemory }) => ({ hypervisorMemory: guestMemory })),
  ],
  [
    'coherent',
    'much coherent memory is not zeroed',
    spoil(toy, (platform) =>
      withOps(platform, {
        allocCoherent: (length, out) => {
          const gpa = platform.dma.ops.allocCoherent(length, out);
          if (gpa !== undefined && length > 65_536) platform.guestMemory.writeU8(gpa, 1);
          return gpa;
        },
      }),
    ),
  ],
  [
    'coherent',
    'much coherent memory is not where the device looks',
    spoil(toy, (platform) =>
      withOps(platform, {
        allocCoherent: (length, out) => {
          const gpa = platform.dma.ops.allocCoherent(length, out);
          if (length > 65_536) out.lo += 4096;
          return gpa;
        },
      }),
    ),
  ],
  [
    'physical',
    'system memory is not said to be guest-physical',
    spoil(toy, ({ systemMemory }) => ({
      systemMemory: {
        name: systemMemory.name,
        isIdentity: false,
        translate: (...args) => systemMemory.translate(...args),
        covers: (...args) => systemMemory.covers(...args),
      },
    })),
  ],
  [
    'space',
    'finds memory at the end of the bus',
    spoil(toy, (platform) =>
      withSpace(platform, (hi, lo, length, access, out) => {
        if (hi < 2 ** 31) return platform.busSpace!.translate(hi, lo, length, access, out);
        out.gpa = -1;
        out.length = length;
        return DmaStatus.OK;
      }),
    ),
  ],
  [
    'space',
    'throws for an address above all memory',
    spoil(toy, (platform) =>
      withSpace(platform, (hi, lo, length, access, out) => {
        invariant(hi < 2 ** 21, 'an address of memory');
        return platform.busSpace!.translate(hi, lo, length, access, out);
      }),
    ),
  ],
  [
    'counters',
    'one falls',
    spoil(
      toy,
      counting((n) => ({ translations: 1000 - n })),
    ),
  ],
  [
    'counters',
    'one is no number',
    spoil(
      toy,
      counting(() => ({ bytesBounced: Number.NaN })),
    ),
  ],
  [
    'counters',
    'a hypercall is forgotten',
    spoil(
      toy,
      counting((n) => ({ hcalls: n === 1 ? { H_PUT_TCE: 1 } : {} })),
    ),
  ],
  [
    'counters',
    'more entries than ever',
    spoil(
      toy,
      counting(() => ({ tcesLive: 1 })),
    ),
  ],
  [
    'reach',
    'more than there is',
    spoil(toy, () => ({ reach: () => ({ addressable: 2 ** 29, plaintext: 0 }) })),
  ],
  [
    'reach',
    'more in clear than at all',
    spoil(toy, () => ({ reach: () => ({ addressable: 0, plaintext: 4096 }) })),
  ],
  [
    'repeats',
    'no two machines trace alike',
    spoil(toy, (_platform, { tracer }) => {
      builds += 1;
      tracer.event('guest', 'guest_boot', { build: builds });
      return {};
    }),
  ],
];

describe('each check can fail, and no other does', () => {
  test.each(SABOTAGE)('%s: %s', (rule, _what, architecture) => {
    const failed = checkArchitecture(architecture).filter(({ ok }) => !ok);
    expect(failed.map((check) => check.rule)).toEqual([rule]);
    expect(failed[0]?.detail).not.toMatch(/^looked/);
  });

  test('every rule is broken by one of them', () => {
    expect([...new Set(SABOTAGE.map(([rule]) => rule))].sort()).toEqual(Object.keys(RULES).sort());
  });
});

test('what it was made from keeps them all', () => {
  for (const architecture of [toy, ddw]) {
    expect(checkArchitecture(architecture).filter(({ ok }) => !ok)).toEqual([]);
  }
});

describe('a variant that is secure by itself', () => {
  const secureOnly = (architecture: Architecture): Architecture => ({
    ...architecture,
    variants: architecture.variants.map((variant) => ({ ...variant, guest: { secure: true } })),
  });
  const failing = (architecture: Architecture): Rule[] =>
    checkArchitecture(architecture)
      .filter(({ ok }) => !ok)
      .map(({ rule }) => rule);

  test('need not work with every device: on POWER one without the flag hangs', () => {
    const checks = checkArchitecture(secureOnly(ddw));
    expect(checks.filter(({ ok }) => !ok)).toEqual([]);
    const ordinary: Rule[] = ['works', 'coherent'];
    expect(checks.map(({ rule }) => rule)).toEqual(
      Object.keys(RULES).filter((rule) => !ordinary.includes(rule as Rule)),
    );
  });

  test('has to hide what is private, and its architecture to say how', () => {
    const open = spoilSecure(ddw, ({ guestMemory }) => ({ observer: guestMemory }));
    const { secure, ...unsaid } = secureOnly(open);
    expect(secure).toBe('PEF');
    expect(failing(unsaid)).toEqual(['declares', 'private']);
    expect(failing({ ...unsaid, secure: 'PEF' })).toEqual(['private']);
  });
});

test('other seeds and kernels: 7.2 leaks what it maps, and the kit sees it', () => {
  const lost = one(pseries, 'pseries-ddw-lost');
  const failed = checkArchitecture(lost, { kernel: 'linux-7.2', seed: 7 }).filter(({ ok }) => !ok);
  expect(failed.map(({ rule }) => rule)).toEqual(['balance']);
});

test('nothing is thrown, however broken', () => {
  const broken: Architecture = {
    ...toy,
    build: () => {
      throw new TypeError('not a function');
    },
  };
  const noMachine = { ...toy, variants: [{ id: 'banked', title: 'x', machine: { memory: 1n } }] };
  const failing = (architecture: Architecture): Rule[] =>
    checkArchitecture(architecture)
      .filter(({ ok }) => !ok)
      .map(({ rule }) => rule);
  expect(failing({ ...toy, variants: [] })).toEqual(['declares']);
  expect(failing(noMachine)).toContain('declares');
  expect(failing(broken)).toEqual(Object.keys(RULES).filter((rule) => isOfRuns(rule as Rule)));
});

/** Those that a machine must be built for. */
function isOfRuns(rule: Rule): boolean {
  return !['declares', 'private'].includes(rule);
}
