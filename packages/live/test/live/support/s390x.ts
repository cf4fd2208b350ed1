import { describe } from 'vitest';
import { findQemu } from '../../../src/find-qemu.js';

/** The QEMU for s390x: the environment's PINHOLE_QEMU_S390X, or the one in the PATH. */
const given = process.env.PINHOLE_QEMU_S390X;
export const QEMU_S390X: string = given ?? 'qemu-system-s390x';

// One that was asked for and is not there is a failure.
const isMissing = given === undefined && !isThere();
if (isMissing) {
  process.stderr.write(
    `${QEMU_S390X} was not found: tests of channel I/O are skipped (Debian's qemu-system-s390x; in 12, qemu-system-misc)\n`,
  );
}

function isThere(): boolean {
  try {
    findQemu(QEMU_S390X);
    return true;
  } catch {
    return false;
  }
}

/** `describe` where there is a QEMU for s390x; elsewhere its tests are skipped. */
export const describeS390x: ReturnType<typeof describe.skipIf> = describe.skipIf(isMissing);
