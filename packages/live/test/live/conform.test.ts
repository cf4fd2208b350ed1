/** Campaigns against a real QEMU. */
import { readFileSync } from 'node:fs';
import {
  H_GET_TCE,
  H_STUFF_TCE,
  type Hypercalls,
  RTAS_TOKENS,
  type SpaprMachine,
} from '@pinhole/hcall';
import { expect, test } from 'vitest';
import type { RtasOp } from '../../src/conform/ops.js';
import { modelOf, SHAPES } from '../../src/conform/shapes.js';
import { ModelSide } from '../../src/conform/sides.js';
import {
  ACCIDENTS,
  type CampaignOptions,
  type CampaignResult,
  HcallCampaign,
  LiveQemu,
  LiveSide,
  type Shape,
  type Side,
  startShape,
} from '../../src/index.js';
import { describeLive, QEMU } from './support/live.js';

const CAMPAIGN_MS = 600_000;

const rtasOp = (token: number, args: readonly number[]): RtasOp => ({
  kind: 'rtas',
  token,
  nargs: args.length,
  nret: 4,
  args,
});

function campaign(options: Partial<CampaignOptions> & { count: number }): CampaignResult {
  const run = new HcallCampaign({
    seed: 1,
    now: () => performance.now(),
    startReference: (shape) => {
      const live = startShape(shape, { qemu: QEMU });
      return live === undefined ? undefined : new LiveSide(live);
    },
    ...options,
  }).run();
  for (;;) {
    const { done, value } = run.next();
    if (done === true) return value;
  }
}

describeLive('the model and a real QEMU', () => {
  test(
    'agree on 300,000 hypercalls, over every return code of every call',
    () => {
      const { findings, hcalls, coverage, shapes } = campaign({ count: 300_000, seed: 2026 });
      expect(findings).toEqual([]);
      expect(shapes.length).toBeGreaterThan(1);
      expect(hcalls).toBeGreaterThanOrEqual(300_000);
      for (const { call, ret, model, reference } of coverage) {
        expect(reference, `${call} ${ret}`).toBe(model);
      }
      const reached = coverage.map(({ call, ret }) => `${call} ${ret}`);
      expect(reached).toEqual(
        expect.arrayContaining([
          'H_GET_TCE 0',
          'H_GET_TCE -4',
          'H_PUT_TCE 0',
          'H_PUT_TCE -4',
          'H_PUT_TCE_INDIRECT 0',
          'H_PUT_TCE_INDIRECT -4',
          'H_STUFF_TCE 0',
          'H_STUFF_TCE -4',
          'unknown opcode -2',
          'ibm,create-pe-dma-window 0',
          'ibm,create-pe-dma-window -1',
          'ibm,create-pe-dma-window -3',
          'ibm,remove-pe-dma-window 0',
          'ibm,remove-pe-dma-window -3',
          'ibm,reset-pe-dma-window 0',
          'ibm,query-pe-dma-window 0',
          'ibm,query-pe-dma-window -3',
          'ibm,set-tce-bypass 0',
          'ibm,set-tce-bypass -3',
        ]),
      );
    },
    CAMPAIGN_MS,
  );

  test(
    'differ where an error is put into the model: it is found and shrunk',
    () => {
      const createModel = (machine: SpaprMachine): ModelSide => {
        const hypercalls: Hypercalls = {
          call: (opcode, args) => {
            const isLimited = opcode === H_STUFF_TCE && (args[3] ?? 0n) > 512n;
            // As if the limit of H_PUT_TCE_INDIRECT were that of H_STUFF_TCE, too.
            return isLimited ? { ret: -4, out: [] } : machine.hypercalls.call(opcode, args);
          },
        };
        return new ModelSide(machine, hypercalls);
      };
      const { findings } = campaign({ count: 300_000, createModel });
      expect(findings).toHaveLength(1);
      expect(findings[0]).toMatchObject({
        kind: 'divergence',
        model: 'r3 = -4',
        reference: 'r3 = 0',
      });
      expect(findings[0]?.sequence).toEqual([expect.stringMatching(/^H_STUFF_TCE\(/)]);
    },
    CAMPAIGN_MS,
  );
});

describeLive('what is left out by name is what a real QEMU does', () => {
  test(
    'window-of-2^32-entries: the second create in that table aborts QEMU, and the campaign goes on',
    () => {
      const include = ['window-of-2^32-entries'];
      const { findings, episodes } = campaign({ count: 20_000, include });
      const death = findings.find(({ kind }) => kind === 'exit');
      expect(death?.sequence).toEqual([
        expect.stringMatching(/^ibm,create-pe-dma-window\(/),
        expect.stringMatching(/^ibm,create-pe-dma-window\(/),
      ]);
      expect(death?.reference).toMatch(/Assertion .*container/);
      expect(death?.model).toBe('status = 0');
      expect(episodes).toBeGreaterThan((death?.episode ?? 0) + 1);
    },
    CAMPAIGN_MS,
  );

  test('window-of-2^64-bytes: opens, and hypercalls wrap around in it', () => {
    const shape = SHAPES[0] as Shape;
    const qemu = startShape(shape, { qemu: QEMU });
    const { hypercalls } = modelOf(shape);
    const bridge5 = [0, 0x0800_0000, 0x2000_0005];
    const token = RTAS_TOKENS['ibm,create-pe-dma-window'];
    try {
      for (const windowShift of [64, 65]) {
        const op = rtasOp(token, [...bridge5, 34, windowShift]);
        expect(ACCIDENTS.filter(({ matches }) => matches(op)).map(({ name }) => name)).toEqual([
          'window-of-2^64-bytes',
        ]);
        const answer = [0, 0x8000_0501, 0x0800_0000, 0];
        expect(qemu?.rtas(token, op.args, 4)).toEqual(answer);
        expect(hypercalls.rtas(token, op.args, 4)).toEqual([-1]);
        // From the last 16 GiB of 64 bits to the first.
        const args = [0x8000_0501n, 2n ** 64n - 2n ** 34n, 3n, 2n];
        expect(qemu?.call(H_STUFF_TCE, args).ret).toBe(0);
        expect(qemu?.call(H_GET_TCE, [0x8000_0501n, 0n])).toEqual({ ret: 0, out: [3n] });
        qemu?.rtas(RTAS_TOKENS['ibm,remove-pe-dma-window'], [0x8000_0501], 1);
      }
    } finally {
      qemu?.close();
    }
  });

  test(
    'page-shift-beyond-63: only the low bits count',
    () => {
      const { findings } = campaign({ count: 300_000, include: ['page-shift-beyond-63'] });
      // Where the number of entries comes to 0, the table is left half open, too: see above.
      const differing = findings.filter(({ kind }) => kind === 'divergence');
      expect(differing).toHaveLength(1);
      expect(differing[0]?.sequence).toEqual([
        expect.stringMatching(/^ibm,create-pe-dma-window\(/),
      ]);
      expect(differing[0]?.model).toMatch(/rets = \[0xfffffffd\]/);
      expect(differing[0]?.reference).not.toMatch(/rets = \[0xfffffffd\]/);
    },
    CAMPAIGN_MS,
  );

  test(
    'remove-vio-window: -3, or an abort in a QEMU that checks the types of its objects',
    () => {
      const { findings } = campaign({ count: 20_000, include: ['remove-vio-window'] });
      const qemu = LiveQemu.start({ qemu: QEMU });
      const { version } = qemu;
      qemu.close();
      // Debian's 7.2 was built without the check.
      expect(findings.length > 0).toBe(!version.startsWith('7.'));
      for (const { kind, sequence, reference, model } of findings) {
        expect(kind).toBe('exit');
        expect(sequence).toEqual([expect.stringMatching(/^ibm,remove-pe-dma-window\(/)]);
        expect(reference).toMatch(/not an instance of type spapr-pci-host-bridge/);
        expect(model).toBe('status = -3');
      }
    },
    CAMPAIGN_MS,
  );
});

/** Stops a process, and waits until it has stopped. */
function stop(pid: number): void {
  process.kill(pid, 'SIGSTOP');
  const isStopped = (): boolean => / T /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  for (let i = 0; i < 1_000_000 && !isStopped(); i += 1);
}

describeLive('a QEMU that stops answering', () => {
  test(
    'is a finding, and is replaced',
    () => {
      let started = 0;
      const { findings } = campaign({
        // Comes upon the fatal call once, soon.
        seed: 6,
        count: 2_000,
        startReference: (shape) => {
          const live = startShape(shape, { qemu: QEMU, timeoutMs: 1500 });
          if (live === undefined) return undefined;
          started += 1;
          const side = new LiveSide(live);
          const hanging: Side = {
            memory: side.memory,
            submit: (batch) => {
              const isFatal = batch.some(
                (op) =>
                  op.kind === 'hcall' &&
                  op.opcode === BigInt(H_STUFF_TCE) &&
                  op.args[2] === 2n ** 64n - 1n &&
                  op.args[3] === 2n ** 63n,
              );
              if (isFatal) stop(live.pid);
              side.submit(batch);
            },
            collect: () => side.collect(),
            restart: () => side.restart(),
            reset: () => side.reset(),
            close: () => side.close(),
          };
          return hanging;
        },
      });
      expect(findings.length).toBeGreaterThan(0);
      for (const { kind, sequence, model, reference } of findings) {
        expect(kind).toBe('hang');
        expect(sequence).toEqual([
          expect.stringMatching(/^H_STUFF_TCE\(.*, 0xffffffffffffffff, 0x8000000000000000\)$/),
        ]);
        expect(model).toBe('r3 = -4');
        expect(reference).toMatch(/for hypercalls to end/);
      }
      expect(started).toBeGreaterThan(findings.length);
    },
    CAMPAIGN_MS,
  );
});
