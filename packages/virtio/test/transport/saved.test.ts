import { describe, expect, test } from 'vitest';
import {
  connectPciInterrupts,
  createMmioTransport,
  createPciTransport,
  createVirtioMmio,
  VIRTIO_ID_RNG,
  type VirtioTransport,
} from '../../src/index.js';
import { type EchoDevice, echoDevice, link, pci, transportOf, type Way } from './support/link.js';

/** What can be saved and restored, and a driver's way to it. */
interface Machine {
  readonly device: EchoDevice;
  readonly transport: () => VirtioTransport;
  save(): unknown;
  restore(state: unknown): void;
}

const plain = (state: unknown): unknown => JSON.parse(JSON.stringify(state));

function pciMachine(mode: 'modern' | 'legacy', device: EchoDevice = echoDevice()): Machine {
  const fn = pci(device, mode);
  const interrupts = connectPciInterrupts(fn);
  return {
    device,
    transport: () => transportOf(createPciTransport(fn, { interrupts })),
    save: () => plain(fn.save()),
    restore: (state) => fn.restore(state as ReturnType<typeof fn.save>),
  };
}

function mmioMachine(_mode?: string, device: EchoDevice = echoDevice()): Machine {
  const region = createVirtioMmio({ device: device.core });
  return {
    device,
    transport: () => transportOf(createMmioTransport(region)),
    save: () => plain(region.save()),
    restore: (state) => region.restore(state as ReturnType<typeof region.save>),
  };
}

const MACHINES = [
  ['PCI modern', (device?: EchoDevice) => pciMachine('modern', device)],
  ['PCI legacy', (device?: EchoDevice) => pciMachine('legacy', device)],
  ['MMIO', (device?: EchoDevice) => mmioMachine('', device)],
] as const;

describe.each(MACHINES)('%s: a device saved as plain data goes on elsewhere', (name, make) => {
  const way = (machine: Machine): Way => ({
    name,
    isPolled: name === 'MMIO',
    connect: machine.transport,
  });

  test('the driver does not notice', () => {
    const source = make();
    const it = link(way(source), source.device);
    it.exchange(0, Uint8Array.of(1, 2, 3));
    const state = source.save();
    const target = make();
    // Memory moves with the machine.
    const bytes = new Uint8Array(2 ** 24);
    source.device.memory.read(0, bytes);
    target.device.memory.write(0, bytes);
    target.restore(state);
    expect(target.save()).toEqual(state);
    const { core } = target.device;
    expect([core.status, core.features]).toEqual([source.device.core.status, it.features]);
    core.notifyConfig();
    expect(core.isr).toBe(3);
    // A kick is heard at the same queue, which goes on where it was.
    const before = core.queues[0]!.usedIdx;
    expect(before).toBe(source.device.core.queues[0]!.usedIdx);
    expect(core.queues[0]!.isConfigured).toBe(true);
  });

  test('a state of another kind of device is refused', () => {
    const state = make(echoDevice({ deviceId: VIRTIO_ID_RNG })).save();
    expect(() => make().restore(state)).toThrow(
      expect.objectContaining({ code: 'E_DEVICE_STATE' }),
    );
    const fewer = make(echoDevice({ queueSizes: [256] })).save();
    expect(() => make().restore(fewer)).toThrow(
      expect.objectContaining({ code: 'E_DEVICE_STATE' }),
    );
    const more = make(echoDevice({ config: new Uint8Array(4) })).save();
    expect(() => make().restore(more)).toThrow(expect.objectContaining({ code: 'E_DEVICE_STATE' }));
  });

  test('features that are not offered are refused', () => {
    const source = make();
    link(way(source), source.device);
    const state = source.save() as { device: { features: string } };
    state.device.features = '0xffffffffffffffff';
    expect(() => make().restore(state)).toThrow(
      expect.objectContaining({ code: 'E_DEVICE_STATE' }),
    );
  });
});

test('a vector that is not there is refused', () => {
  const state = pciMachine('modern').save() as { configVector: number };
  state.configVector = 3;
  expect(() => pciMachine('modern').restore(state)).toThrow(
    expect.objectContaining({ code: 'E_DEVICE_STATE' }),
  );
});
