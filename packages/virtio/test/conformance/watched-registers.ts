import type { MmioRegion, PciFunction, RegisterWidth } from '../../src/index.js';

/** One access of a driver. `bar` is -1 for configuration space, 0 for what has one region. */
export interface Access {
  readonly bar: number;
  readonly kind: 'read' | 'write';
  readonly at: number;
  readonly width: RegisterWidth;
  readonly value: number;
}

/** The same region; every access is noted. `answer` may say what a read gives instead. */
export function watchRegion(
  inner: MmioRegion,
  log: Access[],
  answer: (at: number, width: RegisterWidth) => number | undefined = () => undefined,
  bar = 0,
): MmioRegion {
  return {
    size: inner.size,
    read(at, width) {
      const value = answer(at, width) ?? inner.read(at, width);
      log.push({ bar, kind: 'read', at, width, value });
      return value;
    },
    write(at, width, value) {
      log.push({ bar, kind: 'write', at, width, value });
      inner.write(at, width, value);
    },
  };
}

/** What a watched function pretends. */
export interface Pretence {
  /** Bytes of configuration space that read as this. */
  readonly config?: Readonly<Record<number, number>>;
  readonly bar?: (bar: number, at: number, width: RegisterWidth) => number | undefined;
}

/** The same function; every access is noted, some are answered otherwise. */
export function watchFunction(
  inner: PciFunction,
  log: Access[],
  pretence: Pretence = {},
): PciFunction {
  const regions = new Map<number, MmioRegion | undefined>();
  return {
    name: inner.name,
    configRead(at, width) {
      let value = inner.configRead(at, width);
      for (let i = 0; i < width; i += 1) {
        const byte = pretence.config?.[at + i];
        if (byte === undefined) continue;
        value = (value - (((value >>> (8 * i)) & 0xff) - byte) * 256 ** i) >>> 0;
      }
      log.push({ bar: -1, kind: 'read', at, width, value });
      return value;
    },
    configWrite(at, width, value) {
      log.push({ bar: -1, kind: 'write', at, width, value });
      inner.configWrite(at, width, value);
    },
    bar(index) {
      if (!regions.has(index)) {
        const region = inner.bar(index);
        const answer = (at: number, width: RegisterWidth): number | undefined =>
          pretence.bar?.(index, at, width);
        regions.set(
          index,
          region === undefined ? undefined : watchRegion(region, log, answer, index),
        );
      }
      return regions.get(index);
    },
  };
}
