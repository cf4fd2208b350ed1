import { describe, expect, test } from 'vitest';
import {
  createMmioTransport,
  createPciTransport,
  createVirtioMmio,
  type MmioRegion,
  type PciFunction,
  VIRTIO_ID_RNG,
  type VirtioMmioDevice,
  type VirtioPciDevice,
  type VirtioTransport,
} from '../../src/index.js';
import { type EchoDevice, echoDevice, link, pci, transportOf } from './support/link.js';

/** A device with its registers, as the driver sees them wherever they are: it can be replaced. */
interface Machine {
  readonly transport: () => VirtioTransport;
  save(): unknown;
  /** Another device takes its place and goes on from that state. */
  moveTo(device: EchoDevice, state: unknown): void;
}

const plain = (state: unknown): unknown => JSON.parse(JSON.stringify(state));

function pciMachine(mode: 'modern' | 'legacy', device: EchoDevice = echoDevice()): Machine {
  let fn: VirtioPciDevice = pci(device, mode);
  const region = (index: number): MmioRegion | undefined => {
    const { size } = fn.bar(index) ?? {};
    return size === undefined
      ? undefined
      : {
          size,
          read: (offset, width) => fn.bar(index)!.read(offset, width),
          write: (offset, width, value) => fn.bar(index)!.write(offset, width, value),
        };
  };
  const seen: PciFunction = {
    name: fn.name,
    configRead: (offset, width) => fn.configRead(offset, width),
    configWrite: (offset, width, value) => fn.configWrite(offset, width, value),
    bar: region,
  };
  return {
    transport: () => transportOf(createPciTransport(seen)),
    save: () => plain(fn.save()),
    moveTo: (other, state) => {
      fn = pci(other, mode);
      fn.restore(state as ReturnType<typeof fn.save>);
    },
  };
}

function mmioMachine(device: EchoDevice = echoDevice()): Machine {
  let region: VirtioMmioDevice = createVirtioMmio({ device: device.core });
  const seen: MmioRegion = {
    size: region.size,
    read: (offset, width) => region.read(offset, width),
    write: (offset, width, value) => region.write(offset, width, value),
  };
  return {
    transport: () => transportOf(createMmioTransport(seen)),
    save: () => plain(region.save()),
    moveTo: (other, state) => {
      region = createVirtioMmio({ device: other.core });
      region.restore(state as ReturnType<typeof region.save>);
    },
  };
}

const MACHINES = [
  ['PCI modern', (device?: EchoDevice) => pciMachine('modern', device)],
  ['PCI legacy', (device?: EchoDevice) => pciMachine('legacy', device)],
  ['MMIO', (device?: EchoDevice) => mmioMachine(device)],
] as const;

const refusal = expect.objectContaining({ code: 'E_DEVICE_STATE' });

describe.each(MACHINES)('%s: a device saved as plain data goes on elsewhere', (name, make) => {
  test('the driver does not notice', () => {
    const source = echoDevice();
    const machine = make(source);
    const it = link({ name, isPolled: true, connect: machine.transport }, source);
    const talk = (): void => {
      for (const [queue, seed] of [
        [0, 1],
        [1, 2],
        [0, 3],
      ] as const) {
        const sent = Uint8Array.of(seed, 2, 3, 4);
        expect(it.exchange(queue, sent)).toEqual(sent.slice().reverse());
      }
    };
    talk();
    // An interrupt that nobody has seen yet moves as well.
    source.core.notifyConfig();
    const generation = it.transport.configGeneration();
    const state = machine.save();
    const target = echoDevice({ memory: source.memory });
    machine.moveTo(target, state);
    expect(machine.save()).toEqual(state);
    expect([it.transport.readStatus(), target.core.features]).toEqual([
      source.core.status,
      it.features,
    ]);
    expect(it.transport.configGeneration()).toBe(generation);
    expect(it.transport.pollInterrupt()).toBe(true);
    talk();
    expect([source.kicks.length, target.kicks.length]).toEqual([3, 3]);
  });

  test.each([
    ['of another type', { deviceId: VIRTIO_ID_RNG }],
    ['with another number of queues', { queueSizes: [256] }],
    ['with another configuration', { config: new Uint8Array(4) }],
  ] as const)('the state of a device %s is refused', (_, setup) => {
    const state = make(echoDevice(setup)).save();
    expect(() => make().moveTo(echoDevice(), state)).toThrow(refusal);
  });

  test('features that are not offered are refused', () => {
    const state = make().save() as { device: { features: string } };
    state.device.features = '0xffffffffffffffff';
    expect(() => make().moveTo(echoDevice(), state)).toThrow(refusal);
  });
});

test('a queue that cannot be taken up leaves the device reset', () => {
  const source = echoDevice();
  const it = link(
    { name: 'PCI modern', isPolled: true, connect: pciMachine('modern', source).transport },
    source,
  );
  it.exchange(0, Uint8Array.of(1, 2));
  const state = JSON.parse(JSON.stringify(source.core.save())) as ReturnType<
    typeof source.core.save
  >;
  const target = echoDevice({ memory: source.memory });
  const [first] = state.queues;
  (first?.ring as { inUse: number }).inUse = 5000;
  expect(() => target.core.restore(state)).toThrow(
    expect.objectContaining({ code: 'E_QUEUE_STATE' }),
  );
  expect([target.core.status, target.core.features]).toEqual([0, 0n]);
});

test('a vector that is not there is refused', () => {
  const state = pciMachine('modern').save() as { configVector: number };
  state.configVector = 3;
  expect(() => pciMachine('modern').moveTo(echoDevice(), state)).toThrow(refusal);
});
