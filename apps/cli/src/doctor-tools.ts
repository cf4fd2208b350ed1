import { spawn } from 'node:child_process';
import { QEMU_PROFILES } from '@pinhole/hcall';
import type { Check } from './doctor-checks.js';

/** How long a program may take to say its version, and how much it may say. */
const ASK_MS = 4_000;
const ASK_BYTES = 65_536;

interface Tool {
  /** Names that it can have; the first is the usual one. */
  readonly programs: readonly [string, ...string[]];
  readonly version: RegExp;
  readonly purpose: string;
  readonly fix: string;
  /** What to say of a version, if anything. */
  readonly limit?: (version: string) => string | undefined;
}

const FOLLOWED: readonly string[] = QEMU_PROFILES.map(({ id }) => id);

const TOOLS: readonly Tool[] = [
  {
    programs: ['qemu-system-ppc64'],
    version: /QEMU emulator version (\d+\.\d+[\d.]*)/,
    purpose: 'pinhole conform, which compares the model with it',
    fix: 'Debian and Ubuntu: apt-get install qemu-system-ppc; Fedora: dnf install qemu-system-ppc',
    limit: (version) =>
      FOLLOWED.some((followed) => version.startsWith(`${followed}.`))
        ? undefined
        : `the model follows ${FOLLOWED.join(' and ')}: a difference that conform finds may be QEMU's`,
  },
  {
    programs: ['dtc'],
    version: /DTC v?(\d+\.\d+[\d.]*)/,
    purpose: "the source's tests of device trees, which compare with it",
    fix: 'Debian and Ubuntu: apt-get install device-tree-compiler; Fedora: dnf install dtc',
  },
  {
    programs: ['chromium', 'chromium-browser', 'google-chrome'],
    version: /(?:Chromium|Chrome) (\d+\.\d+[\d.]*)/,
    purpose: "the source's tests of HTML pages; any browser shows them",
    fix: 'Debian: apt-get install chromium; Fedora: dnf install chromium',
  },
];

/** The programs that more can be done with, asked for their versions at once. */
export function toolChecks(env: NodeJS.ProcessEnv = process.env): Promise<Check[]> {
  return Promise.all(TOOLS.map((tool) => checkTool(tool, env)));
}

async function checkTool(tool: Tool, env: NodeJS.ProcessEnv): Promise<Check> {
  const { programs, purpose, fix } = tool;
  const rest = { name: programs[0], isRequired: false, purpose } as const;
  let problem = 'not found in the PATH';
  for (const program of programs) {
    const { said, failure } = await ask(program, env);
    const version = tool.version.exec(said)?.[1];
    if (version === undefined) {
      if (failure !== 'ENOENT') problem = `${program} --version: ${failure ?? describe(said)}`;
      continue;
    }
    const limit = tool.limit?.(version);
    const found = limit === undefined ? version : `${version}; ${limit}`;
    return { ...rest, status: limit === undefined ? 'ok' : 'warning', found, fix: null };
  }
  return { ...rest, status: 'missing', found: problem, fix };
}

function describe(said: string): string {
  const line = said.trim().split('\n', 1)[0] ?? '';
  return line === '' ? 'said nothing' : `said ${JSON.stringify(line.slice(0, 60))}`;
}

// It and what it started are killed when it takes too long or says too much.
function ask(program: string, env: NodeJS.ProcessEnv): Promise<{ said: string; failure?: string }> {
  return new Promise((resolve) => {
    const isGroup = process.platform !== 'win32';
    const child = spawn(program, ['--version'], {
      stdio: ['ignore', 'pipe', 'ignore'],
      detached: isGroup,
      env,
    });
    let said = '';
    const end = (failure?: string): void => {
      clearTimeout(timer);
      kill(isGroup, child.pid);
      child.stdout.destroy();
      child.unref();
      resolve(failure === undefined ? { said } : { said, failure });
    };
    const timer = setTimeout(() => end(`no answer in ${ASK_MS / 1000} s`), ASK_MS);
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      if (said.length > ASK_BYTES) end('too long an answer');
    });
    child.on('error', (error: NodeJS.ErrnoException) => end(error.code ?? error.message));
    child.on('close', () => end());
  });
}

function kill(isGroup: boolean, pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(isGroup ? -pid : pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}
