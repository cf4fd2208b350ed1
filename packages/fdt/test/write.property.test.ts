/** Writing: what reads back, what dtc writes, and what cannot be written. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createNode, type Fdt, type FdtNode, parseFdt, writeFdt } from '../src/index.js';
import { trees } from './arbitrary-tree.js';
import { dtc, fdtget, hasDtc } from './dtc.js';

const fdtOf = (root: FdtNode, rest: Partial<Fdt> = {}): Fdt => ({
  root,
  reservations: [],
  bootCpuid: 0,
  ...rest,
});
const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex, 'hex'));

/** A tree in source, without a line of ours. */
function sourceOf({ root, reservations }: Fdt): string {
  const body = ({ properties, children }: FdtNode): string =>
    [
      ...properties.map(({ name, value }) => `${name} = [${Buffer.from(value).toString('hex')}];`),
      ...children.map((child) => `${child.name} { ${body(child)} };`),
    ].join('\n');
  const reserved = reservations.map(({ address, size }) => `/memreserve/ ${address} ${size};`);
  return `/dts-v1/;\n${reserved.join('\n')}\n/ { ${body(root)} };\n`;
}

test('what is written reads back the same', () => {
  fc.assert(
    fc.property(trees, (fdt) => {
      const blob = writeFdt(fdt);
      expect(parseFdt(blob)).toEqual(fdt);
      expect(writeFdt(parseFdt(blob))).toEqual(blob);
    }),
  );
});

describe.skipIf(!hasDtc)('dtc', () => {
  test('compiles the same tree from source to the same bytes', () => {
    fc.assert(
      fc.property(trees, (fdt) => {
        const source = sourceOf(fdt);
        const blob = dtc(['-I', 'dts', '-O', 'dtb', '-b', String(fdt.bootCpuid)], source);
        expect(blob && Buffer.from(blob).toString('hex')).toBe(
          Buffer.from(writeFdt(fdt)).toString('hex'),
        );
      }),
      { numRuns: 30 },
    );
  });

  test('writes version 16 of it, which reads the same', () => {
    fc.assert(
      fc.property(trees, (fdt) => {
        const blob = dtc(['-I', 'dtb', '-O', 'dtb', '-V', '16'], writeFdt(fdt));
        expect(blob && parseFdt(blob)).toEqual(fdt);
      }),
      { numRuns: 20 },
    );
  });

  test('libfdt finds the same values', () => {
    const folder = mkdtempSync(join(tmpdir(), 'fdt-'));
    try {
      fc.assert(
        fc.property(trees, (fdt) => {
          const file = join(folder, 'tree.dtb');
          writeFileSync(file, writeFdt(fdt));
          for (const { name, value } of fdt.root.properties.slice(0, 2)) {
            expect(fdtget(file, '/', name)).toEqual([...value]);
          }
        }),
        { numRuns: 10 },
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

test('a blob of version 17, word for word', () => {
  const root = createNode('', { b: 1 }, [createNode('n@1', { ab: true, b: 'x' })]);
  const blob = writeFdt(fdtOf(root, { reservations: [{ address: 1n, size: 2n }], bootCpuid: 3 }));
  expect(blob).toEqual(
    bytes(
      [
        // magic, totalsize, off_dt_struct, off_dt_strings, off_mem_rsvmap
        'd00dfeed 00000095 00000048 00000090 00000028',
        // version, last_comp_version, boot_cpuid_phys, size_dt_strings, size_dt_struct
        '00000011 00000010 00000003 00000005 00000048',
        '0000000000000001 0000000000000002 0000000000000000 0000000000000000',
        '00000001 00000000 00000003 00000004 00000000 00000001',
        '00000001 6e403100 00000003 00000000 00000002',
        '00000003 00000002 00000000 78000000 00000002 00000002 00000009',
        // b, and ab, which came later: an earlier string does not end with it.
        '6200 616200',
      ]
        .join('')
        .replaceAll(' ', ''),
    ),
  );
});

test('a name that ends another one takes no space, and the first place counts', () => {
  const names = ['xab', 'yab', 'ab', 'b', 'xab'];
  const root = createNode(
    '',
    {},
    names.map((name, index) => createNode(`n@${index}`, { [name]: 1 })),
  );
  const blob = writeFdt(fdtOf(root));
  expect(Buffer.from(blob.subarray(-8)).toString('latin1')).toBe('xab\0yab\0');
  expect(parseFdt(blob).root).toEqual(root);
});

describe('not written', () => {
  const code = (code: string) => expect.objectContaining({ code });
  const write =
    (root: FdtNode, rest: Partial<Fdt> = {}) =>
    () =>
      writeFdt(fdtOf(root, rest));

  test('names the reader would refuse', () => {
    expect(write(createNode('r'))).toThrow(code('E_FDT_NAME'));
    expect(write(createNode('', {}, [createNode('')]))).toThrow(code('E_FDT_NAME'));
    expect(write(createNode('', {}, [createNode('a/b')]))).toThrow(code('E_FDT_NAME'));
    expect(write(createNode('', {}, [createNode('ä')]))).toThrow(code('E_FDT_NAME'));
    expect(write(createNode('', { '': 1 }))).toThrow(code('E_FDT_NAME'));
    expect(write(createNode('', { 'a\0b': 1 }))).toThrow(code('E_FDT_NAME'));
    expect(write(createNode('', { [`${'a'.repeat(256)}`]: 1 }))).toThrow(code('E_FDT_NAME'));
  });

  test('a name twice', () => {
    const twin = createNode('a@0');
    expect(write(createNode('', {}, [twin, twin]))).toThrow(code('E_FDT_DUPLICATE'));
    const properties = [1, 2].map((byte) => ({ name: 'reg', value: Uint8Array.of(byte) }));
    expect(write({ name: '', properties, children: [] })).toThrow(code('E_FDT_DUPLICATE'));
  });

  test('a tree that contains itself', () => {
    const a = createNode('a');
    a.children.push(a);
    expect(write(createNode('', {}, [a]))).toThrow(code('E_FDT_DEPTH'));
  });

  test('65 levels, unless they are asked for', () => {
    let root = createNode('n');
    for (let level = 1; level < 64; level += 1)
      root = createNode(level < 63 ? 'n' : '', {}, [root]);
    expect(write(root)).not.toThrow();
    const deeper = createNode('', {}, [{ ...root, name: 'n' }]);
    expect(write(deeper)).toThrow(code('E_FDT_DEPTH'));
    expect(parseFdt(writeFdt(fdtOf(deeper), { maxDepth: 65 }), { maxDepth: 65 }).root).toEqual(
      deeper,
    );
  });

  test.each([
    [{ address: 0x1000n, size: 0n }],
    [{ address: -1n, size: 1n }],
    [{ address: 2n ** 64n, size: 1n }],
    [{ address: 0n, size: 2n ** 64n }],
    [{ address: 2n ** 64n - 1n, size: 2n }],
  ])('a reservation of %o', (reservation) => {
    expect(write(createNode(''), { reservations: [reservation] })).toThrow(
      code('E_FDT_RESERVATION'),
    );
  });

  test.each([-1, 1.5, 2 ** 32, Number.NaN])('boot CPU %d', (bootCpuid) => {
    expect(write(createNode(''), { bootCpuid })).toThrow(code('E_FDT_VALUE'));
  });

  test('2^40 nodes that are 40: the size stops it', () => {
    const value = new Uint8Array(2 ** 24);
    let node: FdtNode = createNode('n', { value });
    for (let level = 0; level < 40; level += 1) {
      node = createNode('n', { value }, [node, { ...node, name: 'm' }]);
    }
    expect(write({ ...node, name: '' })).toThrow(code('E_FDT_SIZE'));
  });

  test('2 GiB', () => {
    const half = new Uint8Array(2 ** 30);
    expect(write(createNode('', { a: half, b: half }))).toThrow(code('E_FDT_SIZE'));
  });
});
