/** The guest's disk driver, unchanged, over channel programs on a real QEMU. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRng } from '@pinhole/base';
import {
  createPhysicalDmaOps,
  GuestPages,
  isBlkSuccess,
  probeVirtioBlk,
  SMP_CACHE_BYTES,
  type VirtioBlkDriver,
} from '@pinhole/guest';
import {
  CCW_AREA_SIZE,
  Ccw,
  type ChannelDevice,
  createCcwTransport,
  featureNames,
  VIRTIO_ID_BLOCK,
} from '@pinhole/virtio';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { S390xMachine } from '../support/s390x-machine.js';
import { describeS390x, QEMU_S390X } from './support/s390x.js';

const DISK_SIZE = 2 ** 20;
const BLOCK = 4096;
const IDLE_MS = 5_000;

/** The ways in which the disks are set up; each is one more device. */
const DISKS = [
  { name: 'adapter indicators', properties: '', isClassic: false },
  { name: 'classic indicators', properties: '', isClassic: true },
  { name: 'iommu_platform=on', properties: ',iommu_platform=on', isClassic: false },
  { name: 'a packed ring', properties: ',packed=on', isClassic: false },
] as const;

describeS390x("the guest's disk driver behind a subchannel", () => {
  let machine: S390xMachine;
  let folder: string;
  let pages: GuestPages;
  const image = (number: number): string => join(folder, `${number}.img`);

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'pinhole-ccw-'));
    const args = DISKS.flatMap(({ properties }, number) => {
      writeFileSync(image(number), contents(number));
      return [
        ...['-drive', `if=none,id=d${number},format=raw,file=${image(number)}`],
        ...['-device', `virtio-blk-ccw,drive=d${number},serial=pinhole${number}${properties}`],
      ];
    });
    machine = new S390xMachine(QEMU_S390X, args);
    pages = new GuestPages({
      pageSize: BLOCK,
      kernel: { base: 2 ** 24, size: 2 ** 26 },
      user: { base: 2 ** 27, size: 2 ** 26 },
      rng: createRng(1),
    });
  });
  afterAll(() => {
    machine?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  test.each(DISKS.map((disk, number) => [disk.name, disk, number] as const))(
    '%s: it reads what is on the disk, and what it writes is there',
    (_name, { properties, isClassic }, number) => {
      const driver = probe(number, isClassic);
      const names = featureNames(driver.features, VIRTIO_ID_BLOCK);
      expect(names.includes('VIRTIO_F_ACCESS_PLATFORM')).toBe(properties.includes('iommu'));
      expect(names.includes('VIRTIO_F_RING_PACKED')).toBe(properties.includes('packed'));
      // QEMU 7.2 offers it, and has no command for it.
      expect(names.includes('VIRTIO_F_RING_RESET')).toBe(false);
      expect(driver.capacity).toBe(DISK_SIZE / 512);
      expect(driver.readSerial()).toBe(`pinhole${number}`);
      const { memory } = machine;
      const buffer = pages.allocUser(16 * BLOCK) ?? [];
      expect(driver.read(8 * BLOCK, buffer).every(isBlkSuccess)).toBe(true);
      const read = Buffer.concat(
        buffer.map(({ gpa, length }) => {
          const bytes = Buffer.alloc(length);
          memory.read(gpa, bytes);
          return bytes;
        }),
      );
      expect(read.equals(contents(number).subarray(8 * BLOCK, 24 * BLOCK))).toBe(true);
      for (const { gpa, length } of buffer) memory.fill(gpa, length, 0x50 + number);
      expect(driver.write(40 * BLOCK, buffer).every(isBlkSuccess)).toBe(true);
      expect(isBlkSuccess(driver.flush())).toBe(true);
      const written = readFileSync(image(number)).subarray(40 * BLOCK, 56 * BLOCK);
      expect(written.every((byte) => byte === 0x50 + number)).toBe(true);
      driver.remove();
    },
  );

  function probe(number: number, isClassic: boolean): VirtioBlkDriver {
    const { memory } = machine;
    const subchannel = machine.subchannel(number);
    subchannel.restart();
    const device: ChannelDevice = isClassic ? withoutAdapterInterrupts(subchannel) : subchannel;
    const made = createCcwTransport(device, { memory, area: pages.allocPages(CCW_AREA_SIZE) ?? 0 });
    if (!made.ok) throw new Error(made.message);
    const { transport } = made;
    const probed = probeVirtioBlk({
      transport,
      memory,
      pages,
      smpCacheBytes: SMP_CACHE_BYTES.s390x,
      chooseDma: () => createPhysicalDmaOps({ memory, pages }),
      // Nobody delivers interrupts to our program: the driver looks.
      idle: () => {
        const end = performance.now() + IDLE_MS;
        while (!transport.pollInterrupt()) if (performance.now() > end) return false;
        return true;
      },
    });
    if (!probed.ok) throw new Error(probed.message);
    return probed.driver;
  }
});

/** As a host without adapter interrupts answers. */
function withoutAdapterInterrupts(device: ChannelDevice): ChannelDevice {
  return {
    senseId: device.senseId,
    notify: (data, cookie) => device.notify(data, cookie),
    start: (command) =>
      command.code === Ccw.SET_IND_ADAPTER
        ? { ok: false, reason: 'command-reject' }
        : device.start(command),
  };
}

/** Every byte of every disk another. */
function contents(number: number): Buffer {
  const bytes = new Uint8Array(DISK_SIZE).map((_, i) => i * 7 + (i >>> 9) * 31 + number);
  return Buffer.from(bytes.buffer);
}
