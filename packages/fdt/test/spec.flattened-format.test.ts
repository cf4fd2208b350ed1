/** [Devicetree v0.4 §5 "Flattened Devicetree (DTB) Format"], rule for rule. */
import { describe, expect, test } from 'vitest';
import { FdtError, type FdtOptions, parseFdt, parseFdtHeader, writeFdt } from '../src/index.js';
import { BROKEN, NOT_TO_THE_LETTER } from './broken-blobs.js';
import { dtc, hasDtc } from './dtc.js';
import { begin, end, endNode, nop, prop, rawBlob, rootWith } from './raw-blob.js';

const refusal = (blob: Uint8Array, options?: FdtOptions): FdtError => {
  try {
    parseFdt(blob, options);
  } catch (error) {
    if (error instanceof FdtError) return error;
    throw error;
  }
  throw new Error('it was taken');
};

/** dtc 1.6.1 dies of the others, which a later one may not. */
const JUDGED = BROKEN.filter(({ dtc }) => dtc !== 'crashes');

describe('refused', () => {
  test.each(BROKEN)('$rule: $code', ({ blob, code, says }) => {
    const error = refusal(blob);
    expect({ code: error.code, message: error.message }).toEqual({
      code,
      message: expect.stringMatching(says),
    });
    expect(error.offset).toBeTypeOf('number');
    expect(error.offset).toBeLessThanOrEqual(blob.length);
  });

  test.skipIf(!hasDtc).each(JUDGED)('$rule: dtc $dtc it', (row) => {
    expect(dtc(['-I', 'dtb', '-O', 'dtb'], row.blob) ? 'takes' : 'refuses').toBe(row.dtc);
  });
});

describe('refused to the letter only', () => {
  test.each(NOT_TO_THE_LETTER)('$rule: $code', ({ blob, code, says }) => {
    const error = refusal(blob, { strict: true });
    expect({ code: error.code, message: error.message }).toEqual({
      code,
      message: expect.stringMatching(says),
    });
    const fdt = parseFdt(blob);
    expect(parseFdt(writeFdt(fdt))).toEqual(fdt);
  });

  test.each(NOT_TO_THE_LETTER.filter(({ code }) => code !== 'E_FDT_PADDING'))(
    '$rule: not written either',
    ({ blob, code }) => {
      const write = () => writeFdt(parseFdt(blob), { strict: true });
      expect(write).toThrow(expect.objectContaining({ code }));
    },
  );

  test.skipIf(!hasDtc).each(NOT_TO_THE_LETTER)('$rule: dtc takes it', ({ blob }) => {
    expect(dtc(['-I', 'dtb', '-O', 'dtb'], blob)).toBeDefined();
  });
});

describe('taken', () => {
  const empty = {
    root: { name: '', properties: [], children: [] },
    reservations: [],
    bootCpuid: 0,
  };

  test('a root with nothing in it', () => {
    expect(parseFdt(rawBlob(), { strict: true })).toEqual(empty);
  });

  test('§5.4.1: FDT_NOP anywhere before FDT_END', () => {
    const structure = [nop, nop, begin(''), nop, prop(0, [1]), nop, begin('a'), nop, endNode, nop];
    const blob = rawBlob({ structure: [...structure, endNode, nop, end].flat() });
    expect(parseFdt(blob, { strict: true }).root).toEqual({
      name: '',
      properties: [{ name: 'reg', value: Uint8Array.of(1) }],
      children: [{ name: 'a', properties: [], children: [] }],
    });
  });

  test('§5.2: bytes behind totalsize are not the blob', () => {
    expect(parseFdt(Uint8Array.from([...rawBlob(), 1, 2, 3]))).toEqual(empty);
  });

  test('§5: free space behind the last block', () => {
    const blob = rawBlob({ strings: 'reg\0free space' });
    new DataView(blob.buffer).setUint32(0x20, 4);
    expect(parseFdt(blob)).toEqual(empty);
  });

  test('§5.5: a name can be the end of another string', () => {
    const blob = rawBlob({ structure: rootWith(prop(2)), strings: 'reg\0' });
    expect(parseFdt(blob).root.properties[0]?.name).toBe('g');
  });

  test('§5.1: version 16, without size_dt_struct', () => {
    const header = { version: 16, size_dt_struct: 0xffff_ffff };
    expect(parseFdt(rawBlob({ header }))).toEqual(empty);
    expect(parseFdtHeader(rawBlob({ header })).sizeDtStruct).toBeUndefined();
  });

  test('§5.1: a later version that 17 can read', () => {
    expect(parseFdt(rawBlob({ header: { version: 99, last_comp_version: 17 } }))).toEqual(empty);
  });

  test('blocks in another order', () => {
    const blob = rawBlob({ structure: rootWith(prop(0, [7])), strings: 'reg\0' });
    // Behind one another: header, structure, strings, reservations.
    const structure = blob.slice(56, 56 + 32);
    const moved = new Uint8Array(40 + 32 + 8 + 16);
    moved.set(blob.subarray(0, 40));
    moved.set(structure, 40);
    moved.set(blob.subarray(88), 72);
    const view = new DataView(moved.buffer);
    for (const [at, value] of [
      [4, 96],
      [8, 40],
      [12, 72],
      [16, 80],
    ] as const)
      view.setUint32(at, value);
    expect(parseFdt(moved)).toEqual(parseFdt(blob));
    expect(parseFdt(blob).root.properties).toEqual([{ name: 'reg', value: Uint8Array.of(7) }]);
  });

  test('§5.3.2: reservations of 64 bits, up to the top', () => {
    const reservations = [0xffff_ffff, 0xffff_f000, 0, 0x1000, 1, 2, 3, 4, 0, 0, 0, 0];
    expect(parseFdt(rawBlob({ reservations }), { strict: true }).reservations).toEqual([
      { address: 0xffff_ffff_ffff_f000n, size: 0x1000n },
      { address: 0x1_0000_0002n, size: 0x3_0000_0004n },
    ]);
  });

  test('§5.2: the boot CPU', () => {
    const blob = rawBlob({ header: { boot_cpuid_phys: 0x8000_0001 } });
    expect(parseFdt(blob).bootCpuid).toBe(0x8000_0001);
    expect(writeFdt(parseFdt(blob)).subarray(28, 32)).toEqual(Uint8Array.of(0x80, 0, 0, 1));
  });

  test('§5.3.2: reservations that touch do not overlap', () => {
    const reservations = [0, 0x2000, 0, 0x1000, 0, 0x1000, 0, 0x1000, 0, 0, 0, 0];
    expect(parseFdt(rawBlob({ reservations }), { strict: true }).reservations).toHaveLength(2);
  });

  test('§2.2.1: 31 characters before the unit address', () => {
    const name = `${'a'.repeat(31)}@8000000000000000`;
    const blob = rawBlob({ structure: rootWith(begin(name), endNode) });
    expect(parseFdt(blob, { strict: true }).root.children[0]?.name).toBe(name);
  });

  test('64 levels', () => {
    const deep = [...Array(63).fill(begin('a')), ...Array(63).fill(endNode)];
    const blob = rawBlob({ structure: rootWith(...deep), strings: '' });
    expect(writeFdt(parseFdt(blob))).toEqual(blob);
  });
});

test('a name that is too long is not read to its end', () => {
  const blob = rawBlob({ structure: rootWith(begin('a'.repeat(300)), endNode) });
  expect(refusal(blob, { strict: true }).code).toBe('E_FDT_NAME');
  const endless = rawBlob({ structure: [...begin(''), ...begin('a'.repeat(300)).slice(0, 304)] });
  expect(refusal(endless).code).toBe('E_FDT_NAME');
});

test('an error names the node, the offset and both sides', () => {
  const structure = rootWith(begin('cpus'), begin('cpu@0'), prop(0), prop(0), endNode, endNode);
  const error = refusal(rawBlob({ structure }));
  expect(error.message).toBe(
    "property at offset 0x64 in /cpus/cpu@0: expected a name not used before, found 'reg'",
  );
  expect(error.toJSON()).toEqual({
    name: 'FdtError',
    code: 'E_FDT_DUPLICATE',
    message: error.message,
    details: {
      what: 'property',
      expected: 'a name not used before',
      found: "'reg'",
      offset: 0x64,
      path: '/cpus/cpu@0',
    },
  });
});

test('the tree does not change with the buffer, nor with memory that is shared', () => {
  const shared = new Uint8Array(new SharedArrayBuffer(256));
  const blob = rawBlob({ structure: rootWith(prop(0, [1, 2, 3, 4])) });
  shared.set(blob);
  for (const bytes of [shared, Buffer.from(blob), blob]) {
    const fdt = parseFdt(bytes);
    bytes.fill(0);
    expect(fdt.root.properties[0]?.value).toEqual(Uint8Array.of(1, 2, 3, 4));
  }
});
