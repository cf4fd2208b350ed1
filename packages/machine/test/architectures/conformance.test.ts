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
