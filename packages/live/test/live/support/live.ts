import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { describe } from 'vitest';

const given = process.env.PINHOLE_QEMU;

/** The QEMU under test: the environment's PINHOLE_QEMU, or the one in the PATH. */
export const QEMU: string = given ?? 'qemu-system-ppc64';

const isThere = (folder: string): boolean => {
  try {
    accessSync(join(folder, QEMU), constants.X_OK);
    return existsSync(join(folder, QEMU));
  } catch {
    return false;
  }
};

// One that was asked for and is not there is a failure.
const isMissing = given === undefined && !(process.env.PATH ?? '').split(delimiter).some(isThere);
if (isMissing) {
  process.stderr.write(`${QEMU} was not found: the live suite is skipped (set PINHOLE_QEMU)\n`);
}

/** `describe` where there is a QEMU; elsewhere its tests are skipped. */
export const describeLive: ReturnType<typeof describe.skipIf> = describe.skipIf(isMissing);
