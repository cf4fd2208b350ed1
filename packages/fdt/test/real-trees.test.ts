/** Trees that QEMU wrote, with dtc and what the machines are known to have as oracles. */
import { describe, expect, test } from 'vitest';
import {
  decodeCells,
  decodeString,
  decodeStrings,
  decodeU32,
  decodeU64,
  type FdtNode,
  findNode,
  findProperty,
  parseFdt,
  parseFdtHeader,
  writeFdt,
} from '../src/index.js';
import { dtc, hasDtc } from './dtc.js';
import { loadVector, VECTORS } from './vectors.js';

const value = (root: FdtNode, path: string, name: string): Uint8Array | undefined => {
  const node = findNode(root, path);
  return node && findProperty(node, name)?.value;
};

describe.each(VECTORS)('%s', (name) => {
  const blob = loadVector(name);
  const fdt = parseFdt(blob);

  test('what is written reads back the same', () => {
    expect(parseFdt(writeFdt(fdt))).toEqual(fdt);
  });

  test.skipIf(!hasDtc)('dtc writes the same bytes', () => {
    const theirs = dtc(['-I', 'dtb', '-O', 'dtb'], blob);
    expect(theirs && Buffer.compare(writeFdt(fdt), theirs)).toBe(0);
  });

  test('padding as libfdt leaves it is refused by the letter of the specification', () => {
    expect(() => parseFdt(blob, { strict: true })).toThrow(
      expect.objectContaining({ code: 'E_FDT_PADDING' }),
    );
  });
});

test('pseries: the host bridge has the default window, and calls for a second one', () => {
  const { root } = parseFdt(loadVector('pseries-ddw'));
  expect(decodeStrings(value(root, '/', 'compatible')!)).toEqual(['qemu,pseries']);
  // LIOBN, bus address and size, two cells each: 1 GiB at 0.
  expect(decodeCells(value(root, '/pci@800000020000000', 'ibm,dma-window')!)).toEqual([
    0x8000_0000, 0, 0, 0, 0x4000_0000,
  ]);
  expect(decodeCells(value(root, '/pci@800000020000000', 'ibm,ddw-applicable')!)).toHaveLength(3);
  expect(decodeString(value(root, '/pci', 'device_type')!)).toBe('pci');
  expect(value(root, '/rtas', 'ibm,lrdr-capacity')).toHaveLength(20);
});

test('pseries with ddw=off: no calls for a second window', () => {
  const { root } = parseFdt(loadVector('pseries-noddw'));
  expect(value(root, '/pci@800000020000000', 'ibm,dma-window')).toBeDefined();
  expect(value(root, '/pci@800000020000000', 'ibm,ddw-applicable')).toBeUndefined();
});

test('virt: the SMMU is what the bridge maps its devices to', () => {
  const { root } = parseFdt(loadVector('virt-smmuv3'));
  const phandle = decodeU32(value(root, '/smmuv3@9050000', 'phandle')!);
  expect(decodeCells(value(root, '/pcie@10000000', 'iommu-map')!)).toEqual([
    0,
    phandle,
    0,
    0x1_0000,
  ]);
  expect(decodeU64(value(root, '/smmuv3', 'reg')!.subarray(0, 8))).toBe(0x905_0000n);
});

test('virt: QEMU leaves free space up to 1 MiB', () => {
  expect(parseFdtHeader(loadVector('virt-smmuv3')).totalsize).toBe(2 ** 20);
});
