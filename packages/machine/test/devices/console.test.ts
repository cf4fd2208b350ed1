/** The guest's console driver on QEMU's virtio-serial. */
import { type GuestPort, probeVirtioConsole, type VirtioConsoleDriver } from '@pinhole/guest';
import { ConsoleLog, VirtioConsole, type VirtioConsoleOptions } from '@pinhole/qemu';
import { describe, expect, test } from 'vitest';
import { connect, createBench, RINGS, type RingOptions } from './bench.js';

const text = (value: string): Uint8Array => Uint8Array.from(Buffer.from(value, 'latin1'));

function setup(
  options: Omit<Partial<VirtioConsoleOptions>, 'memory'>,
  rings: RingOptions = {},
): {
  device: VirtioConsole;
  driver: VirtioConsoleDriver;
  input: string[];
  live: () => number;
} {
  const bench = createBench(rings);
  const device = new VirtioConsole({ ports: [], ...bench.device, ...options });
  const input: string[] = [];
  const probed = probeVirtioConsole({
    ...bench.driver(connect(device.core)),
    onInput: (port: GuestPort) => {
      const bytes = new Uint8Array(port.available);
      port.read(bytes);
      input.push(`${port.id}:${Buffer.from(bytes).toString('latin1')}`);
    },
  });
  if (!probed.ok) throw new Error(probed.message);
  return { device, driver: probed.driver, input, live: bench.live };
}

describe.each(RINGS)('%s', (_name, rings) => {
  test('a console and a named port find each other, and bytes pass both ways', () => {
    const [tty, agent] = [new ConsoleLog(), new ConsoleLog()];
    const { device, driver, input, live } = setup(
      {
        ports: [{ backend: tty }, { backend: agent, isConsole: false, name: 'org.example.agent' }],
        maxPorts: 4,
      },
      rings,
    );
    expect(
      [...driver.ports.values()].map(({ id, name, isConsole }) => [id, name, isConsole]),
    ).toEqual([
      [0, undefined, true],
      [1, 'org.example.agent', false],
    ]);
    const [console0, port1] = device.ports;
    expect([console0?.isGuestConnected, port1?.isGuestConnected]).toEqual([true, false]);
    driver.setOpen(1, true);
    expect(driver.ports.get(0)?.write(text('login: '))).toBe(7);
    expect(driver.ports.get(1)?.write(new Uint8Array(50_000).fill(0x78))).toBe(50_000);
    expect(Buffer.from(tty.bytes).toString('latin1')).toBe('login: ');
    expect(agent.bytes.length).toBe(50_000);
    expect([console0?.input(text('root\n')), port1?.input(text('ping'))]).toEqual([5, 4]);
    expect(input).toEqual(['0:root\n', '1:ping']);
    driver.remove();
    expect([live(), device.core.errors]).toEqual([0, []]);
  });
});

test('the only port of a device without control messages', () => {
  const log = new ConsoleLog();
  const { device, driver, input } = setup({ ports: [{ backend: log }], maxPorts: 1 });
  driver.ports.get(0)?.write(text('hello'));
  device.ports[0]?.input(text('there'));
  expect([Buffer.from(log.bytes).toString('latin1'), input]).toEqual(['hello', ['0:there']]);
});

test('the host closes its end of a port: writes wait until it opens', () => {
  const log = new ConsoleLog();
  const { device, driver } = setup({ ports: [{ backend: log, isConsole: false }] });
  driver.setOpen(1, true);
  device.ports[0]?.setOpen(false);
  expect(driver.ports.get(1)?.write(text('lost'))).toBe(0);
  device.ports[0]?.setOpen(true);
  expect(driver.ports.get(1)?.write(text('kept'))).toBe(4);
  expect(Buffer.from(log.bytes).toString('latin1')).toBe('kept');
});

test('an emergency write comes out of the console', () => {
  const log = new ConsoleLog();
  const { driver } = setup({ ports: [{ backend: log }] });
  expect(driver.emergencyWrite(0x21)).toBe(true);
  expect([...log.bytes]).toEqual([0x21]);
});
