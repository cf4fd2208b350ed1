import { describe, expect, test } from 'vitest';
import {
  hasFeature,
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_CONFIG_S_NEEDS_RESET,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
} from '../../src/index.js';
import { echoDevice, link, WAYS } from './support/link.js';

const bytes = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => i * 7 + seed);

describe.each(WAYS.map((way) => [way.name, way] as const))('%s', (_, way) => {
  test('a driver brings the device up and gets its answers, each with an interrupt', () => {
    const { transport, features, exchange, heard, core } = link(way);
    expect(transport.readStatus() & VIRTIO_CONFIG_S_DRIVER_OK).toBe(VIRTIO_CONFIG_S_DRIVER_OK);
    expect(transport.deviceId).toBe(2);
    expect(hasFeature(features, VIRTIO_F_VERSION_1)).toBe(!transport.isLegacy);
    for (let n = 1; n <= 300; n += 1) {
      const queue = n % 2;
      const before = heard.length;
      const sent = bytes((n % 100) + 1, n);
      expect(exchange(queue, sent)).toEqual(sent.slice().reverse());
      expect(heard.length).toBeGreaterThan(before);
      const { cause, index = queue } = heard.at(-1)!;
      expect([cause, index]).toEqual(['queue', queue]);
    }
    expect(core.errors).toEqual([]);
  });

  test('configuration: fields, bytes, what is beyond the end', () => {
    const { transport } = link(way);
    for (const [offset, length] of [
      [0, 8],
      [4, 4],
      [8, 2],
      [11, 1],
      [13, 6],
      [59, 1],
    ] as const) {
      const into = new Uint8Array(length);
      transport.readConfig(offset, into);
      expect(into).toEqual(Uint8Array.from({ length }, (_, i) => offset + i));
    }
    const beyond = new Uint8Array(4);
    for (const offset of [58, 60, 4096, 2 ** 30, -1]) {
      transport.readConfig(offset, beyond);
      expect([...beyond].slice(2)).toEqual([0xff, 0xff]);
    }
  });

  test('what the driver writes to the configuration reaches the device, if it is inside', () => {
    const writes: number[][] = [];
    const setConfig = (config: Uint8Array): void => {
      writes.push([...config.subarray(0, 4)]);
    };
    const device = echoDevice({ config: new Uint8Array(4), hooks: { setConfig } });
    const { transport } = link(way, device);
    transport.writeConfig(0, Uint8Array.of(1, 2, 3, 4));
    transport.writeConfig(2, Uint8Array.of(9));
    transport.writeConfig(4, Uint8Array.of(9));
    transport.writeConfig(2 ** 20, Uint8Array.of(9));
    expect(writes.at(-1)).toEqual([0, 0, 9, 0]);
    expect(writes.slice(0, -1).at(-1)?.[3]).toBe(4);
  });

  test('a changed configuration is an interrupt of its own, and another generation', () => {
    const { transport, core, heard } = link(way);
    const before = transport.configGeneration();
    core.notifyConfig();
    if (way.isPolled === true) transport.pollInterrupt();
    expect(heard[0]).toEqual({ cause: 'config', index: undefined });
    if (!transport.isLegacy) expect(transport.configGeneration()).not.toBe(before);
  });

  test('an error: the driver hears of it and sees it, unless it is a legacy one; a reset heals', () => {
    const { transport, core, heard } = link(way);
    core.fail('broken');
    if (way.isPolled === true) transport.pollInterrupt();
    const needsReset = (transport.readStatus() & VIRTIO_CONFIG_S_NEEDS_RESET) !== 0;
    expect(needsReset).toBe(!transport.isLegacy);
    expect(heard.map(({ cause }) => cause).includes('config')).toBe(!transport.isLegacy);
    transport.writeStatus(0);
    expect([transport.readStatus(), core.isBroken, core.features]).toEqual([0, false, 0n]);
    expect(transport.pollInterrupt()).toBe(false);
  });

  test('after a reset the driver starts anew', () => {
    const device = echoDevice();
    const first = link(way, device);
    first.exchange(0, bytes(5, 1));
    first.transport.writeStatus(0);
    first.transport.notifyQueue(0);
    expect(device.kicks).toEqual([0]);
    const again = link({ ...way, connect: () => first.transport }, device);
    expect(again.exchange(1, bytes(5, 2))).toEqual(bytes(5, 2).reverse());
    expect(again.heard.at(-1)?.cause).toBe('queue');
  });

  test('one queue is reset and set up again; the other goes on; a legacy device cannot', () => {
    const it = link(way);
    it.exchange(0, bytes(3, 1));
    it.exchange(1, bytes(3, 1));
    const canReset = hasFeature(it.features, VIRTIO_F_RING_RESET) && !it.transport.isLegacy;
    expect(it.transport.resetQueue(0)).toBe(canReset);
    expect(it.exchange(1, bytes(4, 2))).toEqual(bytes(4, 2).reverse());
    if (!canReset) return;
    const { length } = it.kicks;
    it.transport.notifyQueue(0, 0);
    expect(it.kicks.length).toBe(length);
    it.open(0);
    expect(it.exchange(0, bytes(6, 3))).toEqual(bytes(6, 3).reverse());
    expect(it.heard.at(-1)).toMatchObject({ cause: 'queue' });
    // The features are still in force: the driver can ask for no interrupt.
    const heard = it.heard.length;
    it.queues[0]!.disableCallbacks();
    it.exchange(0, bytes(6, 4));
    expect(it.heard.length).toBe(heard);
  });

  test('queues that are not there: no size, no effect', () => {
    const { transport, kicks, core } = link(way);
    expect([transport.queueMaxSize(2), transport.queueMaxSize(1023)]).toEqual([0, 0]);
    transport.notifyQueue(2);
    transport.notifyQueue(0xffff);
    expect([kicks, core.errors]).toEqual([[], []]);
  });
});
