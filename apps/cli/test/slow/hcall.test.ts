/** `pinhole hcall` in a pipe: streams, signals, options. What it answers is tested in machine. */
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, describe, expect, test } from 'vitest';
import { PROGRAM, pinhole, scratchFolder } from '../pinhole.js';

const [NODE, MAIN] = PROGRAM as [string, string];
const folder = scratchFolder();
const started: ChildProcessWithoutNullStreams[] = [];
afterAll(() => {
  for (const child of started) child.kill('SIGKILL');
});

/** Runs it on a file, as bytes are. */
function hcall(input: string | Uint8Array, ...args: readonly string[]) {
  const path = join(folder, 'input');
  writeFileSync(path, input);
  const file = openSync(path, 'r');
  const { status, stdout, stderr } = spawnSync(NODE, [MAIN, 'hcall', ...args], {
    stdio: [file, 'pipe', 'pipe'],
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  closeSync(file);
  const answers = stdout.split('\n').slice(0, -1);
  return { code: status, answers, stderr };
}

function start(...args: readonly string[]): ChildProcessWithoutNullStreams {
  const child = spawn(NODE, [MAIN, 'hcall', ...args]);
  started.push(child);
  return child;
}

const GET = '{"op":"H_GET_TCE","args":["0x80000000"]}';

describe('the input', () => {
  test('a byte-order mark, CR LF, blank lines, no line feed at the end', () => {
    const { code, answers } = hcall(`\ufeff{"reset":true}\r\n\r\n\n  \n?\n${GET}`);
    expect(answers.slice(0, 1)).toEqual(['{}']);
    expect(JSON.parse(answers[1] as string)).toMatchObject({ error: { line: 5, code: 'E_JSON' } });
    expect(answers.slice(2)).toEqual(['{"ret":0,"out":["0x0"]}']);
    expect(code).toBe(0);
  });

  test('bytes that are no UTF-8, NUL, a lone surrogate', () => {
    const bytes = [Buffer.from([0xff, 0xfe, 0x0a, 0x00, 0x0a]), Buffer.from(`"\\ud800"\n${GET}\n`)];
    const { code, answers } = hcall(Buffer.concat(bytes));
    expect(answers).toHaveLength(4);
    expect(answers.slice(0, 3).every((line) => line.startsWith('{"error":'))).toBe(true);
    expect(answers[3]).toBe('{"ret":0,"out":["0x0"]}');
    expect(code).toBe(0);
  });

  test('a line of 17 MiB is one error, and the next ones work', () => {
    const long = `{"op":"${'x'.repeat(17 * 2 ** 20)}"}`;
    const { code, answers } = hcall(`${GET}\n${long}\n${GET}\n?\n${long}`);
    expect(answers).toHaveLength(5);
    expect(JSON.parse(answers[1] as string)).toMatchObject({
      error: { line: 2, code: 'E_LINE_TOO_LONG' },
    });
    expect(answers[2]).toBe('{"ret":0,"out":["0x0"]}');
    expect(JSON.parse(answers[3] as string)).toMatchObject({ error: { line: 4 } });
    expect(JSON.parse(answers[4] as string)).toMatchObject({ error: { line: 5 } });
    expect(code).toBe(0);
  });

  test('nothing at all', () => {
    expect(hcall('')).toEqual({ code: 0, answers: [], stderr: '' });
    expect(hcall('\n\n')).toEqual({ code: 0, answers: [], stderr: '' });
  });

  test('a hundred thousand lines, in order', () => {
    const lines = Array.from({ length: 100_000 }, (_, i) =>
      i % 2 === 0
        ? `{"op":"H_PUT_TCE","args":["0x80000000",0,${i}]}`
        : '{"op":28,"args":["0x80000000"]}',
    );
    const { answers } = hcall(lines.join('\n'));
    expect(answers).toHaveLength(lines.length);
    const isInOrder = answers.every((answer, i) =>
      i % 2 === 0
        ? answer === '{"ret":0,"out":[]}'
        : answer === `{"ret":0,"out":["0x${(i - 1).toString(16)}"]}`,
    );
    expect(isInOrder).toBe(true);
  });
});

describe('the stream', () => {
  test('each answer comes before the next question is asked', async () => {
    const child = start();
    const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    for (let i = 1; i <= 20; i += 1) {
      child.stdin.write(`{"op":"H_PUT_TCE","args":["0x80000000",0,${i}]}\n${GET.slice(0, 9)}`);
      expect((await answers.next()).value).toBe('{"ret":0,"out":[]}');
      child.stdin.write(`${GET.slice(9)}\n`);
      expect((await answers.next()).value).toBe(`{"ret":0,"out":["0x${i.toString(16)}"]}`);
    }
    child.stdin.end();
    expect(await once(child, 'exit')).toEqual([0, null]);
  });

  test('a reader who is slow gets all', async () => {
    const child = start();
    child.stdin.on('error', () => undefined);
    // 2 MiB an answer: far more than pipes hold.
    child.stdin.end('{"read":{"gpa":0,"length":1048576}}\n'.repeat(40));
    let bytes = 0;
    for await (const chunk of child.stdout) {
      bytes += (chunk as Buffer).length;
      if (bytes < 2 ** 20) await new Promise((resolve) => setImmediate(resolve));
    }
    expect(bytes).toBe(40 * (2 ** 21 + '{"hex":""}\n'.length));
  });

  test('a reader who leaves ends it: 0, and nothing is said', async () => {
    const child = start();
    child.stdin.on('error', () => undefined);
    let stderr = '';
    child.stderr.on('data', (chunk) => {
      stderr += String(chunk);
    });
    child.stdout.once('data', () => child.stdout.destroy());
    child.stdin.write('{"read":{"gpa":0,"length":1048576}}\n'.repeat(100));
    expect(await once(child, 'exit')).toEqual([0, null]);
    expect(stderr).toBe('');
  });

  test('Ctrl-C ends it at once while it waits: 130, and what was asked was answered', async () => {
    const child = start();
    child.stdin.write(`${GET}\n`);
    const [answer] = (await once(child.stdout, 'data')) as [Buffer];
    expect(String(answer)).toBe('{"ret":0,"out":["0x0"]}\n');
    child.kill('SIGINT');
    expect(await once(child, 'exit')).toEqual([130, null]);
  });
});

test('a state that was saved is restored in another process, and refused by another machine', () => {
  const options = ['--set', 'machine.vio=[{reg: 0x2000}]'];
  const first = hcall(
    '{"op":"H_PUT_TCE","args":[8192,4096,"0xfedcba9876543213"]}\n{"save":true}\n',
    ...options,
  );
  const { saved } = JSON.parse(first.answers[1] as string) as { saved: unknown };
  const input = `${JSON.stringify({ restore: saved })}\n{"op":"H_GET_TCE","args":[8192,4096]}\n{"save":true}\n`;
  expect(hcall(input, ...options, '--handler', 'kvm').answers).toEqual([
    '{}',
    '{"ret":0,"out":["0xfedcba9876543213"]}',
    first.answers[1],
  ]);
  expect(JSON.parse(hcall(input).answers[0] as string)).toMatchObject({
    error: { line: 1, code: 'E_SAVED_STATE' },
  });
});

describe('options', () => {
  test('--handler, --memory and --set make the machine', () => {
    const stuff = '{"op":"H_STUFF_TCE","args":["0x80000000",0,0,0]}';
    expect(hcall(stuff).answers).toEqual(['{"ret":-4,"out":[]}']);
    expect(hcall(stuff, '--handler', 'kvm').answers).toEqual(['{"ret":0,"out":[]}']);
    const end = '{"read":{"gpa":"0x10000ffffff","length":1}}';
    expect(hcall(end, '--memory', '1048592MiB').answers).toEqual(['{"hex":"00"}']);
    const query = '{"rtas":"ibm,query-pe-dma-window","args":[0,134217728,536870912],"nret":5}';
    const none = ['{"rets":[-3,null,null,null,null]}'];
    expect(hcall(query, '--set', 'machine.ddw=false').answers).toEqual(none);
    expect(hcall(query, '--set', 'machine.type=pseries-2.6').answers).toEqual(none);
  });

  test.each([
    ['--memory', 'x', /--memory: expected a size such as .*found "x"/],
    ['--memory', '5000', /machine\.memory: expected a multiple of 4 KiB, found 5000 bytes/],
    ['--handler', 'xen', /Allowed choices are qemu, kvm/],
    ['--set', 'machine.dww=false', /machine\.dww: expected one of the keys/],
    ['--set', 'machine.ddw=7', /machine\.ddw: expected boolean, found 7/],
    ['--set', 'machine.arch=arm64', /machine\.arch: expected pseries/],
    ['--set', 'devices=[]', /--set: expected a key of the machine .*found "devices=\[\]"/],
    ['--set', 'guest.secure=true', /--set: expected a key of the machine/],
    ['--set', 'machine', /--set: expected path=value/],
    ['--set', 'machine.vio=[{reg: 0x2000, windowSize: 5}]', /found 5 bytes at unit 0x2000/],
  ])('%s %s: exit code 2', (option, value, message) => {
    const { code, stdout, stderr } = pinhole(['hcall', option, value]);
    expect(stderr).toMatch(message);
    expect(stdout).toBe('');
    expect(code).toBe(2);
  });

  test('its documentation is true', () => {
    const text = readFileSync(new URL('../../../../docs/JSON.md', import.meta.url), 'utf8');
    const rows = [
      ...text.matchAll(/^\| `(\{"(?:op|rtas|write|read|reset).*?\})` \| `(\{.*?\})`/gm),
    ];
    expect(rows).toHaveLength(5);
    const { answers } = hcall(rows.map(([, request]) => request).join('\n'));
    expect(answers).toEqual(rows.map(([, , answer]) => answer));
  });
});
