/** The campaign itself, without QEMU: the model against the model, with errors put into one of them. */
import { createRng } from '@pinhole/base';
import {
  H_GET_TCE,
  H_PARAMETER,
  H_PUT_TCE,
  H_PUT_TCE_INDIRECT,
  H_STUFF_TCE,
  H_SUCCESS,
  type HcallResult,
  type Hypercalls,
  RTAS_TOKENS,
  type SpaprMachine,
} from '@pinhole/hcall';
import { describe, expect, test } from 'vitest';
import { ACCIDENTS, type Accident } from '../src/conform/accidents.js';
import { HcallCampaign } from '../src/conform/campaign.js';
import { OpGenerator } from '../src/conform/generator.js';
import type { Op } from '../src/conform/ops.js';
import { modelOf, SHAPES, type Shape } from '../src/conform/shapes.js';
import { shrink } from '../src/conform/shrink.js';
import { ModelSide } from '../src/conform/sides.js';
import { type CampaignOptions, type CampaignResult, LiveError } from '../src/index.js';

const SEED = 7;

type Fault = (
  call: (opcode: number, args: readonly bigint[]) => HcallResult,
  opcode: number,
  args: readonly bigint[],
  machine: SpaprMachine,
) => HcallResult;

function campaign(fault: Fault | undefined, count: number, seed = SEED): CampaignResult {
  const createModel = (machine: SpaprMachine): ModelSide => {
    if (fault === undefined) return new ModelSide(machine);
    const real = (opcode: number, args: readonly bigint[]) => machine.hypercalls.call(opcode, args);
    const hypercalls: Hypercalls = {
      call: (opcode, args) => fault(real, opcode, args, machine),
    };
    return new ModelSide(machine, hypercalls);
  };
  const startReference = (shape: Shape): ModelSide => new ModelSide(modelOf(shape));
  const run = new HcallCampaign({
    seed,
    count,
    startReference,
    createModel,
    now: () => performance.now(),
  }).run();
  for (;;) {
    const { done, value } = run.next();
    if (done === true) return value;
  }
}

describe('a deliberate error in the model is found, and shrunk to what shows it', () => {
  const cases: [name: string, fault: Fault, mostOps: number, sequence: RegExp][] = [
    [
      'H_PUT_TCE_INDIRECT of nothing succeeds, as in KVM',
      (call, opcode, args) => {
        const answer = call(opcode, args);
        const isEmpty = opcode === H_PUT_TCE_INDIRECT && args[3] === 0n;
        return isEmpty ? { ret: H_SUCCESS, out: [] } : answer;
      },
      1,
      /^H_PUT_TCE_INDIRECT\(.*, 0x0\)$/,
    ],
    [
      'H_STUFF_TCE leaves out the last of its entries',
      (call, opcode, args) => {
        const [liobn = 0n, ioba = 0n, tce = 0n, npages = 0n] = args;
        if (opcode !== H_STUFF_TCE || npages < 2n) return call(opcode, args);
        const answer = call(opcode, args);
        if (answer.ret === H_SUCCESS) {
          call(H_STUFF_TCE, [liobn, ioba, 0n, npages]);
          call(H_STUFF_TCE, [liobn, ioba, tce, npages - 1n]);
        }
        return answer;
      },
      2,
      /^H_STUFF_TCE\(.*\nH_GET_TCE\(/,
    ],
    [
      'a misaligned bus address is refused, as in KVM',
      (call, opcode, args) =>
        opcode === H_PUT_TCE && ((args[1] ?? 0n) & 0xfffn) !== 0n
          ? { ret: H_PARAMETER, out: [] }
          : call(opcode, args),
      1,
      /^H_PUT_TCE\(/,
    ],
    [
      'H_GET_TCE drops the permission bits',
      (call, opcode, args) => {
        const { ret, out } = call(opcode, args);
        return { ret, out: opcode === H_GET_TCE ? out.map((tce) => tce & ~3n) : out };
      },
      2,
      /\nH_GET_TCE\(/,
    ],
    [
      'removing the default window forgets that it was the default one',
      (call, opcode, args, machine) => {
        const answer = call(opcode, args);
        for (const { tables } of machine.iommu.phbs) {
          for (const table of tables) if (!table.isEnabled) table.isDefaultWindow = false;
        }
        return answer;
      },
      5,
      /ibm,remove-pe-dma-window/,
    ],
  ];

  test.each(cases)('%s', (_name, fault, mostOps, sequence) => {
    const { findings } = campaign(fault, 100_000);
    expect(findings).toHaveLength(1);
    const [finding] = findings;
    expect(finding?.kind).toBe('divergence');
    expect(finding?.sequence.join('\n')).toMatch(sequence);
    expect(finding?.sequence.length).toBeLessThanOrEqual(mostOps);
    expect(finding?.length).toBeGreaterThanOrEqual(finding?.sequence.length ?? 0);
    expect(finding?.model).not.toBe(finding?.reference);
  });
});

test('without an error there is no finding, and every answer is counted on both sides', () => {
  const { findings, hcalls, coverage } = campaign(undefined, 30_000);
  expect(findings).toEqual([]);
  expect(hcalls).toBeGreaterThanOrEqual(30_000);
  expect(coverage.reduce((sum, row) => sum + row.model, 0)).toBe(hcalls);
  for (const row of coverage) expect(row.model, row.call).toBe(row.reference);
});

test('every return code that the model has is reached', () => {
  const { coverage } = campaign(undefined, 60_000);
  const reached = coverage.map(({ call, ret }) => `${call} ${ret}`);
  expect(reached).toEqual(
    expect.arrayContaining([
      ...['H_PUT_TCE', 'H_GET_TCE', 'H_STUFF_TCE', 'H_PUT_TCE_INDIRECT'].flatMap((name) => [
        `${name} 0`,
        `${name} -4`,
      ]),
      'unknown opcode -2',
      ...Object.keys(RTAS_TOKENS).flatMap((name) => [`${name} 0`, `${name} -3`]),
      'ibm,create-pe-dma-window -1',
    ]),
  );
});

test('the same seed gives the same campaign, another seed another one', () => {
  const fault: Fault = (call, opcode, args) =>
    opcode === H_PUT_TCE && (args[2] ?? 0n) > 2n ** 63n ? { ret: 0, out: [] } : call(opcode, args);
  const [one, again, other] = [SEED, SEED, SEED + 1].map((seed) => campaign(fault, 50_000, seed));
  expect(again).toEqual(one);
  expect(other?.findings[0]?.length).not.toBe(one?.findings[0]?.length);
});

test('a reference that dies is a finding; the campaign goes on with a fresh one', () => {
  let started = 0;
  const startReference = (shape: Shape): ModelSide => {
    started += 1;
    const machine = modelOf(shape);
    let isDead = false;
    const hypercalls: Hypercalls = {
      call: (opcode, args) => {
        isDead ||= opcode === H_STUFF_TCE && args[3] === 512n;
        if (isDead) throw new LiveError('E_QEMU_EXITED', 'expected a running QEMU, but it ended');
        return machine.hypercalls.call(opcode, args);
      },
    };
    return new ModelSide(machine, hypercalls);
  };
  const run = new HcallCampaign({
    seed: SEED,
    count: 300_000,
    startReference,
    now: () => performance.now(),
  }).run();
  let next = run.next();
  while (next.done !== true) next = run.next();
  const { findings } = next.value;
  expect(findings.length).toBeGreaterThan(1);
  for (const finding of findings) {
    expect(finding).toMatchObject({ kind: 'exit', model: expect.stringMatching(/^r3 = (0|-4)$/) });
    expect(finding.sequence).toHaveLength(1);
    expect(finding.sequence[0]).toMatch(/^H_STUFF_TCE\(.*, 0x200\)$/);
    expect(finding.reference).toMatch(/it ended/);
  }
  expect(started).toBeGreaterThan(findings.length);
});

describe('a finding is kept', () => {
  const isFatal = (opcode: number, args: readonly bigint[]): boolean =>
    opcode === H_STUFF_TCE && args[3] === 512n;

  // A reference that dies of one call, and that can be started so many times.
  function mortal(starts: number): CampaignOptions['startReference'] {
    let started = 0;
    return (shape) => {
      started += 1;
      if (started > starts) throw new LiveError('E_QEMU_HANG', 'expected it to start, in vain');
      const machine = modelOf(shape);
      const hypercalls: Hypercalls = {
        call: (opcode, args) => {
          if (isFatal(opcode, args)) throw new LiveError('E_QEMU_EXITED', 'it ended');
          return machine.hypercalls.call(opcode, args);
        },
      };
      return new ModelSide(machine, hypercalls);
    };
  }
  const begin = (startReference: CampaignOptions['startReference']): HcallCampaign =>
    new HcallCampaign({ seed: SEED, count: 300_000, startReference, now: () => performance.now() });

  test('when the caller leaves in the middle of its shrinking', () => {
    const campaign = begin(mortal(1000));
    for (const _ of campaign.run()) if (campaign.result.findings.length > 0) break;
    const [finding] = campaign.result.findings;
    expect(finding).toMatchObject({ kind: 'exit', isReproducible: false, reference: 'it ended' });
    expect(finding?.sequence.length).toBeGreaterThan(1);
    expect(finding?.sequence.join('\n')).toMatch(/H_STUFF_TCE\(.*, 0x200\)/);
  });

  test('when the reference does not start again', () => {
    const campaign = begin(mortal(3));
    expect(() => [...campaign.run()]).toThrow(/expected it to start/);
    const [finding] = campaign.result.findings;
    expect(finding).toMatchObject({ kind: 'exit', isReproducible: true });
    expect(finding?.sequence.join('\n')).toMatch(/H_STUFF_TCE\(.*, 0x200\)/);
  });
});

describe('shrinking', () => {
  const call = (...args: bigint[]): Op => ({ kind: 'hcall', opcode: BigInt(H_PUT_TCE), args });

  function shrunk(ops: readonly Op[], fails: (ops: readonly Op[]) => boolean): Op[] {
    const steps = shrink(ops, { fails, maxTries: 1000, isOver: () => false, isLastNeeded: true });
    for (;;) {
      const { done, value } = steps.next();
      if (done === true) return value;
    }
  }

  test('leaves what is needed, and of its values the simplest', () => {
    const start = [
      ...Array.from({ length: 500 }, (_, i) => call(BigInt(i), 7n, 7n)),
      call(0x8000_0000n, 0x1_2345_6789n, 0xabc_def1_2345n, 3n),
    ];
    const needs = (ops: readonly Op[]): boolean => {
      const last = ops.at(-1);
      const hasOther = ops.some((op) => op.kind === 'hcall' && op.args[0] === 123n);
      return hasOther && last?.kind === 'hcall' && last.args[3] === 3n && last.args[2] !== 0n;
    };
    expect(shrunk(start, needs)).toEqual([call(123n, 0n, 0n), call(0x8000_0000n, 0n, 1n, 3n)]);
  });
});

describe('an accident of QEMU', () => {
  const made = (include: readonly string[]): Op[] => {
    const machine = modelOf(SHAPES[0] as Shape);
    const generator = new OpGenerator(createRng(1), machine, include);
    return Array.from({ length: 60_000 }, () => generator.next());
  };
  const isProvoked = (ops: readonly Op[], { matches }: Accident): boolean =>
    ops.some((op) => (op.kind === 'hcall' || op.kind === 'rtas') && matches(op));

  test('is not provoked', () => {
    const ops = made([]);
    for (const accident of ACCIDENTS) expect(isProvoked(ops, accident), accident.name).toBe(false);
  });

  test.each(ACCIDENTS)('is provoked when asked for by name: $name', (accident) => {
    expect(isProvoked(made([accident.name]), accident)).toBe(true);
  });
});
