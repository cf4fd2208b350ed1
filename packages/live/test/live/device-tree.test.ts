/** What the model publishes about DMA, against what a running QEMU hands to its firmware. */
import { type FdtNode, findNode, findProperty, parseFdt } from '@pinhole/fdt';
import { SpaprMachine, type SpaprMachineOptions } from '@pinhole/hcall';
import { createGuestMemory } from '@pinhole/memory';
import { expect, test } from 'vitest';
import { LiveQemu, type LiveQemuOptions } from '../../src/index.js';
import { describeLive, QEMU } from './support/live.js';

const MEMORY = 2 ** 28;
const GIB = 2 ** 30;

type Case = [name: string, live: LiveQemuOptions, model: Omit<SpaprMachineOptions, 'memory'>];

const CASES: Case[] = [
  ['the default machine', {}, {}],
  ['room for memory', { maxMemory: 4 * GIB }, { maxMemory: 4 * GIB }],
  [
    'no second windows',
    { args: ['-global', 'spapr-pci-host-bridge.ddw=off'] },
    { phbs: [{ ddw: false }] },
  ],
  [
    'an old machine with two bridges',
    { machine: 'pseries-4.1,cap-htm=off', phbs: [{ index: 1, dma_win_size: 0x10_0000 }] },
    { machineType: 'pseries-4.1', phbs: [{}, { index: 1, dmaWindowSize: 0x10_0000 }] },
  ],
  [
    'VIO devices',
    { args: ['-device', 'spapr-vlan,reg=0x2000', '-device', 'spapr-vscsi,reg=0x3000'] },
    {
      vio: [
        { reg: 0x2000, name: 'l-lan' },
        { reg: 0x3000, name: 'v-scsi' },
      ],
    },
  ],
];

describeLive('the device tree', () => {
  test.each(CASES)('of %s has what the model publishes', (_name, options, modelOptions) => {
    const qemu = LiveQemu.start({ qemu: QEMU, memory: MEMORY, ...options });
    try {
      const { root } = parseFdt(qemu.deviceTree());
      const machine = new SpaprMachine({
        memory: createGuestMemory({ regions: [{ base: 0, size: MEMORY }] }),
        qemu: qemu.version.startsWith('7.') ? '7.2' : '10.0',
        ...modelOptions,
      });
      let compared = 0;
      const compare = (node: FdtNode, path: string): void => {
        const real = findNode(root, path === '' ? '/' : path);
        expect(real, path).toBeDefined();
        for (const { name, value } of node.properties) {
          const theirs = real === undefined ? undefined : findProperty(real, name);
          expect(theirs?.value, `${path} ${name}`).toEqual(value);
          compared += 1;
        }
        for (const child of node.children) compare(child, `${path}/${child.name}`);
      };
      compare(machine.deviceTree(), '');
      expect(compared).toBeGreaterThan(10);
    } finally {
      qemu.close();
    }
  });
});
