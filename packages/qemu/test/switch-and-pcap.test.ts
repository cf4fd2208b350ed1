/** The virtual switch, and capture files byte by byte. */
import { createTickClock } from '@pinhole/base';
import { describe, expect, test } from 'vitest';
import {
  captureBackend,
  createPcapWriter,
  createVirtualSwitch,
  type NetBackend,
} from '../src/index.js';

function frame(to: number, from: number, length = 60): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes.set([to, 0, 0, 0, 0, to, from, 0, 0, 0, 0, from]);
  return bytes;
}

function ports(
  count: number,
  options = {},
): {
  made: ReturnType<typeof createVirtualSwitch>;
  at: NetBackend[];
  log: string[];
} {
  const log: string[] = [];
  const made = createVirtualSwitch(options);
  const at = Array.from({ length: count }, (_, i) => {
    const port = made.createPort();
    port.onReceive((bytes) => log.push(`${i}<${bytes[6]}`));
    return port;
  });
  return { made, at, log };
}

describe('the switch', () => {
  test('floods what it does not know, then goes straight; never back', () => {
    const { at, log } = ports(3);
    at[0]?.send(frame(4, 2));
    at[1]?.send(frame(2, 4));
    at[0]?.send(frame(4, 2));
    at[0]?.send(frame(2, 2));
    expect(log).toEqual(['1<2', '2<2', '0<4', '1<2']);
  });

  test('an address that moves is where it was heard last', () => {
    const { at, log } = ports(3);
    at[0]?.send(frame(4, 2));
    at[1]?.send(frame(8, 2));
    log.length = 0;
    at[2]?.send(frame(2, 6));
    expect(log).toEqual(['1<6']);
  });

  test('group addresses go to all, and are not learned', () => {
    const { made, at, log } = ports(3);
    at[0]?.send(frame(0xff, 3));
    expect([log, made.addresses]).toEqual([['1<3', '2<3'], 0]);
  });

  test('its table is bounded: the oldest goes', () => {
    const { made, at, log } = ports(2, { maxAddresses: 2 });
    for (const from of [2, 4, 6]) at[0]?.send(frame(8, from));
    expect(made.addresses).toBe(2);
    log.length = 0;
    for (const to of [2, 4, 6]) at[1]?.send(frame(to, 8));
    // 8 itself pushed 4 out.
    expect(log).toEqual(['0<8', '0<8', '0<8']);
    expect(made.addresses).toBe(2);
  });

  test('devices that answer at once do not pile up; more than it can hold is dropped', () => {
    const made = createVirtualSwitch({ maxFrames: 3 });
    const [a, b] = [made.createPort(), made.createPort()];
    let left = 10_000;
    b.onReceive(() => {
      if (left-- > 0) b.send(frame(2, 4));
    });
    a.onReceive(() => {
      if (left-- > 0) a.send(frame(4, 2));
    });
    a.send(frame(4, 2));
    expect([left, made.dropped]).toEqual([-1, 0]);
    b.onReceive(() => {
      for (let i = 0; i < 10; i += 1) b.send(frame(6, 4));
    });
    a.send(frame(4, 2));
    expect(made.dropped).toBe(7);
  });

  test('what is no Ethernet frame is dropped', () => {
    const { made, at, log } = ports(2);
    at[0]?.send(new Uint8Array(11));
    expect([log, made.dropped]).toEqual([[], 1]);
  });
});

describe('a capture file', () => {
  test('has the header and the records of the format, little-endian with nanoseconds', () => {
    const file: number[] = [];
    const times = [1_700_000_000_123_456_000, 5];
    const pcap = createPcapWriter({
      write: (bytes) => file.push(...bytes),
      clock: { now: () => times.shift() ?? 0 },
      snapLength: 20,
    });
    pcap.frame(frame(2, 4, 14));
    pcap.frame(frame(6, 8, 60));
    const view = new DataView(Uint8Array.from(file).buffer);
    const words = (at: number, count: number) =>
      Array.from({ length: count }, (_, i) => view.getUint32(at + 4 * i, true));
    // Magic number, version 2.4, reserved twice, snap length, LINKTYPE_ETHERNET.
    expect(words(0, 6)).toEqual([0xa1b2_3c4d, 0x0004_0002, 0, 0, 20, 1]);
    const [seconds, nanoseconds, captured, original] = words(24, 4);
    expect([seconds, captured, original]).toEqual([1_700_000_000, 14, 14]);
    expect(Math.abs((nanoseconds ?? 0) - 123_456_000)).toBeLessThan(256);
    expect(file.slice(40, 54)).toEqual([...frame(2, 4, 14)]);
    expect(words(54, 4)).toEqual([0, 5, 20, 60]);
    expect(file).toHaveLength(54 + 16 + 20);
  });

  test('of a backend has both directions, in order', () => {
    const sizes: number[] = [];
    const pcap = createPcapWriter({
      write: (bytes) => sizes.push(bytes.length),
      clock: createTickClock(),
    });
    const made = createVirtualSwitch();
    const tapped = captureBackend(made.createPort(), pcap);
    const other = made.createPort();
    const log: number[] = [];
    tapped.onReceive(({ length }) => log.push(length));
    other.onReceive(({ length }) => log.push(length));
    tapped.send(frame(2, 4, 100));
    other.send(frame(4, 2, 70));
    expect(log).toEqual([100, 70]);
    expect(sizes).toEqual([24, 116, 86]);
  });
});
