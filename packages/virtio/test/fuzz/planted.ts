import type { DmaSpace, GuestMemory } from '@pinhole/memory';
import {
  createDeviceQueue,
  createDriverQueue,
  type DeviceQueue,
  type DeviceQueueOptions,
  type DriverQueue,
  type DriverQueueOptions,
} from '../../src/index.js';
import type { MakeDeviceQueue } from './device-target.js';
import type { MakeDriverQueue } from './driver-target.js';

/**
 * Queues with a mistake in them, each one that somebody has made: what the fuzzers must find. `with`
 * keeps all else of the queue as it is.
 */
function withMistake<Q extends object>(queue: Q, mistake: (queue: Q) => Partial<Q>): Q {
  const own = mistake(queue);
  return new Proxy(queue, {
    get(target, key): unknown {
      const source = key in own ? own : target;
      const value = Reflect.get(source, key, source) as unknown;
      return typeof value === 'function' ? value.bind(source) : value;
    },
  });
}

const device =
  (mistake: (queue: DeviceQueue, options: DeviceQueueOptions) => Partial<DeviceQueue>) =>
  (isPacked: boolean, options: DeviceQueueOptions): DeviceQueue =>
    withMistake(createDeviceQueue(isPacked, options), (queue) => mistake(queue, options));

const driver =
  (
    mistake: (
      queue: DriverQueue<number>,
      options: DriverQueueOptions,
    ) => Partial<DriverQueue<number>>,
  ) =>
  (options: DriverQueueOptions): DriverQueue<number> | undefined => {
    const queue = createDriverQueue<number>(options);
    return queue && withMistake(queue, (inner) => mistake(inner, options));
  };

export const DEVICE_MISTAKES: Readonly<Record<string, MakeDeviceQueue>> = {
  'a segment a byte too long': device((queue) => ({
    pop() {
      const element = queue.pop();
      if (element !== undefined) element.length[element.outNum + element.inNum - 1]! += 1;
      return element;
    },
  })),
  'a last segment that is left out': device((queue) => ({
    pop() {
      const element = queue.pop();
      if (element !== undefined && element.inNum > 1) element.inNum -= 1;
      return element;
    },
  })),
  'a broken device that goes on': (isPacked, options) => {
    const { owner } = options;
    const deaf = { isBroken: false, tracer: owner.tracer, fail: owner.fail.bind(owner) };
    return createDeviceQueue(isPacked, { ...options, owner: deaf });
  },
  'an exception for a bad chain': (isPacked, options) => {
    const fail = (message: string): void => {
      throw new Error(message);
    };
    return createDeviceQueue(isPacked, { ...options, owner: { ...options.owner, fail } });
  },
  'a look behind the available ring': device((queue, { memory }) => ({
    configure(setup) {
      queue.configure(setup);
      readAround(memory, Number(setup.avail), 2 * setup.size + 8);
    },
  })),
  'mappings that end twice': device((queue, { mapper }) => ({
    detach(element, written) {
      for (let i = 0; i < element.outNum; i += 1) {
        mapper?.unmap?.(element.gpa[i]!, element.length[i]!, false, 0);
      }
      queue.detach(element, written);
    },
  })),
  'permissions that are not asked for': (isPacked, options) => {
    const { space, memory } = options;
    const lax: DmaSpace = {
      name: 'lax',
      isIdentity: space.isIdentity,
      translate: (hi, lo, length, _access, out) => space.translate(hi, lo, length, 1, out),
      covers: (hi, lo, length) => space.covers(hi, lo, length),
    };
    return createDeviceQueue(isPacked, { ...options, memory, space: lax });
  },
  'a used entry with the next name': device((queue) => ({
    push(element, written) {
      element.head ^= 1;
      queue.push(element, written);
    },
  })),
  'a buffer that is put back and taken for the next': device((queue) => ({
    unpop(element) {
      queue.detach(element);
    },
  })),
  'work without end': device((queue) => ({
    setNotification(isOn) {
      for (let n = 0; n < 100; n += 1) queue.setNotification(isOn);
    },
  })),
};

export const DRIVER_MISTAKES: Readonly<Record<string, MakeDriverQueue>> = {
  'a length cut to 16 bits': driver((queue) => ({
    getUsed() {
      const used = queue.getUsed();
      return used?.kind === 'used' ? { ...used, length: used.length & 0xffff } : used;
    },
  })),
  'a buffer that comes back twice': driver((queue) => {
    let last: ReturnType<typeof queue.getUsed>;
    return {
      getUsed() {
        const used = queue.getUsed();
        if (used === undefined && last !== undefined) {
          const again = last;
          last = undefined;
          return again;
        }
        last = used?.kind === 'used' ? { ...used } : undefined;
        return used;
      },
    };
  }),
  'a bad ring that is taken for an empty one': driver((queue) => ({
    getUsed() {
      const used = queue.getUsed();
      return used?.kind === 'bad-ring' ? undefined : used;
    },
  })),
  'a piece that is not mapped': driver((_queue, { dma }) => {
    let isSecond = false;
    const { map } = dma;
    dma.map = (gpa, length, direction, out) => {
      isSecond = !isSecond;
      return map.call(dma, gpa, isSecond ? length : length - 1, direction, out);
    };
    return {};
  }),
  'mappings left behind by a buffer that has no room': (options) => {
    const { dma } = options;
    const leaky = Object.create(dma) as typeof dma;
    let count = 0;
    leaky.map = (gpa, length, direction, out) => {
      count += 1;
      if (count % 7 === 0) dma.map(gpa, length, direction, { hi: 0, lo: 0 });
      return dma.map(gpa, length, direction, out);
    };
    leaky.unmap = (hi, lo, length, direction) => dma.unmap(hi, lo, length, direction);
    leaky.allocCoherent = (length, out) => dma.allocCoherent(length, out);
    leaky.freeCoherent = (gpa, hi, lo, length) => dma.freeCoherent(gpa, hi, lo, length);
    return createDriverQueue<number>({ ...options, dma: leaky });
  },
  'kicks that the device did not ask for': driver((queue, { notify }) => ({
    kick() {
      queue.kickPrepare();
      notify?.();
      return true;
    },
  })),
  'interrupts that come on while buffers wait': driver((queue) => ({
    enableCallbacks() {
      queue.enableCallbacks();
      return true;
    },
  })),
  'a driver that writes what is the device\u2019s': driver((queue, { memory }) => ({
    disableCallbacks() {
      queue.disableCallbacks();
      memory.writeU16Le(queue.ringGpa + Number(queue.setup.used - queue.setup.desc), 1);
    },
  })),
  'a buffer that is forgotten at the end': driver((queue) => ({
    detachUnused() {
      queue.detachUnused();
      return queue.detachUnused();
    },
  })),
};

function readAround(memory: GuestMemory, start: number, length: number): void {
  for (let at = 0; at < length; at += 2)
    if (memory.isBacked(start + at, 2)) memory.readU16Le(start + at);
}
