import { describe, expect, test } from 'vitest';
import {
  connectPciInterrupts,
  createPciModernTransport,
  createPciTransport,
  createVirtioPci,
  featureBits,
  type PciFunction,
  readConfigFields,
  VIRTIO_F_RING_PACKED,
  type VirtioPciDevice,
  type VirtioPciOptions,
  type VirtioTransport,
} from '../../src/index.js';
import { bringUp, FEATURES, roundTrip, type TestDevice, testDevice } from './test-device.js';
import { type Access, type Pretence, watchFunction } from './watched-registers.js';

// VIRTIO v1.2 §4.1.4.3: the fields of struct virtio_pci_common_cfg, and which are read-only.
const FIELDS: Readonly<Record<number, readonly [width: number, isReadOnly?: boolean]>> = {
  0: [4],
  4: [4, true],
  8: [4],
  12: [4],
  16: [2],
  18: [2, true],
  20: [1],
  21: [1, true],
  22: [2],
  24: [2],
  26: [2],
  28: [2],
  30: [2, true],
  32: [4],
  36: [4],
  40: [4],
  44: [4],
  48: [4],
  52: [4],
  56: [2, true],
  58: [2],
};
const DEVICE_STATUS = 20;
const QUEUE_SIZE = 24;
const QUEUE_MSIX_VECTOR = 26;
const CONFIG_MSIX_VECTOR = 16;
const QUEUE_ENABLE = 28;
const QUEUE_RESET = 58;

/** Where the structures lie in this device's BAR 4, for the eyes of the tests only. */
const at = (fn: PciFunction, type: number): number => {
  for (let cap = fn.configRead(0x34, 1); cap !== 0; cap = fn.configRead(cap + 1, 1)) {
    if (fn.configRead(cap, 1) === 9 && fn.configRead(cap + 3, 1) === type) return cap;
  }
  return 0;
};

interface Watched {
  readonly device: TestDevice;
  readonly raw: VirtioPciDevice;
  readonly fn: PciFunction;
  readonly log: Access[];
  connect(hasInterrupts?: boolean): VirtioTransport;
  /** Accesses of the common configuration, by offset in it. */
  common(kind?: Access['kind']): Access[];
}

function watched(
  options: Partial<VirtioPciOptions> = {},
  pretence: (raw: PciFunction) => Pretence = () => ({}),
  features: bigint = FEATURES,
): Watched {
  const device = testDevice(features);
  const raw = createVirtioPci({ device: device.core, mode: 'modern', ...options });
  const log: Access[] = [];
  const fn = watchFunction(raw, log, pretence(raw));
  const start = raw.configRead(at(raw, 1) + 8, 4);
  return {
    device,
    raw,
    fn,
    log,
    connect(hasInterrupts = true) {
      const interrupts = hasInterrupts ? { interrupts: connectPciInterrupts(raw) } : {};
      const result = createPciTransport(fn, interrupts);
      if (!result.ok) throw new Error(result.message);
      return result.transport;
    },
    common: (kind) =>
      log
        .filter(({ bar, at: offset }) => bar === 4 && offset >= start && offset < start + 60)
        .filter((access) => kind === undefined || access.kind === kind)
        .map((access) => ({ ...access, at: access.at - start })),
  };
}

/** All that a driver does with a device. */
function session(w: Watched): VirtioTransport {
  const transport = w.connect();
  const { queues, open } = bringUp(w.device, transport);
  for (let i = 0; i < 20; i += 1) expect(roundTrip(queues[i % 2]!)).toBe(true);
  transport.readConfig(0, new Uint8Array(8));
  transport.readConfig(4, new Uint8Array(4));
  transport.readConfig(2, new Uint8Array(2));
  transport.readConfig(7, new Uint8Array(1));
  transport.writeConfig(0, Uint8Array.of(9));
  transport.resetQueue(0);
  open(0);
  expect(roundTrip(queues[0]!)).toBe(true);
  transport.writeStatus(0);
  return transport;
}

describe('discovery', () => {
  const result = (bytes: Readonly<Record<number, number>>, mode: VirtioPciOptions['mode']) =>
    createPciTransport(watched({ mode }, () => ({ config: bytes })).fn);

  test('the driver takes 0x1AF4 with 0x1040 and the virtio id, or a transitional id [driver-4.1.2.2-1, driver-4.1.2.2-2]', () => {
    expect(result({}, 'modern').ok).toBe(true);
    expect(result({}, 'transitional').ok).toBe(true);
    expect(result({ 2: 0x44 }, 'modern')).toMatchObject({ transport: { deviceId: 4 } });
    for (const bytes of [{ 0: 0xf5 }, { 3: 0x0f }, { 2: 0x80 }]) {
      expect(result(bytes, 'modern')).toMatchObject({ ok: false, reason: 'no-device' });
    }
  });

  test('any revision will do [driver-4.1.2.2-3]', () => {
    for (const revision of [0, 1, 2, 0x7f, 0xff]) {
      expect(result({ 8: revision }, 'modern').ok).toBe(true);
    }
  });

  test('the structures are looked for first; without them it is a legacy device [driver-4.1.5.1.1.1-2, driver-4.1.5.1.1.1-3]', () => {
    expect(result({}, 'transitional')).toMatchObject({ transport: { isLegacy: false } });
    expect(result({}, 'legacy')).toMatchObject({ transport: { isLegacy: true } });
  });

  test('a driver that knows no legacy devices gives up, and says so [driver-4.1.5.1.1.1-4, driver-4.1.5.1.1.1-5]', () => {
    expect(createPciModernTransport(watched({ mode: 'transitional' }).fn).ok).toBe(true);
    expect(createPciModernTransport(watched({ mode: 'legacy' }).fn)).toEqual({
      ok: false,
      reason: 'no-modern',
      message: 'virtio_pci: leaving for legacy driver',
    });
  });
});

describe('capabilities', () => {
  /** Capabilities before those that are there, from 0xc0 on: 20 bytes each. */
  const before = (bodies: readonly (readonly number[])[]) => (raw: PciFunction) => {
    const config: Record<number, number> = { 52: 0xc0 };
    bodies.forEach((body, i) => {
      const start = 0xc0 + 20 * i;
      const next = i + 1 < bodies.length ? start + 20 : raw.configRead(0x34, 1);
      for (let k = 0; k < 20; k += 1) config[start + k] = body[k] ?? 0;
      config[start] = 9;
      config[start + 1] = next;
    });
    return { config };
  };

  test('those of a reserved type and of a reserved BAR are ignored [driver-4.1.4.1-1, driver-4.1.4.1-4]', () => {
    const w = watched(
      {},
      before([
        [9, 0, 16, 0x77, 4],
        [9, 0, 16, 1, 6],
        [9, 0, 20, 2, 0xff],
      ]),
    );
    session(w);
  });

  test('of two structures of a type the first is used [driver-4.1.4.1-2]', () => {
    const raw = createVirtioPci({ device: testDevice().core, mode: 'modern' });
    const notify = raw.configRead(at(raw, 2) + 8, 4);
    // The common configuration where the notifications are: its num_queues reads 0.
    const body = [9, 0, 16, 1, 4, 0, 0, 0, notify & 0xff, notify >> 8, 0, 0, 0, 0x10, 0, 0];
    const result = createPciTransport(watched({}, before([body])).fn);
    expect(result.ok && result.transport.queueMaxSize(0)).toBe(0);
  });

  test('cap_len and length may be larger than they need be [driver-4.1.4.1-3, driver-4.1.4.1-6]', () => {
    session(
      watched({}, (raw) => {
        const config: Record<number, number> = {};
        for (const type of [1, 2, 3, 4]) {
          const cap = at(raw, type);
          config[cap + 2] = 64;
          for (const i of [12, 13, 14]) config[cap + i] = 0xff;
        }
        return { config };
      }),
    );
  });

  test('none is written [driver-4.1.4.1-7]', () => {
    const w = watched();
    session(w);
    const written = w.log.filter(({ bar, kind }) => bar === -1 && kind === 'write');
    const caps = [1, 2, 3, 4].map((type) => at(w.raw, type));
    for (const access of written) {
      for (const cap of caps) expect(access.at < cap || access.at >= cap + 20).toBe(true);
    }
  });
});

describe('the common configuration', () => {
  test('each field is accessed at its width; the others not at all [driver-4.1.3.1-1]', () => {
    const w = watched();
    session(w);
    expect(w.common().length).toBeGreaterThan(50);
    for (const { at: offset, width } of w.common()) expect(FIELDS[offset]?.[0]).toBe(width);
    // The device configuration: one field of 8 bytes, one of 4, 2 and 1.
    const start = w.raw.configRead(at(w.raw, 4) + 8, 4);
    const reads = w.log.filter(
      ({ bar, kind, at: offset }) =>
        bar === 4 && kind === 'read' && offset >= start && offset < start + 8,
    );
    expect(reads.map((access) => [access.at - start, access.width])).toEqual([
      [0, 4],
      [4, 4],
      [4, 4],
      [2, 2],
      [7, 1],
    ]);
  });

  test('what is for reading is not written [driver-4.1.4.3.2-1]', () => {
    const w = watched();
    session(w);
    for (const { at: offset } of w.common('write')) expect(FIELDS[offset]?.[1]).not.toBe(true);
  });

  test('queue_size: not 0; a power of two in a split ring [driver-4.1.4.3.2-2, driver-4.1.4.3.2-3]', () => {
    for (const features of [FEATURES, FEATURES & ~featureBits(VIRTIO_F_RING_PACKED)]) {
      const w = watched({}, undefined, features);
      session(w);
      const sizes = w.common('write').filter(({ at: offset }) => offset === QUEUE_SIZE);
      expect(sizes.map(({ value }) => value)).toEqual([16, 16, 16]);
    }
  });

  test('a queue is enabled when all else is written, and never disabled [driver-4.1.4.3.2-4, driver-4.1.4.3.2-6]', () => {
    const w = watched();
    session(w);
    const writes = w.common('write').filter(({ at: offset }) => offset >= 22 && offset < 56);
    let sinceSelect: number[] = [];
    let enabled = 0;
    for (const { at: offset, value } of writes) {
      if (offset === 22) sinceSelect = [];
      else if (offset === QUEUE_ENABLE) {
        expect(value).toBe(1);
        expect([...sinceSelect].sort((a, b) => a - b)).toEqual([24, 26, 32, 36, 40, 44, 48, 52]);
        enabled += 1;
      } else sinceSelect.push(offset);
    }
    expect(enabled).toBe(3);
  });

  test('after a reset the driver waits until the status reads 0 [driver-4.1.4.3.2-5, driver-2.4.2-1]', () => {
    let left = 0;
    const w = watched({}, (raw) => {
      const status = raw.configRead(at(raw, 1) + 8, 4) + DEVICE_STATUS;
      return {
        bar: (bar, offset) => {
          if (bar !== 4 || offset !== status || left === 0) return undefined;
          left -= 1;
          return 0x0f;
        },
      };
    });
    const transport = w.connect();
    left = 7;
    w.log.length = 0;
    transport.writeStatus(0);
    const seen = w.common().map(({ kind, value }) => `${kind} ${value}`);
    expect(seen).toEqual(['write 0', ...new Array<string>(7).fill('read 15'), 'read 0']);
  });

  test('a queue is reset when queue_reset reads 0, and not before [driver-4.1.4.3.2-7, driver-2.6.1.1.2-1]', () => {
    let left = 0;
    const w = watched({}, (raw) => {
      const reset = raw.configRead(at(raw, 1) + 8, 4) + QUEUE_RESET;
      return {
        bar: (bar, offset) => {
          if (bar !== 4 || offset !== reset || left === 0) return undefined;
          left -= 1;
          return 1;
        },
      };
    });
    const transport = w.connect();
    bringUp(w.device, transport);
    left = 5;
    expect(transport.resetQueue(0)).toBe(true);
    expect(left).toBe(0);
    left = Number.POSITIVE_INFINITY;
    expect(transport.resetQueue(1)).toBe(false);
  });

  test('a queue that was reset is set up as at first [driver-2.6.1.2.2-1]', () => {
    const w = watched();
    const transport = w.connect();
    const { open } = bringUp(w.device, transport);
    const setup = (): number[] => {
      w.log.length = 0;
      open(1);
      return w.common('write').map(({ at: offset }) => offset);
    };
    transport.resetQueue(1);
    expect(setup()).toEqual([22, 22, 24, 32, 36, 40, 44, 48, 52, QUEUE_MSIX_VECTOR, QUEUE_ENABLE]);
  });
});

describe('interrupts', () => {
  test('with MSI-X the ISR is not looked at [driver-4.1.4.5.2-1]', () => {
    const w = watched();
    session(w);
    const isr = w.raw.configRead(at(w.raw, 3) + 8, 4);
    expect(w.log.filter(({ bar, at: offset }) => bar === 4 && offset === isr)).toEqual([]);
  });

  test.each([0, 1, 2, 3, 4, 17, 2048])(
    'a table of %i vectors will do; no vector outside it is asked for [driver-4.1.5.1.2.2-1, driver-4.1.5.1.2.2-2]',
    (msixVectors) => {
      const w = watched({ msixVectors });
      const heard: string[] = [];
      const transport = w.connect();
      transport.onInterrupt((cause, index) => heard.push(`${cause} ${index}`));
      const { queues } = bringUp(w.device, transport);
      expect(roundTrip(queues[1]!)).toBe(true);
      expect(heard.at(-1)).toMatch(/^queue/);
      w.device.core.notifyConfig();
      expect(heard.some((line) => line.startsWith('config'))).toBe(true);
      const vectors = w
        .common('write')
        .filter(({ at: offset }) => offset === CONFIG_MSIX_VECTOR || offset === QUEUE_MSIX_VECTOR);
      for (const { value } of vectors) expect(value).toBeLessThan(msixVectors);
    },
  );

  test('one interrupt that says both: the configuration changed, and buffers were used [driver-4.1.5.4.2-1]', () => {
    const w = watched({ msixVectors: 0 });
    const heard: string[] = [];
    const transport = w.connect(false);
    transport.onInterrupt((cause) => heard.push(cause));
    const { queues } = bringUp(w.device, transport);
    roundTrip(queues[0]!);
    w.device.core.notifyConfig();
    expect(transport.pollInterrupt()).toBe(true);
    expect(heard.sort()).toEqual(['config', 'queue']);
  });
});

describe('the device configuration', () => {
  test('is read again if it changed meanwhile [driver-2.5.1-1]', () => {
    const w = watched();
    const transport = w.connect();
    bringUp(w.device, transport);
    let changes = 3;
    const torn: VirtioTransport = Object.create(transport, {
      readConfig: {
        value: (offset: number, into: Uint8Array): void => {
          transport.readConfig(offset, into);
          if (offset !== 0 || changes === 0) return;
          changes -= 1;
          w.device.config.fill(0x10 * (changes + 1));
          w.device.core.notifyConfig();
        },
      },
      configGeneration: { value: () => transport.configGeneration() },
    });
    const bytes = readConfigFields(torn, [
      { offset: 0, length: 4 },
      { offset: 4, length: 4 },
    ]);
    expect(changes).toBe(0);
    expect([...bytes]).toEqual(new Array(8).fill(0x10));
  });
});

describe('the legacy interface', () => {
  test('the driver uses BAR 0 only, the configuration right behind the headers [driver-4.1.4.10-2, driver-4.1.4.10-4]', () => {
    for (const hasInterrupts of [false, true]) {
      const w = watched({ mode: 'legacy' });
      const transport = w.connect(hasInterrupts);
      bringUp(w.device, transport);
      const start = hasInterrupts ? 24 : 20;
      w.log.length = 0;
      const into = new Uint8Array(8);
      transport.readConfig(0, into);
      expect([...into]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
      expect(w.log.every(({ bar }) => bar === 0)).toBe(true);
      expect(Math.min(...w.log.map(({ at: offset }) => offset))).toBe(start);
    }
  });
});
