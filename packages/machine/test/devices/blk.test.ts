/** The guest's virtio-blk driver on QEMU's virtio-blk: each command, several at once, several queues. */
import { isBlkSuccess, probeVirtioBlk, type VirtioBlkDriver } from '@pinhole/guest';
import {
  type BlockBackend,
  createMemoryBackend,
  VirtioBlk,
  type VirtioBlkOptions,
} from '@pinhole/qemu';
import { VIRTIO_BLK_S_IOERR } from '@pinhole/virtio';
import { describe, expect, test } from 'vitest';
import { type Bench, connect, createBench, delayKicks, RINGS, type RingOptions } from './bench.js';

const SECTORS = 4096;

interface Setup {
  readonly bench: Bench;
  readonly disk: Uint8Array;
  readonly blk: VirtioBlk;
  readonly driver: VirtioBlkDriver;
}

type Extra = Partial<VirtioBlkOptions> & {
  cpus?: number;
  wrap?: (backend: BlockBackend) => BlockBackend;
};

function setup({ cpus = 1, wrap, ...options }: Extra = {}, rings: RingOptions = {}): Setup {
  const bench = createBench(rings);
  const disk = Uint8Array.from({ length: SECTORS * 512 }, (_, i) => (i >> 9) * 7 + i);
  const backend = createMemoryBackend(disk);
  const blk = new VirtioBlk({
    ...bench.device,
    backend: wrap === undefined ? backend : wrap(backend),
    ...options,
  });
  const probed = probeVirtioBlk({ ...bench.driver(connect(blk.core)), cpus });
  if (!probed.ok) throw new Error(probed.message);
  return { bench, disk, blk, driver: probed.driver };
}

describe.each(RINGS)('%s', (_name, rings) => {
  test('reads and writes of many segments arrive byte for byte', () => {
    const { bench, disk, driver } = setup({}, rings);
    const runs = bench.pages.allocUser(300 * 1024) ?? [];
    expect(driver.read(512, runs).every(isBlkSuccess)).toBe(true);
    const found = Buffer.concat(runs.map(({ gpa, length }) => bench.get(gpa, length)));
    expect(found.equals(disk.subarray(512, 512 + 300 * 1024))).toBe(true);
    runs.forEach(({ gpa, length }, i) => {
      bench.memory.fill(gpa, length, i + 1);
    });
    expect(driver.write(1024, runs).every(isBlkSuccess)).toBe(true);
    expect(disk[1024]).toBe(1);
    expect(disk[1024 + 300 * 1024 - 1]).toBe(runs.length & 0xff);
    expect(bench.live()).toBe(0);
  });

  test('a hundred requests with one kick end each with its own data', () => {
    const { bench, disk, blk, driver } = setup({}, rings);
    const gpas = Array.from({ length: 100 }, () => bench.put(new Uint8Array(512)));
    let kicks = 0;
    const notify = blk.core.notifyQueue.bind(blk.core);
    blk.core.notifyQueue = (index) => {
      kicks += 1;
      notify(index);
    };
    const requests = driver.submit(
      gpas.map((gpa, i) => ({ op: 'read', sector: 3 * i, data: [{ gpa, length: 512 }] })),
    );
    expect(requests.every((request) => isBlkSuccess(driver.wait(request)))).toBe(true);
    gpas.forEach((gpa, i) => {
      expect(Buffer.compare(bench.get(gpa, 512), disk.slice(1536 * i, 1536 * i + 512))).toBe(0);
    });
    // One that finds a full ring prods the device.
    if (rings.indirect !== false) expect(kicks).toBe(1);
    expect(driver.inFlight).toBe(0);
    expect(bench.live()).toBe(0);
  });

  test('more requests than the ring holds wait for room, in order', () => {
    const { bench, driver } = setup({ queueSize: 4 }, rings);
    const gpa = bench.put(new Uint8Array(512));
    const order: number[] = [];
    const commands = Array.from({ length: 50 }, (_, sector) => ({
      op: 'read' as const,
      sector,
      data: [{ gpa, length: 512 }],
    }));
    driver.submit(commands, {
      onDone: ({ command }) => order.push('sector' in command ? command.sector : -1),
    });
    expect(order).toEqual(commands.map(({ sector }) => sector));
  });
});

describe('commands', () => {
  test('flush reaches the backend', () => {
    const flushes: number[] = [];
    const { driver } = setup({
      wrap: (inner) => ({ ...inner, flush: () => void flushes.push(1) }),
    });
    expect(isBlkSuccess(driver.flush())).toBe(true);
    expect(flushes).toEqual([1]);
  });

  test.each([
    ['none', undefined, ''],
    ['short', 'disk-7', 'disk-7'],
    ['of 20 characters, without a zero', '01234567890123456789', '01234567890123456789'],
    ['longer: cut', '01234567890123456789abc', '01234567890123456789'],
  ])('the serial: %s', (_what, serial, expected) => {
    expect(setup(serial === undefined ? {} : { serial }).driver.readSerial()).toBe(expected);
  });

  test('After a write zeroes command is completed, reads of the specified ranges of sectors MUST return zeroes [device-5.2.6.2-4]', () => {
    for (const wrap of [
      (inner: BlockBackend) => inner,
      ({ size, read, write, flush }: BlockBackend) => ({ size, read, write, flush }),
    ]) {
      const { disk, driver } = setup({ wrap });
      const before = disk.slice();
      const [request] = driver.submit([
        { op: 'write-zeroes', ranges: [{ sector: 10, sectors: 3000 }] },
      ]);
      expect(isBlkSuccess(driver.wait(request!))).toBe(true);
      const [from, to] = [10 * 512, 3010 * 512];
      expect(disk.subarray(from, to).every((byte) => byte === 0)).toBe(true);
      before.fill(0, from, to);
      expect(Buffer.compare(disk, before)).toBe(0);
    }
  });

  test('write zeroes says whether the sectors may be unmapped; discard asks the backend', () => {
    const log: string[] = [];
    const { driver } = setup({
      wrap: (inner) => ({
        ...inner,
        discard: (offset, length) => void log.push(`discard ${offset} ${length}`),
        writeZeroes: (offset, length, mayUnmap) =>
          void log.push(`zeroes ${offset} ${length} ${mayUnmap}`),
      }),
    });
    const ranges = [{ sector: 1, sectors: 2 }];
    const requests = driver.submit([
      { op: 'write-zeroes', ranges },
      { op: 'write-zeroes', ranges, mayUnmap: true },
      { op: 'discard', ranges },
    ]);
    expect(requests.map((request) => isBlkSuccess(driver.wait(request)))).toEqual([
      true,
      true,
      true,
    ]);
    expect(log).toEqual(['zeroes 512 1024 false', 'zeroes 512 1024 true', 'discard 512 1024']);
  });

  test('a discard that the backend ignores succeeds and changes nothing', () => {
    const { disk, driver } = setup();
    const before = disk.slice();
    const [request] = driver.submit([{ op: 'discard', ranges: [{ sector: 0, sectors: 8 }] }]);
    expect(isBlkSuccess(driver.wait(request!))).toBe(true);
    expect(Buffer.compare(disk, before)).toBe(0);
  });

  test('VIRTIO_BLK_T_DISCARD requests MUST NOT contain more than max_discard_seg segments [driver-5.2.6.1-8]', () => {
    const { blk, driver } = setup();
    const range = { sector: 0, sectors: 1 };
    expect(driver.discardLimits).toEqual({ maxRanges: 1, maxSectors: 4_194_303 });
    const [request] = driver.submit([{ op: 'discard', ranges: [range, range] }]);
    expect(request?.outcome).toMatchObject({ kind: 'rejected' });
    expect(blk.completed).toEqual([0, 0, 0]);
  });

  test('VIRTIO_BLK_T_WRITE_ZEROES requests MUST NOT contain more than max_write_zeroes_seg segments [driver-5.2.6.1-10]', () => {
    const { blk, driver } = setup({ maxWriteZeroesSectors: 16 });
    const range = { sector: 0, sectors: 1 };
    for (const ranges of [[range, range], [], [{ sector: 0, sectors: 17 }]]) {
      const [request] = driver.submit([{ op: 'write-zeroes', ranges }]);
      expect(request?.outcome).toMatchObject({ kind: 'rejected' });
    }
    expect(blk.completed).toEqual([0, 0, 0]);
  });

  test('A driver MUST NOT submit a request which would cause a read or write beyond capacity [driver-5.2.6.1-1]', () => {
    const { bench, blk, driver } = setup();
    const gpa = bench.put(new Uint8Array(1024));
    const [request] = driver.submit([
      { op: 'read', sector: SECTORS - 1, data: [{ gpa, length: 1024 }] },
    ]);
    expect(request?.outcome).toEqual({
      kind: 'rejected',
      reason: "sector 4097 is beyond the disk's 4096 sectors",
    });
    expect(blk.completed).toEqual([0, 0, 0]);
  });

  test('The length of data MUST be a multiple of 512 bytes for VIRTIO_BLK_T_IN and VIRTIO_BLK_T_OUT requests [driver-5.2.6.1-5]', () => {
    const { bench, blk, driver } = setup();
    const data = [{ gpa: bench.put(new Uint8Array(512)), length: 511 }];
    const requests = driver.submit([
      { op: 'read', sector: 0, data },
      { op: 'write', sector: 0, data },
    ]);
    for (const { outcome } of requests) expect(outcome).toMatchObject({ kind: 'rejected' });
    expect(blk.completed).toEqual([0, 0, 0]);
  });

  test('IOERR for a write request if VIRTIO_BLK_F_RO is offered, and MUST NOT write any data [device-5.2.6.2-1]', () => {
    const { bench, disk, driver } = setup({ wrap: (inner) => ({ ...inner, isReadOnly: true }) });
    const before = disk.slice();
    expect(driver.isReadOnly).toBe(true);
    const gpa = bench.put(new Uint8Array(512));
    const status = VIRTIO_BLK_S_IOERR;
    expect(driver.write(0, [{ gpa, length: 512 }])).toMatchObject([{ kind: 'done', status }]);
    const [zeroes] = driver.submit([{ op: 'write-zeroes', ranges: [{ sector: 0, sectors: 1 }] }]);
    expect(driver.wait(zeroes!)).toMatchObject({ kind: 'done', status });
    expect(isBlkSuccess(driver.read(0, [{ gpa, length: 512 }])[0]!)).toBe(true);
    expect(Buffer.compare(disk, before)).toBe(0);
  });

  test('stable writes are committed before the completion of the write, or of the flush [device-5.2.6.2-7]', () => {
    const log: string[] = [];
    const { bench, blk, driver } = setup({
      wrap: (inner) => ({
        ...inner,
        write: () => void log.push('write'),
        flush: () => void log.push('flush'),
      }),
    });
    const data = [{ gpa: bench.put(new Uint8Array(512)), length: 512 }];
    expect(driver.isWriteback).toBe(true);
    driver.submit([{ op: 'write', sector: 0, data }], { onDone: () => log.push('done') });
    expect(driver.setWriteback(false)).toBe(true);
    driver.submit([{ op: 'write', sector: 0, data }], { onDone: () => log.push('done') });
    expect(log).toEqual(['write', 'done', 'write', 'flush', 'done']);
    expect([driver.isWriteback, blk.isWriteback]).toEqual([false, false]);
    driver.remove();
    expect(blk.isWriteback).toBe(true);
  });
});

describe('several queues', () => {
  test('a driver uses one a CPU, at most as many as the device has', () => {
    expect(setup({ numQueues: 4 }).driver.queueCount).toBe(1);
    expect(setup({ numQueues: 4, cpus: 3 }).driver.queueCount).toBe(3);
    expect(setup({ numQueues: 4, cpus: 8 }).driver.queueCount).toBe(4);
    expect(setup({ numQueues: 1, cpus: 8 }).driver.queueCount).toBe(1);
  });

  test('requests go to the queue of their CPU, and all come back', () => {
    const { bench, blk, disk, driver } = setup({ numQueues: 4, cpus: 4 });
    const kicked: number[] = [];
    const notify = blk.core.notifyQueue.bind(blk.core);
    blk.core.notifyQueue = (index) => {
      kicked.push(index);
      notify(index);
    };
    for (let queue = 0; queue < 4; queue += 1) {
      const gpa = bench.put(new Uint8Array(512));
      const command = { op: 'read' as const, sector: queue, data: [{ gpa, length: 512 }] };
      const [request] = driver.submit([command], { queue });
      expect(isBlkSuccess(driver.wait(request!))).toBe(true);
      expect(bench.get(gpa, 512)).toEqual(disk.slice(512 * queue, 512 * queue + 512));
    }
    expect(kicked).toEqual([0, 1, 2, 3]);
  });
});

describe('time', () => {
  function slow(): Setup & { deliver: () => boolean; kicks: unknown[] } {
    const bench = createBench();
    const disk = new Uint8Array(SECTORS * 512).fill(5);
    const blk = new VirtioBlk({ ...bench.device, backend: createMemoryBackend(disk) });
    const { transport, kicks, deliver } = delayKicks(connect(blk.core));
    const probed = probeVirtioBlk(bench.driver(transport, deliver));
    if (!probed.ok) throw new Error(probed.message);
    return { bench, disk, blk, driver: probed.driver, deliver, kicks };
  }

  test('a request is on its way until the device gets to it; waiting lets time pass', () => {
    const { bench, driver, kicks } = slow();
    const data = [{ gpa: bench.put(new Uint8Array(512)), length: 512 }];
    const [request] = driver.submit([{ op: 'read', sector: 0, data }]);
    expect([request?.outcome, driver.inFlight, kicks.length]).toEqual([undefined, 1, 1]);
    expect(isBlkSuccess(driver.wait(request!))).toBe(true);
    expect(driver.inFlight).toBe(0);
  });

  test('a device that never answers: hung, and the memory stays with it', () => {
    const { bench, driver, kicks } = slow();
    const data = [{ gpa: bench.put(new Uint8Array(512)), length: 512 }];
    const [request] = driver.submit([{ op: 'read', sector: 0, data }]);
    kicks.length = 0;
    expect(driver.wait(request!)).toEqual({ kind: 'hung' });
    expect(bench.live()).toBeGreaterThan(0);
    expect(driver.inFlight).toBe(1);
    driver.remove();
    expect(request?.outcome).toEqual({ kind: 'hung' });
    expect([driver.inFlight, bench.live()]).toEqual([0, 0]);
  });

  test('a callback that submits the next request does not pile up on the stack', () => {
    const { bench, driver } = setup();
    const data = [{ gpa: bench.put(new Uint8Array(512)), length: 512 }];
    let left = 5000;
    const next = (): void => {
      left -= 1;
      if (left > 0) driver.submit([{ op: 'read', sector: 0, data }], { onDone: next });
    };
    next();
    expect(left).toBe(0);
  });

  test('a driver that resets the device while it completes gets no request twice', () => {
    const { bench, driver, blk } = setup();
    const data = [{ gpa: bench.put(new Uint8Array(512)), length: 512 }];
    let done = 0;
    const commands = Array.from({ length: 8 }, () => ({ op: 'read' as const, sector: 0, data }));
    const requests = driver.submit(commands, {
      onDone: () => {
        done += 1;
        if (done === 1) driver.remove();
      },
    });
    expect(requests.map(({ outcome }) => outcome?.kind)).toEqual([
      'done',
      ...Array(7).fill('hung'),
    ]);
    expect(done).toBe(8);
    expect(blk.core.errors).toEqual([]);
  });
});
