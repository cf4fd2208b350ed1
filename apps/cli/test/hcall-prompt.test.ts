/** `pinhole hcall` at a terminal: words, completion, what a person reads. */
import { spawnSync } from 'node:child_process';
import { HcallSession, parseMachine } from '@pinhole/machine';
import { describe, expect, test } from 'vitest';
import { respond } from '../src/hcall-prompt.js';
import { complete, helpText, wordsToRequest } from '../src/hcall-words.js';
import { PROGRAM } from './pinhole.js';

/** Of util-linux: gives a program a terminal. Not everywhere. */
const SCRIPT = 'script';
const hasScript = spawnSync(SCRIPT, ['-qec', 'true', '/dev/null']).status === 0;

function start(...set: readonly string[]): (line: string, width?: number) => string {
  const session = new HcallSession(
    parseMachine(['machine.arch=pseries', 'machine.memory=1MiB', ...set]),
  );
  return (line, width = 80) => respond(session, line, width);
}

describe('words become requests', () => {
  test.each([
    [
      'H_PUT_TCE 0x80000000 4096  0x5003',
      { op: 'H_PUT_TCE', args: ['0x80000000', '4096', '0x5003'] },
    ],
    ['0x20 1', { op: '0x20', args: ['1'] }],
    ['ibm,remove-pe-dma-window 7', { rtas: 'ibm,remove-pe-dma-window', args: ['7'], nret: 1 }],
    [
      'ibm,query-pe-dma-window 0 nret=6',
      { rtas: 'ibm,query-pe-dma-window', args: ['0'], nret: '6' },
    ],
    ['rtas 0x2026 0 nret=2', { rtas: '0x2026', args: ['0'], nret: '2' }],
    ['rtas 1', { rtas: '1', args: [], nret: 1 }],
    ['write 0x10 0x00ff', { write: { gpa: '0x10', hex: '00ff' } }],
    ['write 0x10 00 ff', { write: { gpa: '0x10', hex: '00ff' } }],
    ['read 0x10 0x20', { read: { gpa: '0x10', length: '0x20' } }],
    ['reset', { reset: true }],
    ['reset now', 'expected reset alone, found "now"'],
    ['rtas', 'expected rtas TOKEN ARGS nret=4'],
    ['read 0', 'expected read GPA LENGTH'],
    ['read 0 1 2', 'expected read GPA LENGTH, found "2" behind it'],
    ['write', 'expected write GPA HEX'],
    ['h_put_tce 1', 'expected H_PUT_TCE, found "h_put_tce"'],
  ])('%s', (line, request) => expect(wordsToRequest(line)).toEqual(request));

  test('what is no word is answered by all there are', () => {
    for (const line of ['foo', '__proto__', 'constructor', '\u001b[31mx', '-1', '[]']) {
      expect(wordsToRequest(line)).toContain(
        `found ${JSON.stringify(line)}, expected one of H_GET_TCE`,
      );
    }
  });
});

describe('what a person reads', () => {
  test('hypercalls', () => {
    const ask = start();
    expect(ask('H_PUT_TCE 0x80000000 0x1000 0x5003')).toBe('0 H_SUCCESS');
    expect(ask('H_GET_TCE 0x80000000 0x1000')).toBe('0 H_SUCCESS  r4 = 0x5003');
    expect(ask('0x999')).toBe('-2 H_FUNCTION: there is no such call');
    expect(ask('H_GET_TCE 1')).toBe(
      '-4 H_PARAMETER\n(H_GET_TCE takes LIOBN IOBA: what is missing was read as 0)',
    );
    expect(ask('H_GET_TCE 0x80000000 0 9')).toContain('the rest was not looked at)');
    expect(ask('H_GET_TCE x')).toMatch(/^args\[0\]: expected a 64-bit value: .* found "x"$/);
    expect(ask('{"op":"H_GET_TCE","args":[2147483648,4096]}')).toBe('0 H_SUCCESS  r4 = 0x5003');
    expect(ask('{"op":')).toContain('expected JSON');
  });

  test('RTAS calls', () => {
    const ask = start();
    const create = 'ibm,create-pe-dma-window 0 0x8000000 0x20000000 24 31';
    expect(ask(create).split('\n')).toEqual([
      'status 0 success',
      '  LIOBN:        0x80000001',
      '  bus address:  0x800000000000000',
    ]);
    expect(ask(create)).toBe('status -1 hardware error');
    const query = 'ibm,query-pe-dma-window 0 0x8000000 0x20000000';
    expect(ask(query).split('\n')).toEqual([
      'status 0 success',
      '  windows left: 0',
      '  most pages:   0x80000000',
      '  page sizes:   0x107 (4 KiB, 64 KiB, 2 MiB, 16 MiB)',
      '  migration:    0x0',
    ]);
    expect(ask(`${query} nret=6`)).toContain('most pages:   0x2000000000');
    expect(ask('rtas 0x2026 0 0x8000000 0x20000000 nret=5')).toBe(ask(query));
    expect(ask(`${query} nret=7`)).toBe('status -3 parameter error');
    expect(ask(`${query} nret=x`)).toBe('nret: expected a whole number from 0 to 64, found "x"');
    expect(ask('ibm,remove-pe-dma-window')).toBe(
      'status -3 parameter error\n(ibm,remove-pe-dma-window takes LIOBN: found 0)',
    );
  });

  test('windows', () => {
    const ask = start('machine.vio=[{reg: 0x2000}]');
    ask('H_PUT_TCE 0x80000000 0 3');
    ask('ibm,set-tce-bypass 0x2000 1');
    expect(ask('windows').split('\n')).toEqual([
      'LIOBN 0x80000000 (PCI host bridge 0): 262144 pages of 4 KiB from 0x0, 1 mapped',
      'LIOBN 0x2000 (vdevice@2000): 65536 pages of 4 KiB from 0x0, 0 mapped; bypassed',
    ]);
    const bare = start();
    expect(bare('ibm,remove-pe-dma-window 0x80000000')).toBe('status 0 success');
    expect(bare('windows')).toBe('no window is open');
  });

  test('memory, and a state to be given back', () => {
    const ask = start();
    expect(ask('write 0x1008 00ff')).toBe('done');
    expect(ask('read 0x1000 18').split('\n')).toEqual([
      '0x1000  00 00 00 00 00 00 00 00 00 ff 00 00 00 00 00 00',
      '0x1010  00 00',
    ]);
    expect(ask('read 0x1008 9', 40)).toBe('0x1008  00 ff 00 00 00 00 00 00\n0x1010  00');
    expect(ask('read 0 0')).toBe('no bytes');
    expect(ask('read 0x100000 1')).toContain('expected 1 bytes of guest memory');
    expect(ask(ask('{"save":true}'))).toBe('done');
    expect(ask('reset')).toBe('done');
  });
});

test('help names every call, and says of one what it takes', () => {
  const words = complete('')[0].map((word) => word.trim());
  for (const word of words.filter((name) => /^(H_|KVMPPC|ibm,)/.test(name))) {
    expect(helpText()).toContain(`  ${word} `);
    expect(helpText(word)).toContain(word);
  }
  expect(helpText('ibm,create-pe-dma-window')).toMatch(
    /PAGE_SHIFT WINDOW_SHIFT {2}\(answers 4 cells/,
  );
  expect(helpText('foo')).toContain('found "foo"');
});

test('Tab completes the first word, and a call after help', () => {
  expect(complete('H_PUT')).toEqual([['H_PUT_TCE ', 'H_PUT_TCE_INDIRECT '], 'H_PUT']);
  expect(complete('ibm,cr')).toEqual([['ibm,create-pe-dma-window '], 'ibm,cr']);
  expect(complete('help H_G')).toEqual([['H_GET_TCE '], 'H_G']);
  expect(complete('H_PUT_TCE 0x')).toEqual([[], 'H_PUT_TCE 0x']);
});

describe.skipIf(!hasScript)('at a terminal', () => {
  // Keys are typed ahead; the program reads them when it is there.
  function type(keys: string): { code: number | null; shown: string } {
    const command = PROGRAM.map((word) => `'${word}'`).join(' ');
    const { status, stdout } = spawnSync(SCRIPT, ['-qec', `${command} hcall`, '/dev/null'], {
      encoding: 'utf8',
      input: keys,
      env: { ...process.env, TERM: 'xterm', COLUMNS: '80' },
    });
    return { code: status, shown: stdout };
  }

  test('words are answered, Ctrl-D leaves', () => {
    const { code, shown } = type(
      'H_PUT_TCE 0x80000000 0x1000 0x5003\rH_GET_TCE 0x80000000 0x1000\r\u0004',
    );
    expect(shown).toContain('hcall> ');
    expect(shown).toContain('0 H_SUCCESS  r4 = 0x5003');
    expect(code).toBe(0);
  });

  test('quit leaves', () => {
    expect(type('reset\rquit\r').code).toBe(0);
  });
});
