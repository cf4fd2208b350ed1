/** The published device tree against what QEMU publishes for the same machines, byte for byte. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { type FdtNode, findNode, findProperty, parseFdt } from '@pinhole/fdt';
import { createGuestMemory } from '@pinhole/memory';
import { describe, expect, test } from 'vitest';
import { RTAS_TOKENS, SpaprMachine, type SpaprMachineOptions } from '../src/index.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
type Options = Omit<SpaprMachineOptions, 'memory'> & { readonly size: number };

function build({ size, ...options }: Options): SpaprMachine {
  return new SpaprMachine({
    memory: createGuestMemory({ regions: [{ base: 0, size }] }),
    ...options,
  });
}

const DEVICES = {
  size: 512 * MIB,
  phbs: [{}, { index: 1 }],
  // In the order of the command line: the tree has them by address.
  vio: [
    { reg: 0x3000, name: 'v-scsi' },
    { reg: 0x2000, name: 'l-lan' },
    { reg: 0x7100_0000, name: 'nvram', windowSize: 0 },
  ],
};
const MACHINES: readonly (readonly [vector: string, options: Options])[] = [
  ['recorded-ddw', { size: 2 * GIB, maxMemory: 4 * GIB }],
  ['recorded-noddw', { size: 2 * GIB, phbs: [{ ddw: false }] }],
  ['pseries-7.2', { ...DEVICES, maxMemory: 2 * GIB }],
  ['pseries-7.2', { ...DEVICES, maxMemory: 2 * GIB, machineType: 'pseries-7.2' }],
  ['pseries-4.1', { ...DEVICES, maxMemory: 2 * GIB, machineType: 'pseries-4.1' }],
  ['pseries-2.6', { ...DEVICES, maxMemory: 2 * GIB, machineType: 'pseries-2.6' }],
  ['pseries-2.9', { ...DEVICES, machineType: 'pseries-2.9' }],
  [
    'windows',
    {
      size: 768 * MIB,
      maxMemory: 8 * GIB,
      cpus: 8,
      phbs: [{ dmaWindowAddress: 0x1_8000_0000n, dmaWindowSize: 0x3_8000_1000 }],
    },
  ],
];

/** By what a guest learns of DMA: windows, the calls that change them, how far memory can reach. */
const DMA_PROPERTY =
  /^(ibm,(my-)?dma-window|ibm,#dma-.*|ibm,ddw-.*|ibm,.*tce.*|ibm,.*-pe-dma-window|ibm,lrdr-capacity|ibm,hypertas-functions)$/;

/** All properties, by path: `/vdevice/l-lan@2000:reg`, in the order of the tree. */
function flatten(node: FdtNode, path = ''): [string, string][] {
  return [
    ...node.properties.map(({ name, value }): [string, string] => [
      `${path}:${name}`,
      Buffer.from(value).toString('hex'),
    ]),
    ...node.children.flatMap((child) => flatten(child, `${path}/${child.name}`)),
  ];
}

describe.each(MACHINES)('%s', (vector, options) => {
  const file = new URL(`vectors/${vector}.dtb.gz`, import.meta.url);
  const real = flatten(parseFdt(gunzipSync(readFileSync(file))).root);
  const published = flatten(build(options).deviceTree());

  test('what is published is in QEMU’s tree, with its bytes and in its order', () => {
    const paths = new Set(published.map(([path]) => path));
    expect(published).toEqual(real.filter(([path]) => paths.has(path)));
  });

  test('whatever QEMU says of DMA is published', () => {
    const isDma = ([path]: [string, string]) => DMA_PROPERTY.test(path.split(':')[1] ?? '');
    const dma = real.filter(isDma);
    expect(published.filter(isDma)).toEqual(dma);
    expect(dma.length).toBeGreaterThan(9);
  });
});

test('each token is in the tree under its name', () => {
  const rtas = findNode(build({ size: GIB }).deviceTree(), '/rtas') as FdtNode;
  for (const [name, token] of Object.entries(RTAS_TOKENS)) {
    const value = findProperty(rtas, name)?.value ?? new Uint8Array();
    expect(Buffer.from(value).readUInt32BE(), name).toBe(token);
  }
});

const cells = (machine: SpaprMachine, path: string, name: string) => {
  const node = findNode(machine.deviceTree(), path);
  const value = node && findProperty(node, name)?.value;
  if (value === undefined) return undefined;
  return Array.from({ length: value.length / 4 }, (_, i) => Buffer.from(value).readUInt32BE(i * 4));
};
const PHB = '/pci@800000020000000';

test('the window that is published is the one that is open', () => {
  const machine = build({ size: GIB });
  machine.hypercalls.rtas(RTAS_TOKENS['ibm,remove-pe-dma-window'], [0x8000_0000], 1);
  expect(cells(machine, PHB, 'ibm,dma-window')).toEqual([0x8000_0000, 0, 0, 0, 0]);
  const create = [0, 0x0800_0000, 0x2000_0000, 16, 24];
  machine.hypercalls.rtas(RTAS_TOKENS['ibm,create-pe-dma-window'], create, 4);
  expect(cells(machine, PHB, 'ibm,dma-window')).toEqual([0x8000_0000, 0, 0, 0, 0x100_0000]);
  machine.reset();
  expect(cells(machine, PHB, 'ibm,dma-window')).toEqual([0x8000_0000, 0, 0, 0, 0x4000_0000]);
});

test('the limited-address mode is the third extension, where the bridge has it', () => {
  const extensions = (limitedAddressMode: boolean) =>
    cells(build({ size: GIB, phbs: [{ limitedAddressMode }] }), PHB, 'ibm,ddw-extensions');
  expect(extensions(true)).toEqual([3, 0x2029, 1, 1]);
  expect(extensions(false)).toEqual([2, 0x2029, 1]);
});

test.each([
  ['QEMU 7.2 without maxmem', {}, 0],
  ['QEMU 7.2 with maxmem as large as memory', { maxMemory: 1.5 * GIB }, 0],
  ['QEMU 10.0 without maxmem', { qemu: '10.0' as const }, 1.5 * GIB],
  // What is added starts at the next GiB: memory in between is lost.
  ['more memory to come', { maxMemory: 4 * GIB }, 4.5 * GIB],
  ['the same in QEMU 10.0', { maxMemory: 4 * GIB, qemu: '10.0' as const }, 4.5 * GIB],
])('ibm,lrdr-capacity: %s', (_what, options, end) => {
  const machine = build({ size: 1.5 * GIB, ...options });
  expect(machine.lrdrMaxAddress).toBe(end);
  expect(cells(machine, '/rtas', 'ibm,lrdr-capacity')).toEqual([
    Math.floor(end / 2 ** 32),
    end % 2 ** 32,
    0,
    256 * MIB,
    1,
  ]);
});
