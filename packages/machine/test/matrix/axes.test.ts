/** Ids, filters, scenarios: every cell can be named, found, printed and read again. */
import { describe, expect, test } from 'vitest';
import type { Architecture } from '../../src/architecture.js';
import { architectures } from '../../src/architectures/index.js';
import {
  MATRIX_POLICIES,
  MATRIX_RINGS,
  matrixCells,
  matrixPlatforms,
  parseCellId,
} from '../../src/matrix/axes.js';
import { scenarioOfCell, scenarioTextOfCell } from '../../src/matrix/cell-scenario.js';
import { MatrixError } from '../../src/matrix/errors.js';
import { matrixDisk, runCell } from '../../src/matrix/run-cell.js';

const cells = matrixCells();

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return error instanceof MatrixError ? `${error.code}: ${error.message}` : String(error);
  }
  return 'nothing was thrown';
}

test('every cell is found again by its id, and no two have the same', () => {
  expect(new Set(cells.map(({ id }) => id)).size).toBe(cells.length);
  for (const cell of cells) expect(parseCellId(cell.id)).toEqual(cell);
});

test('a cell is a machine, a policy, a flag, a guest, a data plane and a ring: all of them', () => {
  const guests = matrixPlatforms().reduce(
    (sum, { architecture, variant }) =>
      sum +
      (typeof variant.guest?.secure === 'boolean' || architecture.secure === undefined ? 1 : 2),
    0,
  );
  const rest = MATRIX_POLICIES.length * MATRIX_RINGS.length * 2 * 2;
  expect(cells).toHaveLength(guests * rest);
  expect(cells.length).toBeGreaterThan(1000);
});

test('the scenario of a cell is one that a file could have, and asks for what the id says', () => {
  // One in seven: every value of every axis is among them. All are run in the slow suite.
  for (const cell of cells.filter((_, at) => at % 7 === 0)) {
    const scenario = scenarioOfCell(cell.id);
    const [device] = scenario.devices;
    expect(scenario.title).toBe(cell.id);
    expect(scenario.guest).toMatchObject({ kernel: cell.policy, secure: cell.secure });
    expect(device).toMatchObject({
      iommuPlatform: cell.flag,
      packed: cell.ring === 'packed',
      indirect: cell.ring !== 'split-noindirect',
      vhost: cell.vhost ? 'on' : 'off',
    });
  }
});

test('the same cell twice is the same scenario and the same run', () => {
  const id = 'linux-6.12/pseries-pinhole/flag/normal/qemu/packed';
  expect(scenarioTextOfCell(id)).toBe(scenarioTextOfCell(id));
  expect(runCell(id).result).toEqual(runCell(id, { disk: matrixDisk() }).result);
});

describe('filters', () => {
  test('an architecture is all of its machines, a machine only itself', () => {
    const of = (platform: string): string[] => [
      ...new Set(matrixCells({ platforms: [platform] }).map((cell) => cell.platform)),
    ];
    expect(of('pseries-ddw')).toEqual(['pseries-ddw']);
    expect(of('pseries')).toEqual(
      architectures.find(({ id }) => id === 'pseries')?.variants.map(({ id }) => id),
    );
  });

  test('each axis keeps what it names, and the rest stays whole', () => {
    const part = matrixCells({
      platforms: ['pseries-ddw'],
      policies: ['linux-6.1', 'rfc-2018'],
      flag: true,
      secure: false,
      vhost: false,
      rings: ['packed'],
    });
    expect(part.map(({ id }) => id)).toEqual([
      'rfc-2018/pseries-ddw/flag/normal/qemu/packed',
      'linux-6.1/pseries-ddw/flag/normal/qemu/packed',
    ]);
    const secure = cells.filter((cell) => cell.secure);
    expect(matrixCells({ secure: true })).toEqual(secure);
    expect(secure.length).toBeGreaterThan(0);
  });

  test.each([
    [{ platforms: ['pseries-dww'] }, 'E_MATRIX_AXIS: machine: expected pseries, '],
    [{ policies: ['linux-6.2'] }, 'E_MATRIX_AXIS: policy: expected linux-4.18, '],
    [{ rings: [''] }, 'E_MATRIX_AXIS: ring: expected split, split-noindirect, packed; found ""'],
  ])('%j names nothing', (filter, message) => {
    expect(codeOf(() => matrixCells(filter))).toContain(message);
  });
});

describe('ids that are none', () => {
  const good = 'linux-6.1/pseries-ddw/flag/secure/vhost/packed';
  const parts = good.split('/');

  test.each([
    ['', 'found ""'],
    ['/', 'expected a cell such as'],
    ['/////', 'expected as its policy'],
    [`${good}/`, 'expected a cell such as'],
    [` ${good}`, 'expected as its policy'],
    [good.toUpperCase(), 'expected as its policy'],
    ['__proto__/constructor/flag/secure/vhost/packed', 'expected as its policy'],
    ['linux-6.1/../flag/secure/vhost/packed', 'expected as its machine'],
    ['linux-6.1/arm64/flag/secure/vhost/packed\0', 'expected as its'],
    ['linux-5.4/pseries-ddw/flag/secure/vhost/packed', 'expected as its policy'],
  ])('%j', (id, message) => {
    expect(codeOf(() => parseCellId(id))).toContain('E_MATRIX_CELL');
    expect(codeOf(() => parseCellId(id))).toContain(message);
  });

  test('each part is checked, and the message has what would do', () => {
    parts.forEach((_, at) => {
      const id = parts.map((part, i) => (i === at ? 'x' : part)).join('/');
      const message = codeOf(() => parseCellId(id));
      expect(message).toContain('found "x"');
      expect(message).toContain(parts[at]);
    });
  });

  test('a long one makes no long message', () => {
    expect(codeOf(() => parseCellId('a/'.repeat(1e6))).length).toBeLessThan(300);
    expect(codeOf(() => parseCellId(`${'a'.repeat(200)}/b/c/d/e/f`)).length).toBeLessThan(500);
  });
});

test('an architecture from elsewhere has its rows by itself', () => {
  const arm64 = architectures.find(({ id }) => id === 'arm64') as Architecture;
  const toy: Architecture = {
    ...arm64,
    id: 'toy',
    title: 'toy',
    variants: [{ id: 'toy-small', title: 'small', machine: { memory: '512MiB' } }],
  };
  const known = [toy];
  const own = matrixCells({}, known);
  expect(own.every(({ platform }) => platform === 'toy-small')).toBe(true);
  const id = 'linux-6.1/toy-small/no-flag/normal/qemu/split';
  expect(runCell(id, { architectures: known }).result.outcome).toBe('works');
  expect(codeOf(() => runCell(id))).toContain('E_MATRIX_CELL');
});

test('a machine that cannot be built is a cell that says so', () => {
  const arm64 = architectures.find(({ id }) => id === 'arm64') as Architecture;
  const toy: Architecture = {
    ...arm64,
    id: 'toy',
    variants: [{ id: 'toy-tiny', title: 'tiny', machine: { memory: '1MiB' } }],
  };
  const { result, report } = runCell('linux-6.1/toy-tiny/flag/normal/qemu/split', {
    architectures: [toy],
  });
  expect(report).toBeUndefined();
  expect(result).toMatchObject({ outcome: 'no-machine', decision: null, counters: null });
  expect(result.text).toContain('machine.memory: expected');
});
