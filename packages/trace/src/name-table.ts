import { invariant } from '@pinhole/base';
import { asciiBytes } from './bytes.js';
import { planScan, type ScanPlan } from './scan.js';
import type { EventSpec } from './types.js';

/** The byte values of a name: 1 for a-z, 0-9 and _, else 0. */
const NAME_BYTES = new Uint8Array(256);
for (const char of 'abcdefghijklmnopqrstuvwxyz0123456789_') NAME_BYTES[char.charCodeAt(0)] = 1;

/** Finds events by the bytes of their names, without making a string for each line. */
export class NameTable {
  readonly #plans = new Map<number, { name: Uint8Array; plan: ScanPlan }>();
  /** Where the last name ended. */
  at = 0;

  constructor(specs: readonly EventSpec[]) {
    for (const spec of specs) {
      const name = asciiBytes(spec.name);
      const key = this.#hash(name, 0, name.length);
      invariant(!this.#plans.has(key), `trace: two names hash like "${spec.name}"`);
      this.#plans.set(key, { name, plan: planScan(spec) });
    }
  }

  /** The event whose whole name starts at `start`; `at` is then behind the name, known or not. */
  find(bytes: Uint8Array, start: number, end: number): ScanPlan | undefined {
    const entry = this.#plans.get(this.#hash(bytes, start, end));
    if (entry === undefined) return undefined;
    const { name } = entry;
    if (this.at - start !== name.length) return undefined;
    for (let i = 0; i < name.length; i += 1) if (bytes[start + i] !== name[i]) return undefined;
    return entry.plan;
  }

  /** FNV-1a over the bytes of a name. */
  #hash(bytes: Uint8Array, start: number, end: number): number {
    let hash = 0x811c_9dc5 | 0;
    let at = start;
    while (at < end && NAME_BYTES[bytes[at]!] === 1) {
      hash = Math.imul(hash ^ bytes[at]!, 0x0100_0193);
      at += 1;
    }
    this.at = at;
    return hash;
  }
}
