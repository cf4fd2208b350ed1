/** A machine that was saved and restored goes on as the one that was not. */
import { type TraceEvent, Tracer } from '@pinhole/base';
import { createGuestMemory, DmaAccess, type DmaSpace } from '@pinhole/memory';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  H_GET_TCE,
  H_PUT_TCE,
  H_PUT_TCE_INDIRECT,
  H_STUFF_TCE,
  RTAS_TOKENS,
  type RtasCallName,
  SpaprMachine,
  type TceHandler,
} from '../src/index.js';

const BUIDS = [0x2000_0000, 0x2000_0001];
const VIO = [0x2000, 0x7100_0000];
const LIOBNS = [0x8000_0000n, 0x8000_0001n, 0x8000_0100n, 0x8000_0101n, 0x2000n, 0x7100_0000n];
const WINDOW_2 = 2n ** 59n;
const LIST = 0x1000n;

const memory = createGuestMemory({ regions: [{ base: 0, size: 0x20_0000 }] });
for (let i = 0; i < 512; i += 1) {
  // Steps, the same again and again, no permission, nonsense: what lists can hold.
  const kinds = [(BigInt(i) << 12n) | 3n, 0x5001n, 0n, BigInt(i) * 0x0123_4567_89ab_cdefn];
  memory.writeU64Be(Number(LIST) + i * 8, kinds[(i >> 6) % 4] as bigint);
}

function build(tceHandler: TceHandler) {
  const events: TraceEvent[] = [];
  const machine = new SpaprMachine({
    memory,
    tceHandler,
    phbs: [
      { dmaWindowSize: 0x100 * 4096 },
      { index: 1, dmaWindowSize: 0x20_0000, dmaWindowAddress: 0x1000n, limitedAddressMode: true },
    ],
    vio: [{ reg: 0x2000 }, { reg: 0x7100_0000, windowSize: 0x10_0000 }],
    tracer: new Tracer({ emit: (event) => events.push(event) }),
  });
  return { machine, events };
}

/** A window and an address that is likely in it. */
const target = fc
  .record({
    window: fc.constantFrom<[liobn: bigint, base: bigint]>(
      [0x8000_0000n, 0n],
      [0x8000_0001n, WINDOW_2],
      [0x8000_0100n, 0x1000n],
      [0x8000_0101n, WINDOW_2],
      [0x8000_0101n, 2n ** 32n],
      [0x2000n, 0n],
      [0x7100_0000n, 0n],
      [0x8000_0001n, 0n],
    ),
    page: fc.oneof(fc.nat({ max: 20 }), fc.nat({ max: 600 }), fc.constantFrom(0xff, 0x100, 0x1ff)),
    shift: fc.constantFrom(12n, 12n, 16n),
    low: fc.constantFrom(0n, 0n, 0n, 0n, 5n),
  })
  .map(({ window: [liobn, base], page, shift, low }): [liobn: bigint, ioba: bigint] => [
    liobn,
    base + (BigInt(page) << shift) + low,
  ]);
const tce = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fc.constantFrom(0n, 3n, 0x5001n, 0x1_0003n, 4n),
);
const npages = fc
  .oneof(fc.nat({ max: 20 }), fc.nat({ max: 200 }), fc.constantFrom(0, 1, 512, 5000))
  .map(BigInt);
const cell = fc.constantFrom(0, 1, 12, 16, 24, 28, 32, 5);
const phb = fc.nat({ max: 1 });

type Call = (machine: SpaprMachine) => unknown;
const hcall =
  (opcode: number, ...args: bigint[]): Call =>
  ({ hypercalls }) =>
    hypercalls.call(opcode, args);
const rtas =
  (name: RtasCallName, args: readonly number[], nret: number): Call =>
  ({ hypercalls }) =>
    hypercalls.rtas(RTAS_TOKENS[name], args, nret);
const buid = (index: number) => [0, 0x0800_0000, BUIDS[index] as number];

const call: fc.Arbitrary<Call> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.oneof(
      fc.tuple(target, tce).map(([at, value]) => hcall(H_PUT_TCE, ...at, value)),
      fc.tuple(target, tce, npages).map(([at, value, n]) => hcall(H_STUFF_TCE, ...at, value, n)),
      fc.tuple(target, npages).map(([at, n]) => hcall(H_PUT_TCE_INDIRECT, ...at, LIST, n)),
      target.map((at) => hcall(H_GET_TCE, ...at)),
    ),
  },
  {
    weight: 2,
    arbitrary: fc.oneof(
      fc
        .tuple(phb, fc.constantFrom(12, 16, 24), fc.integer({ min: 20, max: 30 }))
        .map(([i, page, size]) => rtas('ibm,create-pe-dma-window', [...buid(i), page, size], 4)),
      fc
        .constantFrom(...LIOBNS)
        .map((number) => rtas('ibm,remove-pe-dma-window', [Number(number)], 1)),
      phb.map((i) => rtas('ibm,query-pe-dma-window', buid(i), 6)),
      fc
        .tuple(phb, fc.array(cell, { maxLength: 1 }))
        .map(([i, mode]) => rtas('ibm,reset-pe-dma-window', [...buid(i), ...mode], 1)),
      fc
        .tuple(fc.constantFrom(...VIO), fc.nat({ max: 1 }))
        .map((args) => rtas('ibm,set-tce-bypass', args, 1)),
    ),
  },
);

/** Every entry of every window, as the guest reads it. */
function entries(machine: SpaprMachine): bigint[][] {
  return LIOBNS.map((number) => {
    const table = machine.iommu.findTable(number);
    if (table === undefined) return [];
    // The large VIO window: its start.
    const count = Math.min(table.nbTable, 2100);
    return Array.from({ length: count }, (_, i) => {
      const address = table.busOffset + (BigInt(i) << BigInt(table.pageShift));
      return machine.hypercalls.call(H_GET_TCE, [number, address]).out[0] ?? -1n;
    });
  });
}

/** What devices find: of each bridge and each VIO device, at some addresses. */
function translations(machine: SpaprMachine): unknown[] {
  const out = { gpa: 0, length: 0 };
  const addresses = [0, 0x1008, 0x2_0000, 0xff_f000].flatMap((lo) =>
    [0, 1, 0x400, 0x0800_0000].map((hi): [number, number] => [hi, lo]),
  );
  const spaces: readonly DmaSpace[] = [...machine.iommu.phbs, ...machine.iommu.vio];
  return spaces.flatMap((space) =>
    addresses.map(([hi, lo]) => {
      Object.assign(out, { gpa: -1, length: -1 });
      return [space.translate(hi, lo, 8192, DmaAccess.READ, out), out.gpa, out.length];
    }),
  );
}

const withoutTime = (events: readonly TraceEvent[]) => events.map(({ t: _, ...event }) => event);

test.each(['qemu', 'kvm'] as const)(
  'with %s’s handlers: the same entries, answers, logs',
  (handler) => {
    let restored = 0;
    fc.assert(
      fc.property(
        fc.array(call, { minLength: 10, maxLength: 40 }),
        fc.array(call, { maxLength: 3 }),
        fc.array(call, { maxLength: 25 }),
        (before, elsewhere, after) => {
          const one = build(handler);
          for (const act of before) act(one.machine);
          const saved = one.machine.save();
          const file = JSON.stringify(saved);
          const two = build(handler);
          // What the second machine did before is gone.
          for (const act of elsewhere) act(two.machine);
          two.machine.restore(JSON.parse(file));
          restored += file.match(/\[\d+,\d+,"0x/g)?.length ?? 0;

          expect(JSON.stringify(two.machine.save())).toBe(file);
          expect(JSON.stringify(one.machine.save())).toBe(file);
          expect(entries(two.machine)).toEqual(entries(one.machine));
          expect(translations(two.machine)).toEqual(translations(one.machine));
          one.events.length = 0;
          two.events.length = 0;
          for (const act of after) expect(act(two.machine)).toEqual(act(one.machine));
          expect(withoutTime(two.events)).toEqual(withoutTime(one.events));
          expect(two.machine.save()).toEqual(one.machine.save());
          expect(translations(two.machine)).toEqual(translations(one.machine));
        },
      ),
      { numRuns: 200 },
    );
    expect(restored).toBeGreaterThan(200);
  },
);
