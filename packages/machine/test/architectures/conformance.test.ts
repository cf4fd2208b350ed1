/** Every architecture of the package, held against what every architecture must keep. */
import { checkArchitecture } from '@pinhole/machine/testing';
import { describe, expect, test } from 'vitest';
import { architectures } from '../../src/architectures/index.js';

describe.each(architectures.map((architecture) => [architecture.id, architecture] as const))(
  '%s',
  (_id, architecture) => {
    const checks = checkArchitecture(architecture);
    test.each(checks.map((check) => [check.name, check] as const))('%s', (_name, check) => {
      expect(check.ok, check.detail).toBe(true);
    });
  },
);

test.each([
  // It knows no grants as bus addresses, and the backend nothing else: no device ever works, so that
  // there is nothing to hold against what such a device must keep.
  ['linux-4.18', ['works', 'stray', 'balance', 'coherent'].map((rule) => `xen-grants ${rule}`)],
  // The leak that its recordings show.
  ['linux-7.2', ['pseries-ddw-lost balance']],
])('%s: what breaks a rule is what that kernel gets wrong', (kernel, expected) => {
  const broken = architectures.flatMap((architecture) =>
    checkArchitecture(architecture, { kernel, seed: 3 })
      .filter(({ ok }) => !ok)
      .map(({ rule, name }) => `${name.split(':')[0]} ${rule}`),
  );
  expect(broken).toEqual(expected);
});
