/** MSI-X of a real device: a message is a write to the bus, and goes through the TCE table like any. */
import type { HiLo } from '@pinhole/base';
import { isBlkSuccess, probeVirtioBlk } from '@pinhole/guest';
import { DmaDirection } from '@pinhole/memory';
import { createPciModernTransport, type PciInterrupts } from '@pinhole/virtio';
import { expect, test } from 'vitest';
import { SideGuest, shapeName, startVirtioMachine, VIRTIO_SHAPES } from '../../src/index.js';
import { describeLive, QEMU } from './support/live.js';

describeLive('MSI-X of a real QEMU', () => {
  test('a vector a queue: the message lands in memory, where the TCE says', () => {
    const shapes = VIRTIO_SHAPES.filter(
      (shape) => shapeName(shape) === 'blk-split-indirect-eventidx-pinhole',
    );
    const [shape] = shapes as [(typeof shapes)[number]];
    const side = startVirtioMachine(shapes, { qemu: QEMU });
    try {
      const guest = new SideGuest(side, 1);
      const options = guest.driverOptions(shape);
      const { memory, pages } = options;
      const page = pages.allocPages(4096) ?? 0;
      const bus: HiLo = { hi: 0, lo: 0 };
      const isMapped = options.chooseDma(0n).map(page, 4096, DmaDirection.FROM_DEVICE, bus);
      expect(isMapped).toBe(true);
      memory.fill(page, 4096, 0);
      const interrupts: PciInterrupts = {
        onLine: () => {},
        allocateVectors: (count) =>
          Array.from({ length: count }, (_, vector) => ({
            address: (BigInt(bus.hi) << 32n) | BigInt(bus.lo + 4 * vector),
            data: 0x1000 + vector,
          })),
      };
      const made = createPciModernTransport(side.pciFunction(shape), { interrupts });
      if (!made.ok) throw new Error(made.message);
      const { transport } = made;
      const message = (vector: number): number => memory.readU32Le(page + 4 * vector);
      const idle = (): boolean => side.wait(() => transport.pollInterrupt(), 5_000);
      const probed = probeVirtioBlk({ ...options, transport, idle });
      if (!probed.ok) throw new Error(probed.message);
      const runs = pages.allocUser(4096) ?? [];
      for (let n = 0; n < 3; n += 1) {
        expect(message(1)).toBe(0);
        expect(probed.driver.read(4096 * n, runs).every(isBlkSuccess)).toBe(true);
        expect(message(1)).toBe(0x1001);
        memory.writeU32Le(page + 4, 0);
      }
      // Vector 0 is the configuration's, which did not change.
      expect(message(0)).toBe(0);
    } finally {
      side.close();
    }
  });
});
