/** Scenario files: what is accepted, and where the errors point. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  architectures,
  MachineError,
  parseScenario,
  runScenario,
  scenarioJsonSchema,
} from '../src/index.js';

/** `"pseries" or ...`, as errors have it. */
const ARCHITECTURES = architectures.map(({ id }) => JSON.stringify(id)).join(' or ');

/** Each names the one before ten times. */
const ALIASES = `[&a [1], ${['a', 'b', 'c', 'd'].map((name, i) => `&${'bcde'[i]} [${Array(10).fill(`*${name}`).join(',')}]`).join(', ')}]`;

const GOOD = `machine: { arch: pseries, memory: 2GiB }
devices:
  - { type: virtio-blk, iommuPlatform: true }
workload:
  - { read: { offset: 0, length: 8KiB, block: 4KiB } }
`;

function problemsOf(text: string, set: string[] = []): string {
  try {
    const scenario = parseScenario(text, { file: 'my.yaml', set });
    runScenario(scenario);
  } catch (error) {
    if (error instanceof MachineError) return error.message;
    throw error;
  }
  return 'no problem';
}

test('defaults are filled in, sizes become bytes', () => {
  const scenario = parseScenario(GOOD);
  expect(scenario.machine).toMatchObject({
    memory: 2 ** 31,
    qemu: '7.2',
    type: 'pseries',
    tceHandler: 'qemu',
    dmaWindowSize: 2 ** 30,
    limitedAddressMode: false,
    hostBridges: [],
    vio: [],
  });
  // The machine type's.
  expect(scenario.machine).not.toHaveProperty('ddw');
  expect(scenario.machine).not.toHaveProperty('pageSizes');
  expect(scenario.guest).toMatchObject({
    kernel: 'linux-6.12',
    policy: 'upstream',
    secure: false,
  });
  expect(scenario.workload).toEqual([{ read: { offset: 0, length: 8192, block: 4096 } }]);
});

test('every key of the documentation is known', () => {
  const text = readFileSync(new URL('../../../docs/SCENARIOS.md', import.meta.url), 'utf8');
  const example = /```yaml\n(.*?)```/s.exec(text)?.[1] ?? '';
  const scenario = parseScenario(example);
  expect(scenario.devices[0]).toMatchObject({ packed: false, queues: 1, vhost: 'off' });
  expect(runScenario(scenario).verdict.outcome).toBe(scenario.expect);
});

test('what is not modelled yet is refused, and said to be', () => {
  const text = GOOD.replace('true }', 'true, queues: 0, vhost: kernel }');
  expect(problemsOf(text)).toMatch(/queues: expected at least 1, found 0/);
  expect(problemsOf(text)).toMatch(/vhost: expected "off" or "on", found "kernel"/);
  const cpus = GOOD.replace('pseries', 'pseries, cpus: 2');
  expect(problemsOf(cpus)).toMatch(/cpus: expected 1: more CPUs are not modelled yet, found 2/);
});

test.each([
  [false, 4],
  [true, 4],
  [true, 1],
])('packed: %s, %i queues: the same data, through other rings', (packed, queues) => {
  const device = `true, packed: ${packed}, queues: ${queues} }`;
  const report = runScenario(parseScenario(GOOD.replace('true }', device)));
  expect(report.verdict.outcome).toBe('works-slow');
  expect(report.negotiated?.names.includes('VIRTIO_F_RING_PACKED')).toBe(packed);
  expect(report.negotiated?.names.includes('VIRTIO_BLK_F_MQ')).toBe(queues > 1);
});

test('JSON is YAML', () => {
  expect(parseScenario(JSON.stringify({ ...parseJson(GOOD) })).machine.memory).toBe(2 ** 31);
});

function parseJson(_yaml: string): object {
  return {
    machine: { arch: 'pseries', memory: '2GiB' },
    devices: [{ type: 'virtio-blk', iommuPlatform: true }],
    workload: [{ read: { offset: 0, length: 8192, block: 4096 } }],
  };
}

describe('errors say where, what was expected and what was found', () => {
  test.each([
    [
      'a wrong key',
      ['iommuPlatform: true', 'iommuPlattform: true'],
      'my.yaml:3:25: devices[0].iommuPlattform: expected one of the keys',
    ],
    [
      'a wrong type',
      ['iommuPlatform: true', 'iommuPlatform: 7'],
      'my.yaml:3:40: devices[0].iommuPlatform: expected boolean, found 7',
    ],
    ['a wrong size', ['2GiB', '2 apples'], 'my.yaml:1:35: machine.memory: expected a size such as'],
    [
      'a wrong name',
      ['arch: pseries', 'arch: vax'],
      `my.yaml:1:18: machine.arch: expected ${ARCHITECTURES}, found "vax"`,
    ],
    [
      'a missing key',
      ['arch: pseries, ', ''],
      `my.yaml:1:10: machine.arch: expected ${ARCHITECTURES}, found nothing`,
    ],
    [
      'an odd length',
      ['8KiB', '1000'],
      'my.yaml:5:34: workload[0].read.length: expected a multiple of 512 bytes, found 1000',
    ],
    ['no YAML', ['{ arch', '{{ arch'], 'my.yaml:2:1:'],
  ])('%s', (_what, [from, to], expected) => {
    const text = GOOD.replace(from as string, to as string);
    expect(text).not.toBe(GOOD);
    expect(problemsOf(text)).toContain(expected);
  });

  test('all problems are told at once', () => {
    const text = GOOD.replace('2GiB', 'x').replace('true', '7');
    expect(problemsOf(text).split('\n')).toHaveLength(2);
  });

  test.each([
    [
      'a window larger than the space below the second one',
      'machine.dmaWindowSize=0x0900000000000000',
      'machine.dmaWindowSize: ',
    ],
    ['memory that is no multiple of 16 MiB', 'machine.memory=300MB', 'machine.memory: '],
    [
      'maxMemory below memory',
      'machine.maxMemory=1GiB',
      'machine.maxMemory: expected from 2147483648',
    ],
    ['a path that is none', 'machine.memory.deep=1', 'machine.memory.deep: '],
    ['no path at all', 'nonsense', '--set: expected path=value'],
    ['an index beyond reason', 'devices[4294967294].type=x', 'expected an index from 0 to 9999'],
    ['an alias of nothing', 'workload=*x', 'workload: --set: expected a value in YAML, found "*x"'],
    ['aliases that multiply', `workload=${ALIASES}`, 'workload: --set: expected a value in YAML'],
    ['no operation', 'workload=[]', 'workload: expected at least 1 operation, found []'],
    [
      'dma-ranges on pseries',
      'machine.dmaRanges=[{cpu: 0, bus: 0, size: 1MiB}]',
      'machine.dmaRanges: ',
    ],
    ['a read past the end', 'workload[0].read.offset=16MiB', 'past the end'],
  ])('an impossible machine: %s', (_what, setting, expected) => {
    expect(problemsOf(GOOD, [setting])).toContain(expected);
  });
});

test('--set overrides, and is checked like the file', () => {
  expect(parseScenario(GOOD, { set: ['machine.memory=4GiB', 'seed=7'] })).toMatchObject({
    machine: { memory: 2 ** 32 },
    seed: 7,
  });
  expect(parseScenario(GOOD, { set: ['devices[0].iommuPlatform=false'] }).devices[0]).toMatchObject(
    {
      iommuPlatform: false,
    },
  );
});

test('hostile text never does worse than a MachineError', () => {
  const piece = fc.constantFrom(
    'a',
    ':',
    ' ',
    '\n',
    '{',
    '}',
    '[',
    ']',
    '&x',
    '*x',
    '- ',
    '"',
    '!!map',
    '0x',
    '\t',
    '#',
    '|',
    '?',
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 60 }), (pieces) => {
      try {
        parseScenario(pieces.join(''));
        expect.unreachable('nothing of this kind is a scenario');
      } catch (error) {
        expect(error).toBeInstanceOf(MachineError);
      }
    }),
    { numRuns: 500 },
  );
});

test('a billion laughs are not laughed', () => {
  const rows = Array.from({ length: 9 }, (_, i) =>
    i === 0
      ? 'a0: &a0 [x,x,x,x,x,x,x,x,x]'
      : `a${i}: &a${i} [${Array(9)
          .fill(`*a${i - 1}`)
          .join(',')}]`,
  );
  expect(() => parseScenario(rows.join('\n'))).toThrow(MachineError);
});

test('a file of 1 MiB and more is refused at once', () => {
  expect(() => parseScenario('#'.repeat(2 ** 20 + 1))).toThrow(/at most 1048576 characters/);
});

test('the JSON Schema knows every key', () => {
  const schema = JSON.stringify(scenarioJsonSchema());
  for (const key of ['machine', 'dmaWindowSize', 'iommuPlatform', 'policy', 'workload', 'expect']) {
    expect(schema).toContain(`"${key}"`);
  }
});
