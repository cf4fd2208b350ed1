/** The NDJSON protocol of `pinhole hcall`: what each request answers, and what no request can break. */
import { describe, expect, test } from 'vitest';
import { HcallSession, MAX_HCALL_LINE, parseMachine } from '../src/index.js';

const MIB = 2 ** 20;
const LIOBN = '0x80000000';
const BUID = [0x800_0000, 0x2000_0000];
const DEEP = 100_000;

function start(...set: readonly string[]): HcallSession {
  return new HcallSession(parseMachine(['machine.arch=pseries', 'machine.memory=1MiB', ...set]));
}

const session = start();
const ask = (request: unknown, of: HcallSession = session): unknown =>
  of.answer(JSON.stringify(request));
const messageOf = (line: string, of: HcallSession = session): string => {
  const { error } = of.answer(line) as { error?: { code: string; message: string } };
  return error === undefined ? 'no error' : `${error.code}: ${error.message}`;
};

describe('hypercalls', () => {
  test.each([['H_PUT_TCE'], [0x20], ['32'], ['0x20'], ['0X20']])('by name or number: %s', (op) => {
    const fresh = start();
    expect(ask({ op, args: [LIOBN, '0x1000', '0x5003'] }, fresh)).toEqual({ ret: 0, out: [] });
    const got = ask({ op: 'H_GET_TCE', args: [0x8000_0000, '4096'] }, fresh);
    expect(got).toEqual({ ret: 0, out: ['0x5003'] });
  });

  test('all 64 bits of a register arrive, however they are written', () => {
    for (const [given, kept] of [
      ['0xffffffffffffffff', '0xffffffffffffffff'],
      ['18446744073709551615', '0xffffffffffffffff'],
      ['9007199254740993', '0x20000000000001'],
      [Number.MAX_SAFE_INTEGER, '0x1fffffffffffff'],
      ['0xABCDEF', '0xabcdef'],
      [0, '0x0'],
    ] as const) {
      ask({ op: 'H_PUT_TCE', args: [LIOBN, 0, given] });
      expect(ask({ op: 'H_GET_TCE', args: [LIOBN, 0] })).toEqual({ ret: 0, out: [kept] });
    }
  });

  test('arguments that are left out are 0; there are nine registers', () => {
    expect(ask({ op: 'H_GET_TCE', args: [LIOBN] })).toEqual({ ret: 0, out: ['0x0'] });
    expect(ask({ op: 'H_GET_TCE' })).toEqual({ ret: -4, out: [] });
    expect(ask({ op: 'H_GET_TCE', args: [LIOBN, 0, 3, 4, 5, 6, 7, 8, 9] })).toMatchObject({
      ret: 0,
    });
    expect(messageOf('{"op":"H_GET_TCE","args":[0,1,2,3,4,5,6,7,8,9]}')).toBe(
      'E_REQUEST: args: expected a list of at most 9, found a list of 10',
    );
  });

  test.each([4, 0x24, '0xf001', '18446744073709551615', '9007199254740993', '0x8000000000000020'])(
    'H_FUNCTION for %s, which is no opcode',
    (op) => expect(ask({ op })).toEqual({ ret: -2, out: [] }),
  );

  test('H_PUT_TCE_INDIRECT and RTAS read what was written to memory', () => {
    const fresh = start();
    ask({ write: { gpa: '0x2000', hex: '00000000000050030000000000006001' } }, fresh);
    expect(ask({ op: 'H_PUT_TCE_INDIRECT', args: [LIOBN, 0x4000, 0x2000, 2] }, fresh)).toEqual({
      ret: 0,
      out: [],
    });
    expect(ask({ op: 'H_GET_TCE', args: [LIOBN, 0x5000] }, fresh)).toEqual({
      ret: 0,
      out: ['0x6001'],
    });
    const query = ['00002026', '00000003', '00000005', '00000000', '08000000', '20000000'].join('');
    ask({ write: { gpa: 0x3000, hex: query } }, fresh);
    expect(ask({ op: 'KVMPPC_H_RTAS', args: [0x3000] }, fresh)).toEqual({ ret: 0, out: [] });
    expect(ask({ read: { gpa: 0x3018, length: 20 } }, fresh)).toEqual({
      hex: '0000000000000001800000000000010700000000',
    });
  });
});

describe('RTAS calls', () => {
  const query = 'ibm,query-pe-dma-window';

  test('status signed, the other cells unsigned', () => {
    const fresh = start();
    const create = { rtas: 'ibm,create-pe-dma-window', args: [0, ...BUID, 24, 31], nret: 4 };
    expect(ask(create, fresh)).toEqual({ rets: [0, 0x8000_0001, 0x800_0000, 0] });
    expect(ask(create, fresh)).toEqual({ rets: [-1, null, null, null] });
    expect(ask({ rtas: query, args: [0, ...BUID], nret: 5 }, fresh)).toEqual({
      rets: [0, 0, 0x8000_0000, 0x107, 0],
    });
  });

  test.each([[0x2026], ['0x2026'], ['8230'], [query]])('by name or token: %s', (rtas) => {
    expect(ask({ rtas, args: [0, ...BUID], nret: 6 })).toEqual({ rets: [0, 1, 0x20, 0, 0x107, 0] });
  });

  test('cells that a call does not write are null; a status that is not asked for is told', () => {
    expect(ask({ rtas: query, args: [0, ...BUID], nret: 7 })).toEqual({
      rets: [-3, null, null, null, null, null, null],
    });
    expect(ask({ rtas: query, args: [0, ...BUID], nret: 0 })).toEqual({ rets: [-3] });
    expect(ask({ rtas: query, args: [], nret: 5 })).toEqual({ rets: [-3, null, null, null, null] });
    expect(ask({ rtas: 0x1234, nret: 2 })).toEqual({ rets: [-3, null] });
  });
});

describe('memory, reset', () => {
  test('bytes go in and come out, to the last', () => {
    expect(ask({ write: { gpa: MIB - 2, hex: 'BEef' } })).toEqual({});
    expect(ask({ read: { gpa: '0xffffe', length: 2 } })).toEqual({ hex: 'beef' });
    expect(ask({ read: { gpa: 0, length: 0 } })).toEqual({ hex: '' });
    expect(ask({ write: { gpa: 0, hex: '' } })).toEqual({});
    const digits = Array.from({ length: 20_000 }, (_, i) =>
      (i % 256).toString(16).padStart(2, '0'),
    );
    ask({ write: { gpa: 7, hex: digits.join('') } });
    ask({ write: { gpa: 7, hex: digits.slice(0, 256).join('').toUpperCase() } });
    expect(ask({ read: { gpa: 7, length: 20_000 } })).toEqual({ hex: digits.join('') });
    const all = ask({ read: { gpa: 0, length: MIB } }) as { hex: string };
    expect(all.hex).toHaveLength(2 * MIB);
  });

  test.each([
    ['{"write":{"gpa":"0xfffff","hex":"abcd"}}', 'E_GPA_OUT_OF_RANGE: expected 2 bytes'],
    ['{"read":{"gpa":"0xfffff","length":2}}', 'E_GPA_OUT_OF_RANGE: expected 2 bytes'],
    ['{"read":{"gpa":"0x1fffffffffffff","length":1}}', 'E_GPA_OUT_OF_RANGE: expected 1 bytes'],
    ['{"read":{"gpa":"0x20000000000000","length":1}}', 'read.gpa: expected an address below 2^53'],
    [
      '{"read":{"gpa":0,"length":1048577}}',
      'read.length: expected a whole number from 0 to 1048576',
    ],
    ['{"read":{"gpa":0,"length":1e30}}', 'found 1e+30'],
    ['{"read":{"gpa":0}}', 'read.length: expected a whole number from 0 to 1048576, found nothing'],
    [
      '{"write":{"gpa":0,"hex":"abc"}}',
      'write.hex: expected pairs of hexadecimal digits, found "abc"',
    ],
    ['{"write":{"gpa":0,"hex":"0x00"}}', 'write.hex: expected pairs'],
    ['{"write":{"gpa":0,"hex":7}}', 'write.hex: expected pairs of hexadecimal digits, found 7'],
    ['{"write":{"gpa":0,"hex":"","x":1}}', 'write: expected no key but gpa, hex, found "x"'],
    ['{"write":null}', 'write: expected an object with gpa and hex, found null'],
  ])('%s is refused', (line, message) => expect(messageOf(line)).toContain(message));

  test('a reset empties the windows and leaves memory', () => {
    const fresh = start();
    ask({ op: 'H_PUT_TCE', args: [LIOBN, 0, 3] }, fresh);
    ask({ rtas: 'ibm,create-pe-dma-window', args: [0, ...BUID, 12, 20], nret: 4 }, fresh);
    ask({ write: { gpa: 0, hex: 'aa' } }, fresh);
    expect(ask({ reset: true }, fresh)).toEqual({});
    expect(ask({ op: 'H_GET_TCE', args: [LIOBN, 0] }, fresh)).toEqual({ ret: 0, out: ['0x0'] });
    expect(fresh.machine.iommu.phbs[0]?.activeWindows).toBe(1);
    expect(ask({ read: { gpa: 0, length: 1 } }, fresh)).toEqual({ hex: 'aa' });
  });
});

describe('what is no request is answered by an error', () => {
  const nested = (open: string, close: string): string =>
    `${open.repeat(DEEP)}1${close.repeat(DEEP)}`;

  test.each([
    ['no JSON', 'nonsense', 'E_JSON: expected JSON, found "nonsense"'],
    [
      'half of JSON',
      '{"op":"H_',
      'E_JSON: expected JSON, found "{\\"op\\":\\"H_", which ends too early',
    ],
    ['more than JSON', '{"reset":true} x', 'E_JSON: expected JSON, found "x" at column 16'],
    ['NUL', '\0', 'E_JSON: expected JSON, found "\\u0000"'],
    ['a list', '[{"reset":true}]', 'found a list of 1'],
    ['null', 'null', 'found null'],
    ['a number', '7', 'found 7'],
    [
      'no key',
      '{}',
      'exactly one of the keys op, rtas, write, read, reset, save, restore, found no key',
    ],
    ['two kinds', '{"op":1,"rtas":1}', 'found the keys "op", "rtas"'],
    ['another key', '{"op":1,"arg":[]}', 'expected no key but op, args, found "arg"'],
    ['__proto__', '{"__proto__":{"op":1}}', 'found the keys "__proto__"'],
    [
      '__proto__ as well',
      '{"op":1,"__proto__":{}}',
      'expected no key but op, args, found "__proto__"',
    ],
    ['an inherited name', '{"op":"constructor"}', 'op: expected one of H_GET_TCE, H_PUT_TCE'],
    ['an unknown name', '{"op":"H_PUT"}', 'KVMPPC_H_RTAS, or a number of 64 bits, found "H_PUT"'],
    [
      'an unknown RTAS name',
      '{"rtas":"x","nret":1}',
      'ibm,reset-pe-dma-window, or a number of 32 bits',
    ],
    ['a wide token', '{"rtas":4294967296,"nret":1}', 'rtas: expected'],
    ['a wide cell', '{"rtas":1,"args":[4294967296],"nret":1}', 'args[0]: expected a 32-bit value'],
    ['no nret', '{"rtas":1}', 'nret: expected a whole number from 0 to 64, found nothing'],
    [
      'a large nret',
      '{"rtas":1,"nret":65}',
      'nret: expected a whole number from 0 to 64, found 65',
    ],
    ['negative', '{"op":1,"args":[-1]}', 'args[0]: expected a 64-bit value'],
    ['a fraction', '{"op":1,"args":[0,1.5]}', 'args[1]: expected a 64-bit value'],
    ['no safe number', '{"op":1,"args":[9007199254740993]}', 'found 9007199254740992'],
    ['65 bits', '{"op":1,"args":["18446744073709551616"]}', 'found "18446744073709551616"'],
    ['17 digits', '{"op":"0x10000000000000020"}', 'op: expected'],
    ['empty text', '{"op":1,"args":[""]}', 'found ""'],
    ['no list', '{"op":1,"args":null}', 'args: expected a list of at most 9, found null'],
    ['false', '{"reset":false}', 'reset: expected true, found false'],
    ['deep lists', nested('[', ']'), 'found a list of 1'],
    ['a deep opcode', `{"op":${nested('[', ']')}}`, 'op: expected'],
    ['deep objects', nested('{"op":', '}'), 'op: expected'],
    ['a deep state', `{"restore":${nested('{"iommu":', '}')}}`, 'E_SAVED_STATE'],
    ['a deep version', `{"restore":{"schemaVersion":${nested('[', ']')}}}`, 'E_SAVED_STATE'],
    ['long text', `{"op":"${'9'.repeat(MIB)}"}`, 'found "9999'],
    ['many digits', `{"write":{"gpa":0,"hex":"${'ab'.repeat(7 * MIB)}"}}`, 'E_GPA_OUT_OF_RANGE'],
    ['a long line', `{"op":"${'x'.repeat(MAX_HCALL_LINE)}"}`, 'E_LINE_TOO_LONG'],
  ])('%s', (_what, line, message) => {
    expect(messageOf(line)).toContain(message);
    expect(messageOf(line).length).toBeLessThan(300);
    expect(ask({ op: 'H_GET_TCE', args: [LIOBN, 0] })).toMatchObject({ ret: 0 });
  });

  test('the number of the line counts blank ones and those that were too long', () => {
    const fresh = start();
    expect(fresh.answer('\ufeff{"reset":true}\r')).toEqual({});
    expect(fresh.answer('')).toBeUndefined();
    expect(fresh.answer(' \t\r')).toBeUndefined();
    expect(fresh.skip()).toMatchObject({ error: { line: 4, code: 'E_LINE_TOO_LONG' } });
    expect(fresh.answer('?')).toMatchObject({ error: { line: 5 } });
    expect(fresh.answer('\ufeff{"reset":true}')).toMatchObject({ error: { line: 6 } });
  });

  test('of a key that is there twice, the last counts, as in JSON', () => {
    expect(session.answer('{"op":1,"op":"H_GET_TCE"}')).toEqual({ ret: -4, out: [] });
  });

  test('a hundred thousand different opcodes cost no memory', () => {
    const fresh = start();
    for (let op = 0; op < 100_000; op += 1) fresh.answer(`{"op":${0x10_0000 + op}}`);
    expect(fresh.machine.hypercalls.counts.size).toBeLessThanOrEqual(65_536);
  });
});
