/**
 * A second implementation of the TCE hypercalls as KVM answers them: one entry at a time, in plain
 * 64-bit arithmetic. What is too hard for the kernel goes to QEMU's handlers of `reference.ts`.
 * [linux v6.1.192 arch/powerpc/kvm/book3s_64_vio.c, arch/powerpc/kernel/iommu.c]
 */
import { createGuestMemory, type GuestMemory } from '@pinhole/memory';
import { type Answer, Reference, u64, Window } from './reference.js';

const SUCCESS = { ret: 0n, out: [] };
const PARAMETER = { ret: -4n, out: [] };
const NONE = 0n;
const ALL_ONES = 2n ** 64n - 1n;

/** One piece ends inside of a page of the host (64 KiB), one begins there. */
const REGIONS = [
  { base: 0, size: 0x2_0000 },
  { base: 0x3_0000, size: 0x1_8000 },
  { base: 0x100_0000, size: 0x1_0000 },
  { base: 0x200_8000, size: 0x1_8000 },
];
/** Whole pages of the host: what QEMU makes memory slots of. [qemu v7.2 accel/kvm/kvm-all.c kvm_align_section] */
const SLOT_FRAMES = [0n, 1n, 3n, 0x100n, 0x201n];

export function createKvmMemory(): GuestMemory {
  return createGuestMemory({ regions: REGIONS });
}

/** A window that counts what QEMU stored: the kernel's stores do not come here. */
export class CountingWindow extends Window {
  puts = 0;

  override put(ioba: bigint, tce: bigint): bigint {
    const ret = super.put(ioba, tce);
    if (ret === 0n) this.puts += 1;
    return ret;
  }
}

export class KvmReference extends Reference {
  /** Doublewords of guest memory that are not zero, by address. */
  readonly words: Map<bigint, bigint> = new Map();
  /** How many calls the kernel answered. */
  inKernel = 0;
  /** How many lists the second pass broke off. */
  partial = 0;

  override load(at: bigint): bigint {
    return this.words.get(at) ?? 0n;
  }

  override put(liobn: bigint, ioba: bigint, tce: bigint): Answer {
    return this.#count(this.#put(liobn, ioba, tce)) ?? super.put(liobn, ioba, tce);
  }

  override get(liobn: bigint, ioba: bigint): Answer {
    return this.#count(this.#get(liobn, ioba)) ?? super.get(liobn, ioba);
  }

  override indirect(liobn: bigint, ioba: bigint, list: bigint, npages: bigint): Answer {
    const answer = this.#count(this.#indirect(liobn, ioba, list, npages));
    return answer ?? super.indirect(liobn, ioba, list, npages);
  }

  override stuff(liobn: bigint, ioba: bigint, tce: bigint, npages: bigint): Answer {
    const answer = this.#count(this.#stuff(liobn, ioba, tce, npages));
    return answer ?? super.stuff(liobn, ioba, tce, npages);
  }

  #count(answer: Answer | undefined): Answer | undefined {
    if (answer !== undefined) this.inKernel += 1;
    return answer;
  }

  #put(liobn: bigint, ioba: bigint, tce: bigint): Answer | undefined {
    const window = this.#kernelTable(liobn);
    if (window === undefined) return undefined;
    if (!isRange(window, ioba, 1n)) return PARAMETER;
    if (!isEntry(window, tce)) return undefined;
    store(window, ioba, 0n, tce);
    return SUCCESS;
  }

  #get(liobn: bigint, ioba: bigint): Answer | undefined {
    const window = this.#kernelTable(liobn);
    if (window === undefined) return undefined;
    if (!isRange(window, ioba, 1n)) return PARAMETER;
    return { ret: 0n, out: [window.entries.get(indexOf(window, ioba)) ?? 0n] };
  }

  #indirect(liobn: bigint, ioba: bigint, list: bigint, npages: bigint): Answer | undefined {
    const window = this.#kernelTable(liobn);
    if (window === undefined) return undefined;
    if (npages > 512n || list % 4096n > 0n || !isRange(window, ioba, npages)) return PARAMETER;
    if (!isInSlot(list)) return undefined;
    for (let i = 0n; i < npages; i += 1n) {
      if (!isEntry(window, this.load(list + i * 8n))) return undefined;
    }
    for (let i = 0n; i < npages; i += 1n) {
      const tce = this.load(list + i * 8n);
      if (!isInSlot(tce)) {
        this.partial += i > 0n ? 1 : 0;
        return PARAMETER;
      }
      store(window, ioba, i, tce);
    }
    return SUCCESS;
  }

  #stuff(liobn: bigint, ioba: bigint, tce: bigint, npages: bigint): Answer | undefined {
    const window = this.#kernelTable(liobn);
    if (window === undefined) return undefined;
    if (!isRange(window, ioba, npages) || (tce & 3n) !== NONE) return PARAMETER;
    for (let i = 0n; i < npages; i += 1n) store(window, ioba, i, tce);
    return SUCCESS;
  }

  // [linux v6.1.192 kvm_vm_ioctl_create_spapr_tce, qemu v7.2 target/ppc/kvm.c kvmppc_create_spapr_tce]
  #kernelTable(liobn: bigint): Window | undefined {
    const window = this.find(liobn);
    if (window === undefined || window.size === 0n) return undefined;
    if (window.shift < 12n || window.shift > 34n) return undefined;
    return firstPage(window) + window.size > ALL_ONES >> window.shift ? undefined : window;
  }
}

const firstPage = ({ shift, offset }: Window) => offset >> shift;

const indexOf = (window: Window, ioba: bigint) => (ioba >> window.shift) - firstPage(window);

function store(window: Window, ioba: bigint, i: bigint, tce: bigint): void {
  window.entries.set(indexOf(window, ioba) + i, tce);
}

// [iommu_tce_check_ioba]: sums are of 64 bits.
function isRange(window: Window, ioba: bigint, npages: bigint): boolean {
  if (ioba % (1n << window.shift) !== 0n) return false;
  const page = ioba >> window.shift;
  if (page < firstPage(window)) return false;
  if (u64(page + npages) < page) return false;
  return u64(page - firstPage(window) + npages) <= window.size;
}

// [kvmppc_tce_validate]
function isEntry(window: Window, tce: bigint): boolean {
  if ((tce & 3n) === NONE) return true;
  return (tce & ~3n) % (1n << window.shift) === 0n && isInSlot(tce);
}

// [kvmppc_tce_to_ua]
function isInSlot(tce: bigint): boolean {
  return SLOT_FRAMES.includes(tce >> 16n);
}
