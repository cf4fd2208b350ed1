/** Debian's device-tree-compiler as an oracle. */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';

/** Whether the oracle is here: tests that need it are skipped where it is not. */
export const hasDtc: boolean = run('dtc', ['--version']).status === 0;

/** dtc died of the input: it has not judged it. */
export class DtcCrash extends Error {}

/**
 * What `dtc` prints, or `undefined` when it refuses the input.
 * @throws DtcCrash
 */
export function dtc(args: string[], input: Uint8Array | string): Uint8Array | undefined {
  const { status, stdout, error, signal } = run('dtc', ['-q', ...args], input);
  if (error) throw error;
  if (signal) throw new DtcCrash(signal);
  return status === 0 ? new Uint8Array(stdout) : undefined;
}

/** The raw bytes of a property, by libfdt. */
export function fdtget(file: string, node: string, property: string): number[] {
  const { status, stdout, stderr } = run('fdtget', ['-t', 'bx', '--', file, node, property]);
  if (status !== 0) throw new Error(stderr.toString());
  const bytes = stdout.toString().match(/[0-9a-f]+/g) ?? [];
  return bytes.map((byte) => Number.parseInt(byte, 16));
}

function run(
  program: string,
  args: string[],
  input: Uint8Array | string = '',
): SpawnSyncReturns<Buffer> {
  return spawnSync(program, args, { input, maxBuffer: 2 ** 26, timeout: 10_000 });
}
