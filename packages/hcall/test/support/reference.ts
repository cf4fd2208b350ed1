/**
 * A second implementation of the TCE hypercalls: one entry at a time, in plain 64-bit arithmetic,
 * as QEMU's handlers go. [qemu v7.2 hw/ppc/spapr_iommu.c]
 */
import type { TraceValue } from '@pinhole/base';
import { createGuestMemory, type GuestMemory } from '@pinhole/memory';

const [H_SUCCESS, H_PARAMETER] = [0n, -4n];
export const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);

/** Memory has a hole at 64 KiB, and ends inside of a page. */
const REGIONS = [
  { base: 0, size: 0x1_0000 },
  { base: 0x2_0000, size: 0x1000 },
  { base: 0x3_0000, size: 0x808 },
];
export const memory: GuestMemory = createGuestMemory({ regions: REGIONS });
const inMemory = (at: bigint) =>
  REGIONS.some(({ base, size }) => at >= BigInt(base) && at < BigInt(base + size));
const byteAt = (at: bigint) => Number((at * 0x9e37n) ^ (at >> 5n)) & 0xff;
for (const { base, size } of REGIONS) {
  memory.write(
    base,
    Uint8Array.from({ length: size }, (_, i) => byteAt(BigInt(base + i))),
  );
}

export class Window {
  shift = 0n;
  offset = 0n;
  size = 0n;
  isDefault = false;
  entries: Map<bigint, bigint> = new Map();

  open(shift: bigint, offset: bigint, size: bigint): void {
    Object.assign(this, { shift, offset, size });
  }

  close(): void {
    this.open(0n, 0n, 0n);
    this.entries.clear();
  }

  page(ioba: bigint): bigint {
    return u64(ioba - (ioba % (1n << this.shift)));
  }

  put(ioba: bigint, tce: bigint): bigint {
    const index = u64(ioba - this.offset) >> this.shift;
    if (index >= this.size) return H_PARAMETER;
    this.entries.set(index, tce);
    return H_SUCCESS;
  }
}

export interface Answer {
  ret: bigint;
  out: bigint[];
  /** What QEMU logs; `undefined` when it returns before its trace point. */
  logged?: Record<string, TraceValue>;
}

export class Reference {
  readonly windows: Map<bigint, Window> = new Map();

  find(liobn: bigint): Window | undefined {
    return this.windows.get(liobn);
  }

  /** One doubleword of a list; what is no memory loads as zero. */
  load(at: bigint): bigint {
    let value = 0n;
    for (let i = 0n; i < 8n; i += 1n) {
      value = (value << 8n) | (inMemory(at + i) ? BigInt(byteAt(at + i)) : 0n);
    }
    return value;
  }

  put(liobn: bigint, rawIoba: bigint, tce: bigint): Answer {
    const window = this.find(liobn);
    const ioba = window?.page(rawIoba) ?? rawIoba;
    const ret = window?.put(ioba, tce) ?? H_PARAMETER;
    return { ret, out: [], logged: { liobn, ioba, tce, ret } };
  }

  get(liobn: bigint, rawIoba: bigint): Answer {
    const window = this.find(liobn);
    const ioba = window?.page(rawIoba) ?? rawIoba;
    const index = window === undefined ? 0n : u64(ioba - window.offset) >> window.shift;
    const isThere = window !== undefined && index < window.size;
    const tce = isThere ? (window.entries.get(index) ?? 0n) : 0n;
    const ret = isThere ? H_SUCCESS : H_PARAMETER;
    return { ret, out: isThere ? [tce] : [], logged: { liobn, ioba, ret, tce } };
  }

  indirect(liobn: bigint, rawIoba: bigint, tcelist: bigint, npages: bigint): Answer {
    const window = this.find(liobn);
    if (window === undefined) return { ret: H_PARAMETER, out: [] };
    if (npages > 512n || (tcelist & 0xfffn) !== 0n) return { ret: H_PARAMETER, out: [] };
    let [ret, tceN, i] = [H_PARAMETER, 0n, 0n];
    for (let ioba = window.page(rawIoba); i < npages; i += 1n) {
      tceN = this.load(tcelist + i * 8n);
      ret = window.put(ioba, tceN);
      if (ret !== H_SUCCESS) break;
      ioba = u64(ioba + (1n << window.shift));
    }
    const iobaN = i === 0n ? 0n : i - 1n;
    return { ret, out: [], logged: { liobn, ioba: rawIoba, tcelist, iobaN, tceN, ret } };
  }

  stuff(liobn: bigint, rawIoba: bigint, tcevalue: bigint, npages: bigint): Answer {
    const window = this.find(liobn);
    if (window === undefined || npages > window.size) return { ret: H_PARAMETER, out: [] };
    let ret = H_PARAMETER;
    let ioba = window.page(rawIoba);
    for (let i = 0n; i < npages; i += 1n) {
      ret = window.put(ioba, tcevalue);
      if (ret !== H_SUCCESS) break;
      ioba = u64(ioba + (1n << window.shift));
    }
    return { ret, out: [], logged: { liobn, ioba, tcevalue, npages, ret } };
  }
}
