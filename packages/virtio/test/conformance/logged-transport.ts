import type { VirtioTransport } from '../../src/index.js';

/** What a driver did with a device, in order: `writeStatus 1`, `setupQueue 0`, `notifyQueue 0`. */
export interface LoggedTransport {
  readonly transport: VirtioTransport;
  readonly log: string[];
}

const WRITES = [
  'writeDriverFeatures',
  'writeStatus',
  'setupQueue',
  'resetQueue',
  'notifyQueue',
  'writeConfig',
] as const;

/** The same transport; every call that tells the device something is noted first. */
export function logTransport(inner: VirtioTransport): LoggedTransport {
  const log: string[] = [];
  const noted: readonly (string | symbol)[] = WRITES;
  const transport = new Proxy(inner, {
    get(target, name): unknown {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]): unknown => {
        if (noted.includes(name)) log.push(`${String(name)} ${args[0]}`);
        return value.apply(target, args);
      };
    },
  });
  return { transport, log };
}
