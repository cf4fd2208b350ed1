/** Debian's device-tree-compiler as an oracle. */
import { execFileSync, spawnSync } from 'node:child_process';

export const hasDtc: boolean = spawnSync('dtc', ['--version']).status === 0;

/**
 * What `dtc` prints, or `undefined` when it refuses the input.
 * @throws when dtc crashes
 */
export function dtc(args: string[], input: Uint8Array | string): Uint8Array | undefined {
  const { status, stdout, error } = spawnSync('dtc', ['-q', ...args], {
    input,
    maxBuffer: 2 ** 26,
    timeout: 10_000,
  });
  if (error) throw error;
  return status === 0 ? new Uint8Array(stdout) : undefined;
}

/** The raw bytes of a property, by libfdt. */
export function fdtget(file: string, node: string, property: string): number[] {
  const text = execFileSync('fdtget', ['-t', 'bx', '--', file, node, property], {
    encoding: 'utf8',
  });
  return text
    .trim()
    .split(/\s+/)
    .filter((byte) => byte !== '')
    .map((byte) => Number.parseInt(byte, 16));
}
