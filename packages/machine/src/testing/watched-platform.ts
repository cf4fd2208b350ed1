import type { HiLo } from '@pinhole/base';
import type { DeviceDma } from '@pinhole/guest';
import type { Platform, PlatformCounters } from '@pinhole/machine';
import type { DmaOps, DmaSpace } from '@pinhole/memory';
import type { Findings } from './check.js';

/** Where a platform was looked at: the case that a finding names. */
export interface Watch {
  readonly findings: Findings;
  readonly where: string;
}

/** The same platform, looked at whenever the guest maps, unmaps or the device is kicked. */
export function watchPlatform(platform: Platform, watch: Watch): Platform {
  const counters = new CounterWatch(platform, watch);
  const watchDma = (dma: DeviceDma): DeviceDma =>
    overlay(dma, { ops: watchOps(dma.ops, counters) });
  const dma = watchDma(platform.dma);
  const hookDma = platform.hook.dma === platform.dma ? dma : watchDma(platform.hook.dma);
  return overlay(platform, {
    dma,
    hook: { ...platform.hook, dma: hookDma },
    reach: (space) => watchReach(platform, space, watch),
  });
}

/** Bytes of guest memory. */
function memorySize(platform: Platform): number {
  return platform.guestMemory.regions.reduce((sum, { size }) => sum + size, 0);
}

/** `target`, but for the members of `own`. A new member of an interface passes through as well. */
function overlay<T extends object>(target: T, own: Partial<T>): T {
  return new Proxy(target, {
    get(_target, key): unknown {
      if (Object.hasOwn(own, key)) return own[key as keyof T];
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

function watchReach(
  platform: Platform,
  space: DmaSpace,
  watch: Watch,
): ReturnType<Platform['reach']> {
  const reach = platform.reach(space);
  const { addressable, plaintext } = reach;
  const size = memorySize(platform);
  const isKept =
    isCount(addressable) && isCount(plaintext) && plaintext <= addressable && addressable <= size;
  watch.findings.hold('reach', isKept, () => {
    return `${watch.where}: expected plaintext <= addressable <= ${size} bytes of memory, found ${plaintext} and ${addressable}`;
  });
  return reach;
}

function watchOps(ops: DmaOps, counters: CounterWatch): DmaOps {
  let live = 0;
  return overlay(ops, {
    map(gpa, length, direction, out: HiLo): boolean {
      if (live === 0) counters.startRequest();
      const isMapped = ops.map(gpa, length, direction, out);
      if (isMapped) live += 1;
      return isMapped;
    },
    unmap(hi, lo, length, direction): void {
      ops.unmap(hi, lo, length, direction);
      live -= 1;
      if (live === 0) counters.endRequest();
    },
    allocCoherent(length, out) {
      counters.forget();
      return ops.allocCoherent(length, out);
    },
  });
}

/** Looks at the counters; between requests as much must be mapped as before the first. */
class CounterWatch {
  readonly #platform: Platform;
  readonly #watch: Watch;
  #last: ReadonlyMap<string, number> = new Map();
  #rest: number | undefined;

  constructor(platform: Platform, watch: Watch) {
    this.#platform = platform;
    this.#watch = watch;
    this.#look();
  }

  startRequest(): void {
    this.#rest ??= mappedNow(this.#look());
  }

  endRequest(): void {
    const now = mappedNow(this.#look());
    const { findings, where } = this.#watch;
    findings.hold('balance', now === this.#rest, () => {
      return `${where}: expected ${this.#rest} IOMMU entries as before the first request, found ${now} with nothing mapped`;
    });
  }

  /** Coherent memory comes: it stays mapped. */
  forget(): void {
    this.#rest = undefined;
  }

  #look(): PlatformCounters {
    const counters = this.#platform.counters();
    const flat = flatten(counters);
    const { findings, where } = this.#watch;
    for (const [name, value] of flat) {
      const before = this.#last.get(name) ?? 0;
      const isKept = isCount(value) && (FALLS.has(name) || value >= before);
      findings.hold('counters', isKept, () => `${where}: ${name} was ${before}, found ${value}`);
    }
    for (const name of this.#last.keys()) {
      findings.hold('counters', flat.has(name), () => `${where}: ${name} was counted, and is gone`);
    }
    const { tcesLive, tcesPeak } = counters;
    findings.hold('counters', tcesLive <= tcesPeak, () => {
      return `${where}: expected tcesLive <= tcesPeak, found ${tcesLive} and ${tcesPeak}`;
    });
    this.#last = flat;
    return counters;
  }
}

/** What is now, not since the start. */
const FALLS: ReadonlySet<string> = new Set(['tcesLive', 'pagesStale', 'bytesShared']);

function mappedNow({ tcesLive, iommu }: PlatformCounters): number {
  return tcesLive + iommu.maps - iommu.unmaps;
}

function flatten(counters: PlatformCounters): Map<string, number> {
  const flat = new Map<string, number>();
  for (const [name, value] of Object.entries(counters) as [string, unknown][]) {
    if (typeof value === 'object' && value !== null) {
      for (const [part, count] of Object.entries(value))
        flat.set(`${name}.${part}`, count as number);
    } else flat.set(name, value as number);
  }
  return flat;
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}
