/** A device that no package knows: docs/ADDING-A-DEVICE.md, followed to the letter. */
import { connectMmioInterrupts, createMmioTransport, createVirtioMmio } from '@pinhole/virtio';
import { describe, expect, test } from 'vitest';
import { connect, createBench, RINGS } from './bench.js';
import { probeEcho } from './echo-device/echo-driver.js';
import { VirtioEcho } from './echo-device/virtio-echo.js';

describe.each(RINGS)('%s', (_name, rings) => {
  test('the toy answers over PCI, and is configured and reset as any device', () => {
    const bench = createBench(rings);
    const echo = new VirtioEcho({ ...bench.device, maxLength: 64 });
    const probed = probeEcho(bench.driver(connect(echo.core)));
    if (!probed.ok) throw new Error(probed.message);
    const { driver } = probed;
    expect([driver.maxLength, driver.ask('hello')]).toEqual([64, 'hello']);
    driver.setLoud(true);
    expect(driver.ask('hello')).toBe('HELLO');
    for (let i = 0; i < 100; i += 1) expect(driver.ask(`no. ${i}`)).toBe(`NO. ${i}`);
    driver.remove();
    expect([bench.live(), echo.core.errors]).toEqual([0, []]);
  });
});

test('and over MMIO', () => {
  const bench = createBench();
  const echo = new VirtioEcho({ ...bench.device, maxLength: 64 });
  const region = createVirtioMmio({ device: echo.core });
  const made = createMmioTransport(region, { interrupts: connectMmioInterrupts(region) });
  if (!made.ok) throw new Error(made.message);
  const probed = probeEcho(bench.driver(made.transport));
  expect(probed.ok && probed.driver.ask('hello')).toBe('hello');
});

test('its driver asks too much: the device says that it needs a reset', () => {
  const bench = createBench();
  const echo = new VirtioEcho({ ...bench.device, maxLength: 4 });
  const probed = probeEcho(bench.driver(connect(echo.core)));
  expect(probed.ok && probed.driver.ask('hello')).toBe(undefined);
  expect(echo.core.errors).toEqual(['virtio-echo message too long']);
});
