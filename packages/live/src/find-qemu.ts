import { spawnSync } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { LiveError } from './errors.js';
import { QEMU_MIN } from './params.js';

const INSTALL = 'Debian and Ubuntu have it in the package qemu-system-ppc';
const WANTED = `expected QEMU for ppc64, qemu-system-ppc64, ${QEMU_MIN.join('.')} or newer`;
/** How long a program may take to say what it is. */
const ASK_MS = 5_000;

/**
 * The path of an executable file: as it stands when it has a slash, otherwise from the PATH.
 * @throws LiveError `E_QEMU_MISSING`.
 */
export function findQemu(program: string, path: string = process.env.PATH ?? ''): string {
  const folders = path.split(delimiter).filter((folder) => folder !== '');
  const candidates = program.includes('/') ? [program] : folders.map((f) => join(f, program));
  const found = candidates.find(isExecutable);
  if (found !== undefined) return found;
  const where = program.includes('/') ? 'no executable file is there' : 'the PATH has none';
  throw new LiveError('E_QEMU_MISSING', `${WANTED}, as "${program}", but ${where}; ${INSTALL}`, {
    details: { program },
  });
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** @throws LiveError `E_QEMU_VERSION` when the version is too old. */
export function checkVersion(qemu: string, version: readonly [number, number, ...number[]]): void {
  const [major, minor] = version;
  if (major > QEMU_MIN[0] || (major === QEMU_MIN[0] && minor >= QEMU_MIN[1])) return;
  const found = version.join('.');
  throw new LiveError('E_QEMU_VERSION', `${WANTED}; ${qemu} is version ${found}`, {
    details: { qemu, version: found },
  });
}

/**
 * Looks for the reason why a program that was started as QEMU ended at once: is it one, and new
 * enough, and does it have the machine? Returns when all that is so.
 * @throws LiveError `E_QEMU_NOT_PPC` or `E_QEMU_VERSION`.
 */
export function explainRefusal(qemu: string): void {
  const said = ask(qemu, ['--version']);
  const version = /QEMU emulator version (\d+)\.(\d+)\.?(\d*)/.exec(said);
  if (version === null) {
    const line = said.split('\n', 1)[0] ?? '';
    const what = line === '' ? 'says nothing' : `says "${line.slice(0, 80)}"`;
    throw new LiveError('E_QEMU_NOT_PPC', `${WANTED}; asked for its version, ${qemu} ${what}`, {
      details: { qemu },
    });
  }
  checkVersion(qemu, [Number(version[1]), Number(version[2]), Number(version[3])]);
  if (/^pseries\b/m.test(ask(qemu, ['-machine', 'help']))) return;
  throw new LiveError(
    'E_QEMU_NOT_PPC',
    `${WANTED}; ${qemu} is a QEMU without the pseries machine`,
    {
      details: { qemu },
    },
  );
}

function ask(program: string, args: readonly string[]): string {
  const { stdout } = spawnSync(program, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
    timeout: ASK_MS,
    killSignal: 'SIGKILL',
  });
  // Null, whatever the type says, when the program could not be started.
  return (stdout as string | null) ?? '';
}
