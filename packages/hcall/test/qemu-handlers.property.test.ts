/**
 * The four TCE hypercalls and the window calls against a second implementation of the same rules:
 * one entry at a time, in plain 64-bit arithmetic, as QEMU's handlers go.
 * [qemu v7.2 hw/ppc/spapr_iommu.c, hw/ppc/spapr_rtas_ddw.c]
 */
import { type TraceEvent, Tracer } from '@pinhole/base';
import { SpaprIommu, SpaprPhb, SpaprVioDevice, type TceTable } from '@pinhole/tce';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  createSpaprHypercalls,
  H_GET_TCE,
  H_PUT_TCE,
  H_PUT_TCE_INDIRECT,
  H_STUFF_TCE,
  RTAS_TOKENS,
} from '../src/index.js';
import { memory, Reference, u64, Window } from './support/reference.js';

const WINDOW_2 = 2n ** 59n;
const FIRST = 0x8000_0000n;
const SECOND = 0x8000_0001n;
const VIO = 0x7100_0000n;

function setUp() {
  const events: TraceEvent[] = [];
  const tracer = new Tracer({ emit: (event) => events.push(event) });
  const phb = new SpaprPhb({ memory, dmaWindowSize: 600 * 4096, dmaWindowAddress: 0x1000n });
  const vio = new SpaprVioDevice({ reg: Number(VIO), memory });
  vio.table?.disable();
  vio.table?.enable({ pageShift: 16, busOffset: 0xffff_0000n, nbTable: 9 });
  const iommu = new SpaprIommu({ phbs: [phb], vio: [vio] });
  const hypercalls = createSpaprHypercalls({ iommu, memory, tracer });
  const model = new Reference();
  for (const liobn of [FIRST, SECOND, VIO]) model.windows.set(liobn, new Window());
  const window = (liobn: bigint) => model.find(liobn) as Window;
  window(FIRST).open(12n, 0x1000n, 600n);
  window(FIRST).isDefault = true;
  window(VIO).open(16n, 0xffff_0000n, 9n);
  return { phb, hypercalls, model, window, events };
}

const wild = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const liobn = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom(FIRST, SECOND, VIO) },
  { weight: 1, arbitrary: fc.constantFrom(0x1_8000_0000n, 0x8000_0002n, 0n, 2n ** 63n) },
);
const ioba = fc.oneof(
  { weight: 1, arbitrary: wild },
  {
    weight: 8,
    arbitrary: fc
      .record({
        base: fc.constantFrom(0n, 0x1000n, 0xffff_0000n, WINDOW_2, 2n ** 64n),
        page: fc.constantFrom(0n, 1n, 8n, 9n, 87n, 88n, 255n, 256n, 599n, 600n, 601n, -1n),
        shift: fc.constantFrom(12n, 16n, 24n),
        low: fc.constantFrom(0n, 1n, 0xfffn, 0xffffn),
      })
      .map(({ base, page, shift, low }) => u64(base + (page << shift) + low)),
  },
);
const tce = fc.oneof(wild, fc.constantFrom(0n, 1n, 2n, 3n, 0x5003n));
const npages = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(0n, 1n, 2n, 9n, 10n, 255n, 256n, 257n, 511n, 512n) },
  { weight: 2, arbitrary: fc.constantFrom(513n, 599n, 600n, 601n, 2n ** 31n, 2n ** 32n) },
  { weight: 1, arbitrary: wild },
);
const list = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom(0n, 0xf000n, 0x1_0000n, 0x2_0000n, 0x3_0000n) },
  { weight: 2, arbitrary: fc.constantFrom(0x800n, 0xf008n, 0xfffn, 2n ** 53n, u64(-0x1000n)) },
  { weight: 1, arbitrary: wild },
);
const shift = fc.constantFrom(0, 12, 16, 20, 21, 24, 25, 31, 32, 63, 64, 255, 2 ** 32 - 1);

const call = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.oneof(
      fc.tuple(fc.constant('put' as const), liobn, ioba, tce),
      fc.tuple(fc.constant('get' as const), liobn, ioba),
      fc.tuple(fc.constant('indirect' as const), liobn, ioba, list, npages),
      fc.tuple(fc.constant('stuff' as const), liobn, ioba, tce, npages),
    ),
  },
  {
    weight: 3,
    arbitrary: fc.oneof(
      fc.constant(['create', 24, 32] as const),
      fc.tuple(fc.constant('create' as const), shift, shift),
      fc.tuple(fc.constant('remove' as const), fc.constantFrom(...[FIRST, SECOND, 5n].map(Number))),
      fc.constant(['reset'] as const),
      fc.tuple(fc.constant('query' as const), fc.constantFrom(4, 5, 6, 7)),
    ),
  },
);

const OPCODES = {
  put: [H_PUT_TCE, 'put'],
  get: [H_GET_TCE, 'get'],
  indirect: [H_PUT_TCE_INDIRECT, 'indirect'],
  stuff: [H_STUFF_TCE, 'stuff'],
} as const;

test('any sequence of calls answers, logs and leaves what QEMU would', () => {
  fc.assert(
    fc.property(fc.array(call, { maxLength: 30 }), (calls) => {
      const { phb, hypercalls, model, window, events } = setUp();
      const pciWindows = [window(FIRST), window(SECOND)];
      const active = () => pciWindows.filter(({ size }) => size > 0n).length;
      const buid = [0, 0x0800_0000, 0x2000_0000];
      const reset = () => {
        for (const each of pciWindows) each.close();
        window(FIRST).open(12n, 0x1000n, 600n);
      };

      for (const c of calls) {
        events.length = 0;
        const label = c.join(' ');
        if (c[0] === 'create') {
          const [, page, size] = c;
          const args = [...buid, page, size];
          const cells = hypercalls.rtas(RTAS_TOKENS['ibm,create-pe-dma-window'], args, 4);
          const free = window(FIRST).size === 0n ? FIRST : SECOND;
          const offset = active() === 0 ? 0x1000n : WINDOW_2;
          if (![12, 16, 21, 24].includes(page) || size < page) {
            expect(cells, label).toEqual([-3]);
          } else if (active() === 2 || size - page > 31) {
            expect(cells, label).toEqual([-1]);
          } else {
            window(free).open(BigInt(page), offset, 1n << BigInt(size - page));
            const halves = [Number(offset >> 32n), Number(offset & 0xffff_ffffn)];
            expect(cells, label).toEqual([0, Number(free), ...halves]);
          }
        } else if (c[0] === 'remove') {
          const cells = hypercalls.rtas(RTAS_TOKENS['ibm,remove-pe-dma-window'], [c[1]], 1);
          const removed = model.find(BigInt(c[1]));
          const isOpen = removed !== undefined && removed.size > 0n;
          expect(cells, label).toEqual([isOpen ? 0 : -3]);
          if (isOpen) {
            removed.close();
            if (active() === 0 && !removed.isDefault) reset();
          }
        } else if (c[0] === 'reset') {
          expect(hypercalls.rtas(RTAS_TOKENS['ibm,reset-pe-dma-window'], buid, 1)).toEqual([0]);
          reset();
        } else if (c[0] === 'query') {
          const cells = hypercalls.rtas(RTAS_TOKENS['ibm,query-pe-dma-window'], buid, c[1]);
          const left = 2 - active();
          const answers = { 5: [0, left, 0x8000_0000, 0x107, 0], 6: [0, left, 0x20, 0, 0x107, 0] };
          expect(cells, label).toEqual(c[1] === 5 || c[1] === 6 ? answers[c[1]] : [-3]);
        } else {
          const [kind, ...args] = c;
          const [opcode, name] = OPCODES[kind];
          const [a = 0n, b = 0n, d = 0n, e = 0n] = args;
          const { ret, out, logged } = model[kind](a, b, d, e);
          expect(hypercalls.call(opcode, args), label).toEqual({ ret: Number(ret), out });
          const pci = (a & 0x8000_0000n) === 0n ? '' : 'pci_';
          const log = events.filter((event) => event.name !== 'hcall');
          expect(
            log.map((event) => [event.name, event.args]),
            label,
          ).toEqual(logged === undefined ? [] : [[`spapr_iommu_${pci}${name}`, logged]]);
        }
      }

      for (const [liobn, { shift, offset, size, entries }] of model.windows) {
        // In a window that is not aligned to its own pages, truncation finds the entry before.
        for (const index of [...entries.keys(), 0n, size]) {
          const { ret, out } = model.get(liobn, u64(offset + (index << shift)));
          const answer = hypercalls.call(H_GET_TCE, [liobn, u64(offset + (index << shift))]);
          expect(answer).toEqual({ ret: Number(ret), out });
        }
      }
      pciWindows.forEach(({ entries }, i) => {
        const table = phb.tables[i] as TceTable;
        for (const [index, entry] of entries) expect(table.get(Number(index))).toBe(entry);
      });
      const live = pciWindows.map(
        ({ entries }) => [...entries.values()].filter((entry) => entry & 3n).length,
      );
      expect(phb.tables.map((table) => table.live)).toEqual(live);
    }),
    { numRuns: 600 },
  );
}, 60_000);
