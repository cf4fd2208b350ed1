/** Two guests' virtio-net drivers, QEMU's devices and a switch between them. */
import { spawnSync } from 'node:child_process';
import { createTickClock } from '@pinhole/base';
import { probeVirtioNet, type VirtioNetDriver } from '@pinhole/guest';
import {
  captureBackend,
  createPcapWriter,
  createVirtualSwitch,
  type NetBackend,
  VirtioNet,
  type VirtioNetOptions,
} from '@pinhole/qemu';
import { describe, expect, test } from 'vitest';
import { connect, createBench, RINGS, type RingOptions } from './bench.js';

interface Station {
  readonly driver: VirtioNetDriver;
  readonly net: VirtioNet;
  readonly frames: Uint8Array[];
  readonly links: boolean[];
  readonly live: () => number;
}

function station(
  backend: NetBackend,
  n: number,
  rings: RingOptions,
  options: Partial<VirtioNetOptions> = {},
  reply?: (frame: Uint8Array, driver: VirtioNetDriver) => void,
): Station {
  const bench = createBench(rings);
  const mac = Uint8Array.of(2, 0, 0, 0, 0, n);
  const net = new VirtioNet({ ...bench.device, backend, mac, ...options });
  const frames: Uint8Array[] = [];
  const links: boolean[] = [];
  const probed = probeVirtioNet({
    ...bench.driver(connect(net.core)),
    onFrame: (frame) => {
      frames.push(frame);
      if (probed?.ok) reply?.(frame, probed.driver);
    },
    onLink: (isUp) => links.push(isUp),
  });
  if (!probed.ok) throw new Error(probed.message);
  return { driver: probed.driver, net, frames, links, live: bench.live };
}

function frame(to: Uint8Array | number, from: Uint8Array, length: number): Uint8Array {
  const bytes = Uint8Array.from({ length }, (_, i) => (i * 31) & 0xff);
  bytes.set(typeof to === 'number' ? new Uint8Array(6).fill(to) : to);
  bytes.set(from, 6);
  bytes.set([0x88, 0xb5], 12);
  return bytes;
}

describe.each(RINGS)('%s', (_name, rings) => {
  test.each([
    ['mergeable buffers', {}],
    ['one buffer a frame', { without: [15] }],
  ] as const)('%s: frames of all sizes arrive byte for byte, both ways', (_what, options) => {
    const between = createVirtualSwitch();
    const a = station(between.createPort(), 1, rings, options);
    const b = station(between.createPort(), 2, rings, options);
    const sizes = [60, 61, 1000, 1513, 1514];
    for (const size of sizes) {
      expect(a.driver.send(frame(b.driver.mac, a.driver.mac, size))).toBe(true);
      expect(b.driver.send(frame(a.driver.mac, b.driver.mac, size))).toBe(true);
    }
    const check = (from: Station, to: Station): void => {
      to.frames.forEach((found, i) => {
        const sent = frame(to.driver.mac, from.driver.mac, sizes[i] as number);
        expect(Buffer.compare(found, sent)).toBe(0);
      });
      expect(to.frames).toHaveLength(sizes.length);
    };
    check(a, b);
    check(b, a);
    for (const one of [a, b]) {
      one.driver.remove();
      expect(one.live()).toBe(0);
      expect(one.net.core.errors).toEqual([]);
    }
  });
});

test('jumbo frames take several buffers', () => {
  const between = createVirtualSwitch();
  const a = station(between.createPort(), 1, {}, { mtu: 9000 });
  const b = station(between.createPort(), 2, {}, { mtu: 9000 });
  const sent = frame(b.driver.mac, a.driver.mac, 9014);
  expect(a.driver.send(sent)).toBe(true);
  expect(b.frames.map((found) => Buffer.compare(found, sent))).toEqual([0]);
});

test('a thousand frames, each answered at once by the other side', () => {
  const between = createVirtualSwitch();
  let left = 1000;
  const reply = (got: Uint8Array, driver: VirtioNetDriver): void => {
    left -= 1;
    if (left > 0) driver.send(frame(got.subarray(6, 12), driver.mac, 60));
  };
  const a = station(between.createPort(), 1, {}, {}, reply);
  const b = station(between.createPort(), 2, {}, {}, reply);
  a.driver.send(frame(b.driver.mac, a.driver.mac, 60));
  expect(left).toBe(0);
  expect(a.frames.length + b.frames.length).toBe(1000);
});

describe('the filter, set by the driver', () => {
  test('its own address and the table, or all', () => {
    const between = createVirtualSwitch();
    const a = station(between.createPort(), 1, {});
    const b = station(between.createPort(), 2, {});
    const group = Uint8Array.of(0x33, 0x33, 0, 0, 0, 9);
    const count = (to: Uint8Array | number): number => {
      b.frames.length = 0;
      a.driver.send(frame(to, a.driver.mac, 60));
      return b.frames.length;
    };
    expect(b.driver.setPromiscuous(false)).toBe(true);
    expect([count(group), count(b.driver.mac), count(0xff)]).toEqual([0, 1, 1]);
    expect(b.driver.setAddresses([], [group])).toBe(true);
    expect(count(group)).toBe(1);
    expect(b.driver.setMac(Uint8Array.of(2, 2, 2, 2, 2, 2))).toBe(true);
    expect(count(Uint8Array.of(2, 2, 2, 2, 2, 2))).toBe(1);
    expect(count(Uint8Array.of(2, 0, 0, 0, 0, 2))).toBe(0);
  });
});

test('the cable is pulled and plugged: the driver hears of it, frames pass again', () => {
  const between = createVirtualSwitch();
  const a = station(between.createPort(), 1, {});
  const b = station(between.createPort(), 2, {});
  b.net.setLink(false);
  a.driver.send(frame(b.driver.mac, a.driver.mac, 60));
  b.net.setLink(true);
  a.driver.send(frame(b.driver.mac, a.driver.mac, 61));
  expect(b.links).toEqual([false, true]);
  expect(b.frames.map(({ length }) => length)).toEqual([61]);
});

describe('a capture of a run', () => {
  // Not a part of the toolchain: where there is none, the bytes are checked against the format alone.
  const oracle = 'tcpdump';
  const hasTcpdump = spawnSync(oracle, ['--version']).error === undefined;

  test.skipIf(!hasTcpdump)('is what tcpdump reads: addresses, types, lengths and times', () => {
    const file: Uint8Array[] = [];
    const ticks = createTickClock();
    const pcap = createPcapWriter({
      write: (bytes) => file.push(bytes.slice()),
      clock: { now: () => 1_000_000_000 * (86_400 + ticks.now()) + 500_000 },
    });
    const between = createVirtualSwitch();
    const a = station(captureBackend(between.createPort(), pcap), 1, {});
    const b = station(between.createPort(), 2, {});
    a.driver.send(frame(b.driver.mac, a.driver.mac, 60));
    b.driver.send(frame(a.driver.mac, b.driver.mac, 1514));
    const { stdout, status } = spawnSync(oracle, ['-enttr', '-'], {
      input: Buffer.concat(file),
      encoding: 'utf8',
    });
    expect(status).toBe(0);
    const lines = stdout.split('\n').filter((line) => line.includes('ethertype'));
    expect(lines).toHaveLength(2);
    expect(lines[0]).toMatch(
      /^86400\.000500 .*02:00:00:00:00:01 > 02:00:00:00:00:02, ethertype .*0x88b5.*length 60/,
    );
    expect(lines[1]).toMatch(
      /^86401\.000500 .*02:00:00:00:00:02 > 02:00:00:00:00:01, ethertype .*length 1514/,
    );
  });
});
