import { describe, expect, test } from 'vitest';
import {
  connectPciInterrupts,
  createPciTransport,
  type PciFunction,
  type VirtioPciDevice,
  type VirtioPciOptions,
} from '../../src/index.js';
import { echoDevice, link, pci, transportOf } from './support/link.js';

/** The device makes nothing of a vector that is written at this offset of a BAR. */
function refusing(fn: VirtioPciDevice, bar: number, register: number): PciFunction {
  return {
    name: fn.name,
    configRead: (offset, width) => fn.configRead(offset, width),
    configWrite: (offset, width, value) => fn.configWrite(offset, width, value),
    bar: (index) => {
      const region = fn.bar(index);
      if (region === undefined || index !== bar) return region;
      return {
        size: region.size,
        read: (offset, width) => region.read(offset, width),
        write: (offset, width, value) =>
          region.write(offset, width, offset === register ? 0xffff : value),
      };
    },
  };
}

const CASES = [
  ['modern, of the configuration', 'modern', 4, 16],
  ['modern, of a queue', 'modern', 4, 26],
  ['legacy, of the configuration', 'legacy', 0, 20],
  ['legacy, of a queue', 'legacy', 0, 22],
] as const satisfies readonly (readonly [string, VirtioPciOptions['mode'], number, number])[];

describe('vectors that a device refuses', () => {
  test.each(CASES)(
    '%s: the driver sees it, and takes the line [driver-4.1.5.1.2.2-3]',
    (name, mode, bar, register) => {
      const device = echoDevice();
      const fn = pci(device, mode);
      const interrupts = connectPciInterrupts(fn);
      const connect = (): ReturnType<typeof transportOf> =>
        transportOf(createPciTransport(refusing(fn, bar, register), { interrupts }));
      const it = link({ name, connect }, device);
      const at = mode === 'modern' ? 0x98 : 0x40;
      expect(fn.configRead(at + 2, 2) & 0x8000).toBe(0);
      for (const queue of [0, 1]) {
        expect(it.exchange(queue, Uint8Array.of(1, 2))).toEqual(Uint8Array.of(2, 1));
        // By the line: it does not say which queue it was.
        expect(it.heard.at(-1)).toEqual({ cause: 'queue', index: undefined });
      }
      const config = new Uint8Array(4);
      it.transport.readConfig(0, config);
      expect(config).toEqual(Uint8Array.of(0, 1, 2, 3));
    },
  );
});

test('a platform without messages: the line', () => {
  const device = echoDevice();
  const fn = pci(device, 'modern');
  const { onLine } = connectPciInterrupts(fn);
  const interrupts = { onLine, allocateVectors: () => undefined };
  const connect = (): ReturnType<typeof transportOf> =>
    transportOf(createPciTransport(fn, { interrupts }));
  const it = link({ name: 'line', connect }, device);
  it.exchange(1, Uint8Array.of(1));
  expect(it.heard).toEqual([{ cause: 'queue', index: undefined }]);
});
