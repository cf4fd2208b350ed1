/** pinhole matrix: the table, the data, the threads, and everything that a user can get wrong. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { InternalError } from '@pinhole/base';
import { CELL_OUTCOMES, type CellResult, matrixCells, runCell } from '@pinhole/machine';
import { describe, expect, test } from 'vitest';
import { runCells } from '../../src/matrix-pool.js';
import { renderMatrixTable } from '../../src/matrix-table.js';
import { builtInScenarios, loadScenario } from '../../src/scenarios.js';
import { pinhole, scratchFolder } from '../pinhole.js';

const inFolder = (name: string): string => join(scratch, name);
const scratch = scratchFolder();

const plainCell = 'linux-6.1/arm64/no-flag/normal/qemu/split';
const brokenCell = 'linux-6.1/pseries-ddw/no-flag/secure/qemu/split';
const shown = (id: string): CellResult => runCell(id).result;

/** A result for every cell of some machines, without a run of each. */
function madeMatrix(platforms: readonly string[]): CellResult[] {
  const made = shown(plainCell);
  return matrixCells({ platforms }).map((cell, at) => {
    const outcome = CELL_OUTCOMES[at % CELL_OUTCOMES.length] as CellResult['outcome'];
    return { ...made, cell, outcome, findings: [{ outcome, text: `${outcome}: why` }] };
  });
}

const widest = (table: string): number =>
  Math.max(...table.split('\n').map((line) => [...line].length));

describe('the table', () => {
  test.each([
    [40, 4],
    [60, 2],
    [80, 1],
    [160, 1],
  ])('of many cells fits %i columns, in %i parts', (width, parts) => {
    const results = madeMatrix(['pseries', 'x86-64', 'arm64']);
    const table = renderMatrixTable(results, { width, color: false, planned: results.length });
    expect(widest(table)).toBeLessThanOrEqual(width);
    const heads = [...table.matchAll(/^machine +flag: +(of on(?: of on)*)$/gm)];
    expect(heads).toHaveLength(parts);
    // No policy is left out: a pair for each of the eight, and each name once.
    expect(heads.map(([, pairs]) => ` ${pairs}`).join('')).toBe(' of on'.repeat(8));
    expect(table.match(/(?<!\S)(4\.18|rfc|rfc-d|alw\.|5\.10|6\.1|6\.12|7\.2)(?=\s)/g)).toHaveLength(
      8,
    );
    expect(table.match(/^arm64-smmuv3, secure /gm)).toHaveLength(parts);
  });

  test('parts of a narrow one have the symbols of the whole', () => {
    const results = madeMatrix(['pseries']);
    const row = (width: number): string =>
      [
        ...renderMatrixTable(results, { width, color: false, planned: 1 }).matchAll(
          /^pseries-ddw {2,}(.*)$/gm,
        ),
      ]
        .map(([, symbols = '']) => symbols.replaceAll(' ', ''))
        .join('');
    expect(row(40)).toBe(row(160));
    expect(row(60)).toBe(row(160));
  });

  test('of many cells has machines, outcomes and a cell of each in it', () => {
    const results = madeMatrix(['pseries', 'x86-64', 'arm64']);
    const table = renderMatrixTable(results, { width: 80, color: false, planned: results.length });
    for (const { platform, secure } of matrixCells({ platforms: ['pseries', 'x86-64', 'arm64'] })) {
      expect(table).toContain(`\n${platform}${secure ? ', secure' : ''} `);
    }
    expect(table).toMatch(/! isolation broken: \d+\n {4}such as linux-4\.18\/pseries-pinhole/);
  });

  test('of one machine shows the worst of what differs, with a star', () => {
    const results = matrixCells({ platforms: ['arm64'], policies: ['linux-6.1'] }).map((cell) => ({
      ...shown(plainCell),
      cell,
      outcome: cell.flag && cell.ring === 'packed' ? ('hangs' as const) : ('works' as const),
    }));
    const many = [...results, ...results, ...results];
    const table = renderMatrixTable(many, { width: 80, color: false, planned: many.length });
    expect(table).toMatch(/^arm64 +✓ {2}∞\*$/m);
    expect(table).toContain('*: the worst of');
  });

  test('of few cells lists each with all that it shows', () => {
    const results = [shown(plainCell), shown(brokenCell)];
    const table = renderMatrixTable(results, { width: 80, color: false, planned: 9 });
    expect(table).toContain('2 cells of 9');
    expect(table).toContain(`✓ ${plainCell}\n`);
    expect(table).toContain(`! ${brokenCell}\n`);
    expect(table.replace(/\s+/g, ' ')).toContain('isolation broken: the guest sent');
  });

  test.each([40, 60, 80])('of few cells fits %i columns, its longest name included', (width) => {
    const longest = matrixCells({}).reduce((a, b) => (b.id.length > a.id.length ? b : a));
    const results = [{ ...shown(plainCell), cell: longest }];
    const table = renderMatrixTable(results, { width, color: false, planned: 1 });
    expect(widest(table)).toBeLessThanOrEqual(width);
    expect(table.replace(/\s/g, '')).toContain(`✓${longest.id}`);
  });

  test('has colours only where they are wanted, and no escape sequence of others', () => {
    const hostile = { ...shown(plainCell), text: 'a\u001b[31mb\nc' };
    const table = renderMatrixTable([hostile], { width: 80, color: false, planned: 1 });
    expect(table).not.toContain('\u001b');
    expect(table).toContain('ab c');
    expect(renderMatrixTable([hostile], { width: 80, color: true, planned: 1 })).toContain(
      '\u001b[32m✓',
    );
  });
});

describe('threads', () => {
  const worker = pathToFileURL(join(import.meta.dirname, '../matrix-workers/dies.mjs'));
  const run = (ids: readonly string[], stopAfter = Number.POSITIVE_INFINITY) => {
    const done: string[] = [];
    return runCells({
      ids,
      jobs: 2,
      worker,
      timeoutMs: 2000,
      onResult: ({ cell }) => done.push(cell.id),
      isStopped: () => done.length >= stopAfter,
    }).then(() => done);
  };

  test('every cell is run once', async () => {
    const ids = Array.from({ length: 50 }, (_, i) => `cell ${i}`);
    expect((await run(ids)).sort()).toEqual([...ids].sort());
  });

  test.each([
    ['throws', 'cell throws: out of luck'],
    ['exits', 'cell exits: its thread ended with 3'],
    ['hangs', 'cell hangs: it did not end within 2000 ms'],
  ])('one that %s is an error of ours that names the cell', async (id, message) => {
    const error = await run(['a', 'b', id, 'c']).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(InternalError);
    expect(String(error)).toContain(message);
  });

  test('stopped, it gives what there is', async () => {
    const ids = Array.from({ length: 50 }, (_, i) => `cell ${i}`);
    const done = await run(ids, 10);
    expect(done.length).toBeGreaterThanOrEqual(10);
    expect(done.length).toBeLessThan(20);
  });
});

describe('the nine scenarios and their cells agree', () => {
  // The machines of 8 and 9 have another memory map than arm64-offset; all else is the same.
  const CELLS: Readonly<Record<string, string>> = {
    '1-bypass': 'linux-6.12/pseries-ddw-lost/no-flag/normal/qemu/split',
    '2-pinhole': 'linux-6.12/pseries-pinhole/flag/normal/qemu/split',
    '3-ddw': 'linux-6.12/pseries-ddw/flag/normal/qemu/split',
    '4-ddw-lost': 'linux-6.12/pseries-ddw-lost/flag/normal/qemu/split',
    '5-secure-upstream': 'linux-6.12/pseries-ddw/no-flag/secure/qemu/split',
    '6-secure-hook': 'rfc-2018/pseries-ddw/no-flag/secure/qemu/split',
    '7-secure-ddw': 'linux-6.12/pseries-ddw/flag/secure/qemu/split',
    '8-offset-hook': 'rfc-2018/arm64-offset/no-flag/normal/qemu/split',
    '9-offset-flag': 'linux-6.12/arm64-offset/flag/normal/qemu/split',
  };
  /** How `expect` of a scenario reads in the matrix, where a bounced byte is a price. */
  const AS_CELLS: Readonly<Record<string, readonly string[]>> = {
    works: ['works', 'works-slow'],
    'works-slow': ['works-slow'],
    fails: ['isolation-broken'],
    'wrong-data': ['silently-wrong'],
  };

  test.each(builtInScenarios())('$id', ({ id }) => {
    const { scenario } = loadScenario(id, []);
    const result = shown(CELLS[id] as string);
    expect(AS_CELLS[scenario.expect as string]).toContain(result.outcome);
    const isBounced = (result.counters?.bytesBounced ?? 0) > 0;
    if (scenario.expect === 'works' && !isBounced) expect(result.outcome).toBe('works');
    expect(result.cell.flag).toBe(scenario.devices[0]?.iommuPlatform);
    expect(result.cell.secure).toBe(scenario.guest.secure);
  });
});

describe('the program', () => {
  test('one cell: what it shows, its steps, its report; 1 when it does not work', () => {
    const { code, stdout, stderr } = pinhole(['matrix', '--cell', brokenCell]);
    expect(stderr).toBe('');
    expect(stdout).toContain(
      'isolation broken: the guest sent the hypervisor side to 1 private page',
    );
    expect(stdout).toContain('iommu_init_early_pSeries');
    expect(stdout).toContain(`trace it: pinhole matrix --cell ${brokenCell} --trace '*'`);
    expect(code).toBe(1);
    expect(pinhole(['matrix', '--cell', plainCell]).code).toBe(0);
  });

  test('its trace, and its scenario, which runs alone and ends the same', () => {
    const trace = inFolder('cell.log');
    const cell = 'linux-6.1/pseries-pinhole/flag/normal/qemu/split';
    const options = ['--trace', 'spapr_iommu_*', '--trace-file', trace, '--format', 'json'];
    const { code, stdout } = pinhole(['matrix', '--cell', cell, ...options]);
    expect(code).toBe(0);
    const document = JSON.parse(stdout) as {
      cell: CellResult & { rerun: string };
      report: { verdict: { outcome: string }; counters: { hcallsPerRequestTotal: number } };
      scenario: string;
    };
    expect(document.cell.outcome).toBe('works-slow');
    expect(document.cell.counters?.hcallsPerRequest).toBe(8);
    expect(readFileSync(trace, 'utf8').match(/^spapr_iommu_pci_put /gm)).toHaveLength(61);
    const ran = pinhole(['run', cell, '--format', 'json']);
    expect(JSON.parse(ran.stdout)).toMatchObject({
      title: cell,
      verdict: document.report.verdict,
      counters: { hcallsPerRequestTotal: document.report.counters.hcallsPerRequestTotal },
    });
  });

  test('a part of the matrix, as a table and as data', () => {
    const part = ['matrix', '--arch', 'arm64', '--policy', 'linux-6.1,rfc-2018', '--ring', 'split'];
    const { code, stdout } = pinhole([...part, '--flag', 'off', '--vhost', 'off', '--jobs', '2']);
    expect(code).toBe(0);
    expect(stdout).toContain('✓ linux-6.1/arm64/no-flag/normal/qemu/split');
    const json = pinhole([...part, '--flag', 'on', '--format', 'json']);
    const document = JSON.parse(json.stdout) as { planned: number; cells: CellResult[] };
    expect(document).toMatchObject({ schemaVersion: 1, planned: document.cells.length });
    expect(document.cells.length).toBeGreaterThanOrEqual(12);
  });

  test.each([
    [['--cell', 'x'], /expected a cell such as/],
    [['--cell', 'linux-6.1/pseries/flag/normal/qemu/split'], /expected as its machine/],
    [['--cell', plainCell, '--format', 'html'], /more than one cell/],
    [['--arch', 'sparc'], /machine: expected pseries, /],
    [['--policy', 'linux-6.1,,'], /policy: expected linux-4\.18, .*found ""/],
    [['--flag', 'maybe'], /Allowed choices are on, off/],
    [['--jobs', '0'], /whole number from 1/],
    [['--trace', '*'], /--trace is for one cell/],
    [['--arch', 'xen', '--secure', 'on', '--policy', 'linux-6.1'], /no cell/],
  ])('%j: exit code 2, nothing on standard output', (options, message) => {
    const { code, stdout, stderr } = pinhole(['matrix', ...options]);
    expect(stderr).toMatch(message);
    expect(stdout).toBe('');
    expect(code).toBe(2);
  });
});
