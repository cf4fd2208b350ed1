/** `pinhole sweep` and `pinhole merge`, as a user runs them. */
import { spawn } from 'node:child_process';
import { appendFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sweepChecksum, sweepRowLine } from '@pinhole/machine';
import { parquetReadObjects } from 'hyparquet';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { createProgram } from '../../src/program.js';
import {
  type Ended,
  PROGRAM,
  pinhole as pinholeProcess,
  scenario,
  scratchFolder,
} from '../pinhole.js';

const folder = scratchFolder();
const at = (name: string): string => join(folder, name);
const FILE = at('small.yaml');
writeFileSync(FILE, scenario());
const SETS = [
  ...['--set', 'machine.memory=1GiB..4GiB'],
  ...['--set', 'devices[0].iommuPlatform=true,false'],
];

/** The same in this process, where starting one would take most of the time. */
async function pinhole(args: readonly string[]): Promise<Ended> {
  const said = { stdout: '', stderr: '' };
  const [stdout, stderr] = (['stdout', 'stderr'] as const).map((name) =>
    vi.spyOn(process[name], 'write').mockImplementation((text) => {
      said[name] += text.toString();
      return true;
    }),
  );
  const before = process.exitCode;
  process.exitCode = 0;
  let code: number;
  try {
    await createProgram().parseAsync(args, { from: 'user' });
    code = Number(process.exitCode);
  } catch (error) {
    code = 2;
    said.stderr += `pinhole: ${error instanceof Error ? error.message : String(error)}\n`;
  } finally {
    process.exitCode = before;
    stdout?.mockRestore();
    stderr?.mockRestore();
  }
  return { code, ...said };
}

const sweep = (...args: string[]): Promise<Ended> => pinhole(['sweep', FILE, ...SETS, ...args]);

/** All points, in one go. */
const whole = at('whole.ndjson');
let first: Ended;
let wholeText: string;
let rows: Record<string, string | number | null>[];

beforeAll(async () => {
  first = await sweep('--format', 'ndjson', '--output', whole);
  wholeText = readFileSync(whole, 'utf8');
  rows = wholeText
    .trimEnd()
    .split('\n')
    .slice(1)
    .map((line) => {
      const { crc32: _, ...row } = JSON.parse(line) as Record<string, string | number | null>;
      return row;
    });
});

test('every combination has its row: counts, times, what dominates', async () => {
  expect([first.code, first.stdout, first.stderr]).toEqual([0, '', `wrote ${whole}\n`]);
  expect(
    rows.map((row) => [row.point, row['machine.memory'], row['devices[0].iommuPlatform']]),
  ).toEqual([
    [0, '1GiB', 'true'],
    [1, '1GiB', 'false'],
    [2, '2GiB', 'true'],
    [3, '2GiB', 'false'],
    [4, '4GiB', 'true'],
    [5, '4GiB', 'false'],
  ]);
  for (const row of rows) {
    const isOn = row['devices[0].iommuPlatform'] === 'true';
    expect(row).toMatchObject({
      outcome: isOn ? 'works-slow' : 'works',
      requests: 4,
      hcallsPerRequest: isOn ? 8 : 0,
      kicksPerRequest: 1,
      error: null,
    });
    if (!isOn) expect(row.throughputMid).toBe(1);
    else expect(row.throughputMid).toBeLessThan(1);
  }
});

describe('resume', () => {
  const begun = (name: string, change: (path: string) => void): string => {
    const path = at(name);
    writeFileSync(path, wholeText);
    change(path);
    return path;
  };

  test.each([
    ['in the middle of a line', (path: string) => truncateSync(path, wholeText.length - 40)],
    ['in the middle of the first line', (path: string) => truncateSync(path, 30)],
    ['before anything', (path: string) => truncateSync(path, 0)],
    [
      'after two points',
      (path: string) =>
        writeFileSync(path, wholeText.split('\n').slice(0, 3).concat('').join('\n')),
    ],
  ])('a file that was cut %s becomes the whole file', async (name, change) => {
    const path = begun(`cut-${name.length}.ndjson`, change);
    const { code } = await sweep('--format', 'ndjson', '--output', path);
    expect(code).toBe(0);
    expect(readFileSync(path, 'utf8')).toBe(wholeText);
  });

  test('a whole file is left as it is, and nothing is run', async () => {
    const path = begun('same.ndjson', () => undefined);
    const { code, stderr } = await sweep('--format', 'ndjson', '--output', path);
    expect(code).toBe(0);
    expect(stderr).toContain('has 6 points already');
    expect(readFileSync(path, 'utf8')).toBe(wholeText);
  });

  test('rows that are there are kept, not run again', async () => {
    const [head = '', row = '', ...others] = wholeText.split('\n');
    const { crc32: _, ...columns } = JSON.parse(row);
    const sweepOf = sweepChecksum(JSON.parse(head).sweep);
    const other = sweepRowLine({ ...columns, requests: 4444 }, sweepOf).trimEnd();
    const marked = [head, other, ...others].join('\n');
    const path = begun('marked.ndjson', (name) => writeFileSync(name, marked.slice(0, -50)));
    expect((await sweep('--format', 'ndjson', '--output', path)).code).toBe(0);
    expect(readFileSync(path, 'utf8')).toBe(marked);
  });

  test('a row that was edited is refused with its line, and the file left alone', async () => {
    const edited = wholeText.replace('"hcallsPerRequest":8', '"hcallsPerRequest":1');
    const path = begun('edited.ndjson', (name) => writeFileSync(name, edited.slice(0, -50)));
    const { code, stderr, stdout } = await sweep('--format', 'ndjson', '--output', path);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain(`${path}:2:1: damaged or edited: `);
    expect(readFileSync(path, 'utf8')).toBe(edited.slice(0, -50));
    // What the message says to do.
    writeFileSync(path, edited.split('\n').toSpliced(1, 1).join('\n'));
    expect((await sweep('--format', 'ndjson', '--output', path)).code).toBe(0);
    expect((await pinhole(['merge', path])).stdout).toBe(wholeText);
  });

  test.each([
    ['other values', ['--set', 'seed=1,2'], 'axes: expected'],
    ['another setting', ['--set', 'guest.kernel=linux-6.1'], 'scenario, settings, disk or seed'],
    ['another seed', ['--seed', '7'], 'scenario, settings, disk or seed'],
    ['other constants', ['--costs', 'power9-tcg'], 'costs: expected power9-tcg'],
    ['a shard', ['--shard', '1/2'], 'shard: expected 1/2, found none'],
  ])('a file of another sweep is refused and left alone: %s', async (name, args, message) => {
    const path = begun(`other-${name.length}.ndjson`, () => undefined);
    const { code, stderr, stdout } = await sweep('--format', 'ndjson', '--output', path, ...args);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain(`${path}:1:1: a file of another sweep: `);
    expect(stderr).toContain(message);
    expect(readFileSync(path, 'utf8')).toBe(wholeText);
  });

  test('a file that is no sweep is refused and left alone', async () => {
    const path = at('notes.txt');
    writeFileSync(path, 'my notes\n');
    const { code, stderr } = await sweep('--format', 'ndjson', '--output', path);
    expect(code).toBe(2);
    expect(stderr).toContain(`${path}:1:1: expected a line of JSON, found "my notes"`);
    expect(readFileSync(path, 'utf8')).toBe('my notes\n');
  });

  test('Ctrl-C keeps what is done, says so, ends with 130; the same command ends the work', async () => {
    const path = at('interrupted.ndjson');
    const args = [
      'sweep',
      FILE,
      '--set',
      'devices[0].queues=1..16',
      '--format',
      'ndjson',
      '--output',
      path,
    ];
    const [node = '', main = ''] = PROGRAM;
    const child = spawn(node, [main, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
    let stderr = '';
    child.stderr.on('data', (piece: Buffer) => {
      stderr += piece.toString();
    });
    const lines = (): number => {
      try {
        return readFileSync(path, 'utf8').split('\n').length - 1;
      } catch {
        return 0;
      }
    };
    await expect.poll(lines, { timeout: 30_000, interval: 20 }).toBeGreaterThan(2);
    child.kill('SIGINT');
    const code = await new Promise((resolve) => child.on('close', resolve));
    expect(code).toBe(130);
    const done = lines() - 1;
    expect(done).toBeLessThan(16);
    expect(stderr).toContain(`interrupted after ${done} of 16 points; the same command goes on`);
    const again = pinholeProcess(args);
    expect(again.code).toBe(0);
    expect(again.stderr).toContain(`has ${done} points already`);
    expect(lines()).toBe(17);
  });
});

describe('shards', () => {
  const parts = [1, 2, 3].map((index) => at(`part-${index}.ndjson`));
  beforeAll(async () => {
    for (const [i, path] of parts.entries()) {
      await sweep('--format', 'ndjson', '--output', path, '--shard', `${i + 1}/3`);
    }
  });

  test('merged, in any order, are the whole sweep, byte for byte', async () => {
    const [one = '', two = '', three = ''] = parts;
    const merged = at('merged.ndjson');
    const { code, stderr } = await pinhole(['merge', three, one, two, '--output', merged]);
    expect([code, stderr]).toEqual([0, `wrote ${merged}\n`]);
    expect(readFileSync(merged, 'utf8')).toBe(wholeText);
    expect((await pinhole(['merge', one, two, three])).stdout).toBe(wholeText);
  });

  test('what is missing is said', async () => {
    const [one = '', two = ''] = parts;
    const { code, stderr } = await pinhole(['merge', one, two]);
    expect([code, stderr]).toEqual([2, 'pinhole: expected all shards, found no 3/3\n']);
    const cut = at('part-cut.ndjson');
    writeFileSync(cut, readFileSync(parts[2] ?? '', 'utf8').slice(0, -20));
    expect((await pinhole(['merge', one, two, cut])).stderr).toContain(
      `${cut}: expected 2 points, found 1: point 5 is the first that is missing`,
    );
    writeFileSync(
      cut,
      readFileSync(parts[2] ?? '', 'utf8').replace('"requests":4', '"requests":5'),
    );
    expect((await pinhole(['merge', one, two, cut])).stderr).toContain(
      `${cut}:2:1: damaged or edited: `,
    );
    expect((await pinhole(['merge', one, two, at('none')])).stderr).toContain(
      'expected a file of a sweep',
    );
  });
});

describe('formats', () => {
  test('CSV has a line for each point, and quotes what needs it', async () => {
    const { stdout } = await pinhole(['merge', whole, '--format', 'csv']);
    const [head, ...lines] = stdout.trimEnd().split('\r\n');
    expect(
      head?.startsWith('point,machine.memory,devices[0].iommuPlatform,outcome,requests,'),
    ).toBe(true);
    expect(lines).toHaveLength(6);
    expect(lines[1]?.startsWith('1,1GiB,false,works,4,0,')).toBe(true);
    const quoted = await pinhole([
      ...['sweep', FILE, '--set', `guest.cmdline='a,b',"quiet"`, '--format', 'csv'],
    ]);
    expect(quoted.stdout.split('\r\n')[1]).toContain(`0,"'a,b'",`);
  });

  test('Parquet read back is the rows', async () => {
    const file = at('rows.parquet');
    const { code } = await pinhole(['merge', whole, '--format', 'parquet', '--output', file]);
    expect(code).toBe(0);
    const bytes = readFileSync(file);
    const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
    const read = await parquetReadObjects({ file: buffer });
    expect(
      read.map((row) =>
        Object.fromEntries(Object.entries(row).map(([name, value]) => [name, value ?? null])),
      ),
    ).toEqual(rows);
  });

  test('the table fits, and says that counts are exact and times are not', async () => {
    vi.stubEnv('COLUMNS', '100');
    const { stdout } = await pinhole(['merge', whole, '--format', 'table']);
    vi.unstubAllEnvs();
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
    expect(stdout).toContain('│ 1GiB');
    expect(stdout).toContain('Counts are exact');
  });

  test('the chart has a line for each combination of the other axes', async () => {
    const file = at('chart.svg');
    const made = await pinhole([
      'merge',
      whole,
      '--format',
      'csv',
      '--output',
      at('x.csv'),
      '--chart',
      file,
    ]);
    expect(made.code).toBe(0);
    const svg = readFileSync(file, 'utf8');
    expect(svg).toContain('Time of a request (estimate) by machine.memory');
    for (const text of ['iommuPlatform true', 'iommuPlatform false', '1 GiB', '2 GiB', '4 GiB']) {
      expect(svg).toContain(`>${text}<`);
    }
    expect(svg).toContain('prefers-color-scheme: dark');
    expect(svg.match(/class="band/g)).toHaveLength(2);
    expect(svg).not.toMatch(/NaN|undefined|Infinity/);
    const peak = at('peak.svg');
    await pinhole([
      'merge',
      whole,
      '--output',
      at('y'),
      '--chart',
      peak,
      '--metric',
      'hcallsPerRequest',
    ]);
    expect(readFileSync(peak, 'utf8')).toContain('Hypercalls a request by machine.memory');
  });
});

describe('what cannot be', () => {
  test.each([
    [['--set', 'machine.memory=1GiB'], '--set: expected a --set with several values'],
    [['--set', 'machine.memory=4GiB..1GiB'], 'expected a range that rises'],
    [['--set', 'machine.memroy=1,2'], 'machine.memroy: expected one of the keys'],
    [['--set', 'seed=1..200', '--set', 'devices[0].queues=1..100'], 'found 200 x 100 = 20000'],
    [['--set', 'seed=1,2', '--shard', '3/2'], '--shard: expected i/n'],
    [['--set', 'seed=1,2', '--format', 'parquet'], 'expected --output FILE, found none'],
    [['--set', 'seed=1,2', '--metric', 'speed'], '--metric: expected one of requests,'],
    [['--set', 'seed=1,2', '--costs', 'x86-kvm'], 'expected a preset for pseries, found x86-kvm'],
    [['--set', 'seed=1,2', '--output', '/no/such/x'], 'expected a file in a folder that exists'],
  ])('%j is refused before anything is run', async (args, message) => {
    const { code, stdout, stderr } = await pinhole(['sweep', FILE, ...args]);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain(message);
  });

  test('a machine that cannot exist is a row with its error, and the rest is run', async () => {
    const { code, stdout, stderr } = await pinhole([
      ...['sweep', FILE, '--set', 'machine.memory=128MiB,1GiB', '--format', 'ndjson'],
    ]);
    expect(code).toBe(1);
    const [, one, two] = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(one).toMatchObject({ point: 0, outcome: null, nsMid: null });
    expect(one.error).toContain('machine.memory: expected a multiple of 16 MiB from 256 MiB');
    expect(two).toMatchObject({ point: 1, outcome: 'works-slow', error: null });
    expect(stderr).toContain('1 of 2 points have an error; point 0: machine.memory');
  });
});

describe('run --costs', () => {
  test('JSON has the estimate, and without it there is none', async () => {
    const report = JSON.parse((await pinhole(['run', FILE, '--costs', '--format', 'json'])).stdout);
    expect(report.costs.preset).toBe('power9-kvm');
    expect(report.costs.parts[0]).toMatchObject({ name: report.costs.dominates });
    expect(
      JSON.parse((await pinhole(['run', FILE, '--format', 'json'])).stdout).costs,
    ).toBeUndefined();
  });

  test('a costs file takes the place of constants, and what is wrong in it has its place', async () => {
    const file = at('costs.yaml');
    writeFileSync(
      file,
      'constants:\n  hcallInQemu: { low: 0, mid: 0, high: 0, status: measured }\n',
    );
    const { stdout } = await pinhole(['run', FILE, '--costs-file', file, '--format', 'json']);
    const { costs } = JSON.parse(stdout);
    const part = costs.parts.find(({ name }: { name: string }) => name === 'hcallInQemu');
    expect(part).toMatchObject({ count: 8, ns: { low: 0, mid: 0, high: 0 }, status: 'measured' });
    appendFileSync(file, '  kik: 1\n');
    const wrong = await pinhole(['run', FILE, '--costs-file', file]);
    expect(wrong.code).toBe(2);
    expect(wrong.stderr).toContain(`${file}:3:3: constants.kik: `);
    expect(wrong.stderr).toContain('did you mean kick?');
  });

  test('people see the range, what dominates and what is assumed', async () => {
    const { stdout } = await pinhole(['run', FILE, '--costs', 'power9-tcg']);
    expect(stdout).toMatch(
      /^time {10}\S+ us \(\S+ us to \S+ (us|ms)\) a request; an estimate, on power9-tcg$/m,
    );
    expect(stdout).toMatch(/^dominated by {2}the request itself.*; \d+ % of the time is assumed$/m);
  });

  test.each([
    [['--costs', 'power9-kwm'], 'did you mean power9-kvm?'],
    [['--costs', 'arm64-kvm'], '--costs: expected a preset for pseries, found arm64-kvm'],
    [['--costs-file', '/no/such'], 'expected a costs file, but it does not exist'],
  ])('%j is refused', async (args, message) => {
    const { code, stderr } = await pinhole(['run', FILE, ...args]);
    expect(code).toBe(2);
    expect(stderr).toContain(message);
  });
});
