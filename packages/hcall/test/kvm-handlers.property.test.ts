/** KVM's in-kernel handlers, with QEMU's behind them, against a second implementation of both. */
import { SpaprIommu, SpaprPhb, SpaprVioDevice, type TceTable } from '@pinhole/tce';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  createSpaprHypercalls,
  H_GET_TCE,
  H_PUT_TCE,
  H_PUT_TCE_INDIRECT,
  H_STUFF_TCE,
} from '../src/index.js';
import { CountingWindow, createKvmMemory, KvmReference } from './support/kvm-reference.js';
import { u64 } from './support/reference.js';

const FIRST = 0x8000_0000n;
const SECOND = 0x8000_0001n;
const VIO = 0x7100_0000n;
const LIOBNS = [FIRST, SECOND, VIO];
const LISTS = [0x1000n, 0x1_f000n, 0x4_7000n, 0x100_f000n];

interface Config {
  readonly shift: number;
  readonly offset: bigint;
  readonly size: number;
}

const wild = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
// 11 and 35 are no page shifts to the kernel; the last offsets reach to the end of 64 bits.
const config: fc.Arbitrary<Config> = fc.record({
  shift: fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom(12, 16, 24) },
    { weight: 1, arbitrary: fc.constantFrom(11, 21, 34, 35, 40) },
  ),
  offset: fc.oneof(
    { weight: 5, arbitrary: fc.constantFrom(0n, 0x1000n, 0x1_0000n, 0x100_0000n, 2n ** 59n) },
    { weight: 3, arbitrary: fc.constantFrom(0x800n, 0x1_1000n, 0x180_0000n, 2n ** 59n + 0x1800n) },
    { weight: 1, arbitrary: fc.constantFrom(2n ** 64n - 0x10_0000n, 2n ** 64n - 2n ** 34n) },
  ),
  size: fc.constantFrom(1, 9, 64, 512, 600, 2000),
});

const liobn = fc.oneof(
  { weight: 15, arbitrary: fc.constantFrom(0, 1, 2) },
  { weight: 1, arbitrary: fc.constantFrom(0x1_8000_0000n, 0x8000_0002n, 0n) },
);
/** An address by the window's own measures: page `page`, counted from `from`, and `low` more. */
const ioba = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      from: fc.constantFrom('page', 'page', 'page', 'offset', 'end'),
      page: fc.oneof(
        { weight: 3, arbitrary: fc.constantFrom(0n, 1n, 2n, 5n) },
        { weight: 2, arbitrary: fc.constantFrom(8n, 9n, 88n, 511n, 512n, -1n, -2n, -9n, -512n) },
      ),
      low: fc.oneof(
        { weight: 9, arbitrary: fc.constant(0n) },
        { weight: 1, arbitrary: fc.constantFrom(1n, 0x800n, 0xfffn, 0x1000n) },
      ),
    }),
  },
  { weight: 1, arbitrary: wild },
);
const frame = fc.constantFrom(
  // Memory, aligned to 4 KiB, 64 KiB, 16 MiB.
  ...[0n, 0x1000n, 0x1_0000n, 0x3_f000n, 0x100_0000n, 0x201_0000n],
  // Half a page of the host, a hole, nowhere.
  ...[0x4_0000n, 0x4_7000n, 0x2_0000n, 0x200_8000n, 0x200_0000n, 2n ** 40n, 2n ** 63n],
);
const tce = fc.oneof(
  {
    weight: 10,
    arbitrary: fc
      .tuple(frame, fc.constantFrom(0n, 1n, 2n, 3n, 3n, 3n, 4n, 7n, 0x803n))
      .map(([page, low]) => page + low),
  },
  { weight: 1, arbitrary: wild },
);
const stuffed = fc.oneof(fc.constantFrom(0n, 0n, 4n, 0xdead_0000_0000_0ffcn, 1n, 0x1000n), tce);
const npages = fc.oneof(
  { weight: 9, arbitrary: fc.constantFrom(0n, 1n, 2n, 3n, 4n, 9n, 10n, 64n, 65n, 511n, 512n) },
  { weight: 2, arbitrary: fc.constantFrom(513n, 600n, 601n, 2000n, 2n ** 32n, 2n ** 64n - 1n) },
  { weight: 1, arbitrary: wild },
);
const list = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom(...LISTS, 0n) },
  { weight: 2, arbitrary: fc.constantFrom(0x1008n, 0x2_0000n, 0x200_8000n, 2n ** 63n, 4n) },
);
/** Lists are written beside the calls: `words` from their start, then again and again. */
const call = fc.oneof(
  fc.record({ kind: fc.constant('put' as const), liobn, ioba, tce }),
  fc.record({ kind: fc.constant('get' as const), liobn, ioba }),
  fc.record({
    kind: fc.constant('indirect' as const),
    liobn,
    ioba,
    list,
    npages,
    words: fc.oneof(
      fc.array(tce, { minLength: 1, maxLength: 5 }),
      // Nothing that is too hard.
      fc.array(fc.constantFrom(0n, 3n, 0x100_0001n, 4n), { minLength: 1, maxLength: 5 }),
      fc.constantFrom([3n, 0x100_0003n, 0x900_0000n], [2n ** 63n, 3n]),
    ),
  }),
  fc.record({ kind: fc.constant('stuff' as const), liobn, ioba, tce: stuffed, npages }),
);

function setUp(configs: readonly Config[]) {
  const memory = createKvmMemory();
  const phb = new SpaprPhb({ memory });
  const vio = new SpaprVioDevice({ reg: Number(VIO), memory });
  const iommu = new SpaprIommu({ phbs: [phb], vio: [vio] });
  const hypercalls = createSpaprHypercalls({ iommu, memory, tceHandler: 'kvm' });
  const model = new KvmReference();
  const heard = LIOBNS.map((number, i) => {
    const table = iommu.findTable(number) as TceTable;
    const { shift, offset, size } = configs[i] as Config;
    table.disable();
    table.enable({ pageShift: shift, busOffset: offset, nbTable: size });
    const count = { events: 0 };
    table.addNotifier({
      notify: () => {
        count.events += 1;
      },
    });
    const window = new CountingWindow();
    window.open(BigInt(shift), offset, BigInt(size));
    model.windows.set(number, window);
    return { table, window, count };
  });
  return { memory, hypercalls, model, heard };
}

const seen = { calls: 0, inKernel: 0, successes: 0, partial: 0, stored: 0 };

test('any sequence of calls answers and leaves what KVM and QEMU would, and notifies as they do', () => {
  fc.assert(
    fc.property(
      fc.tuple(config, config, config),
      fc.array(call, { minLength: 10, maxLength: 30 }),
      (configs, calls) => {
        const { memory, hypercalls, model, heard } = setUp(configs);
        for (const c of calls) {
          const number = typeof c.liobn === 'number' ? (LIOBNS[c.liobn] as bigint) : c.liobn;
          const { shift, offset, size } = configs[
            typeof c.liobn === 'number' ? c.liobn : 0
          ] as Config;
          const by = BigInt(shift);
          const at = ((): bigint => {
            if (typeof c.ioba === 'bigint') return c.ioba;
            const { from, page, low } = c.ioba;
            const start = from === 'offset' ? offset : (offset >> by) << by;
            const first = from === 'end' ? start + (BigInt(size) << by) : start;
            return u64(first + (page << by) + low);
          })();
          if (c.kind === 'indirect' && LISTS.includes(c.list)) {
            for (let i = 0n; i < 512n; i += 1n) {
              const word = c.words[Number(i) % c.words.length] as bigint;
              memory.writeU64Be(Number(c.list + i * 8n), word);
              model.words.set(c.list + i * 8n, word);
            }
          }
          const args = {
            put: () => [number, at, c.kind === 'put' ? c.tce : 0n],
            get: () => [number, at],
            indirect: () => (c.kind === 'indirect' ? [number, at, c.list, c.npages] : []),
            stuff: () => (c.kind === 'stuff' ? [number, at, c.tce, c.npages] : []),
          }[c.kind]();
          const opcode = {
            put: H_PUT_TCE,
            get: H_GET_TCE,
            indirect: H_PUT_TCE_INDIRECT,
            stuff: H_STUFF_TCE,
          }[c.kind];
          const [a = 0n, b = 0n, d = 0n, e = 0n] = args;
          const { ret, out } = model[c.kind](a, b, d, e);
          const label = `${c.kind} ${args.map((word) => `0x${word.toString(16)}`).join(' ')}`;
          expect(hypercalls.call(opcode, args), label).toEqual({ ret: Number(ret), out });
          if (ret === 0n) seen.successes += 1;
        }
        seen.calls += calls.length;
        seen.inKernel += model.inKernel;
        seen.partial += model.partial;
        for (const { table, window, count } of heard) {
          expect(count.events).toBe(window.puts);
          const found: [number, bigint][] = [];
          table.forEachEntry((index, hi, lo) => {
            found.push([index, (BigInt(hi) << 32n) | BigInt(lo)]);
          });
          const expected = [...window.entries]
            .filter(([, entry]) => entry !== 0n)
            .map(([index, entry]): [number, bigint] => [Number(index), entry])
            .sort(([x], [y]) => x - y);
          expect(found).toEqual(expected);
          seen.stored += expected.length;
        }
      },
    ),
    { numRuns: 300 },
  );
  // The calls were not all refused, and neither side had it all.
  expect(seen.inKernel / seen.calls).toBeGreaterThan(0.3);
  expect(seen.inKernel / seen.calls).toBeLessThan(0.9);
  expect(seen.successes / seen.calls).toBeGreaterThan(0.2);
  expect(seen.partial).toBeGreaterThan(2);
  expect(seen.stored).toBeGreaterThan(1000);
}, 60_000);
