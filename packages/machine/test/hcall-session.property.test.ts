/** Random lines never break a session; random hypercalls answer as they do without JSON between. */
import { createGuestMemory } from '@pinhole/memory';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { HcallSession, parseMachine } from '../src/index.js';
import { createSpaprMachine } from '../src/spapr-config.js';

const MACHINE = ['machine.arch=pseries', 'machine.memory=1MiB', 'machine.vio=[{reg: 0x2000}]'];
const OPCODES = [0x1c, 0x20, 0x138, 0x13c, 0xf000, 0x24];
const TOKENS = [0x2010, 0x2026, 0x2027, 0x2028, 0x2029, 0x2030];

const register = fc.oneof(
  fc.constantFrom(0x8000_0000n, 0x8000_0001n, 0x2000n, 0n, 1n, 3n, 0x800_0000_0000_0000n),
  fc.bigInt(0n, 0x4000_0000n),
  fc.bigInt(0n, 2n ** 64n - 1n),
);
const cell = fc.oneof(
  fc.constantFrom(0, 12, 16, 20, 0x800_0000, 0x2000_0000, 0x8000_0000, 0x8000_0001, 0x2000),
  fc.nat({ max: 0xffff_ffff }),
);
const spelling = fc.constantFrom('hex', 'HEX', 'decimal', 'number');

function spell(value: bigint, how: string): string | number {
  if (how === 'number' && value < 2n ** 53n) return Number(value);
  if (how === 'hex') return `0x${value.toString(16)}`;
  return how === 'HEX' ? `0X${value.toString(16).toUpperCase()}` : value.toString();
}

const call = fc.record({
  opcode: fc.constantFrom(...OPCODES),
  args: fc.array(fc.tuple(register, spelling), { maxLength: 9 }),
});
const rtasCall = fc.record({
  token: fc.constantFrom(...TOKENS),
  cells: fc.array(cell, { maxLength: 6 }),
  nret: fc.nat({ max: 7 }),
});

test.each(['qemu', 'kvm'] as const)('%s: JSON changes no call and no answer', (handler) => {
  const config = parseMachine([...MACHINE, `machine.tceHandler=${handler}`]);
  fc.assert(
    fc.property(fc.array(fc.oneof(call, rtasCall), { maxLength: 40 }), (calls) => {
      const session = new HcallSession(config);
      const regions = [{ base: 0, size: 2 ** 20 }];
      const { hypercalls } = createSpaprMachine(config, { memory: createGuestMemory({ regions }) });
      for (const one of calls) {
        if ('opcode' in one) {
          const args = one.args.map(([value, how]) => spell(value, how));
          const answer = session.answer(JSON.stringify({ op: one.opcode, args }));
          const registers = one.args.map(([value]) => value);
          const { ret, out } = hypercalls.call(one.opcode, registers);
          expect(answer).toEqual({ ret, out: out.map((value) => `0x${value.toString(16)}`) });
        } else {
          const { token, cells, nret } = one;
          const line = JSON.stringify({ rtas: token, args: cells, nret });
          const { rets } = session.answer(line) as { rets: (number | null)[] };
          const written = hypercalls.rtas(token, cells, nret);
          expect(rets.slice(0, written.length).map((value) => Number(value) >>> 0)).toEqual(
            written.map((value) => value >>> 0),
          );
          expect(rets.slice(written.length).every((value) => value === null)).toBe(true);
          expect(rets.length).toBe(Math.max(nret, written.length));
        }
      }
    }),
    { numRuns: 100 },
  );
});

const GOOD = [
  '{"op":"H_PUT_TCE","args":["0x80000000","0x1000","0x5003"]}',
  '{"rtas":"ibm,create-pe-dma-window","args":[0,134217728,536870912,12,20],"nret":4}',
  '{"write":{"gpa":"0x1000","hex":"00ff"}}',
  '{"read":{"gpa":4096,"length":16}}',
  '{"restore":{"schemaVersion":1,"iommu":{"phbs":[],"vio":[]}}}',
  '{"save":true}',
];
const edit = fc.record({
  at: fc.nat({ max: 100 }),
  remove: fc.nat({ max: 4 }),
  insert: fc.constantFrom(
    '',
    '"',
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '-',
    '9',
    'e9',
    '\\',
    '\0',
    'null',
  ),
});
const damaged = fc
  .tuple(fc.constantFrom(...GOOD), fc.array(edit, { maxLength: 4 }))
  .map(([line, edits]) =>
    edits.reduce(
      (text, { at, remove, insert }) => text.slice(0, at) + insert + text.slice(at + remove),
      line,
    ),
  );

test('whatever a line has, it is answered, and the answer is JSON', () => {
  const session = new HcallSession(parseMachine(MACHINE));
  let line = 0;
  const anyLine = fc.oneof(damaged, fc.json(), fc.string({ unit: 'binary' }));
  fc.assert(
    fc.property(anyLine, (text) => {
      line += 1;
      const answer = session.answer(text);
      if (answer === undefined) {
        expect(text.trim()).toBe('');
        return;
      }
      const copy = JSON.parse(JSON.stringify(answer)) as { error?: { line: number } };
      expect(copy).toEqual(answer);
      if (copy.error !== undefined) expect(copy.error.line).toBe(line);
    }),
    { numRuns: 1000, endOnFailure: true },
  );
});
