import { joinU64, NO_TRACE, type Tracer } from '@pinhole/base';
import {
  bytesToHole,
  type DmaAccess,
  type DmaSpace,
  DmaStatus,
  type GuestMemory,
  type Translation,
} from '@pinhole/memory';
import { EFAULT, EINVAL, type VhostCounters, type VhostIotlbMessage } from './types.js';
import { VhostIotlb } from './vhost-iotlb.js';
import { VhostStall } from './vhost-stall.js';

/** Options of {@link VhostBackend}. */
export interface VhostBackendOptions {
  /** Names it in traces. */
  readonly id: string;
  /** Guest memory as QEMU sees it. */
  readonly memory: GuestMemory;
  /** Most translations; 0: no limit. Default: 2048. */
  readonly maxIotlbEntries?: number;
  /** A message for QEMU, which may answer before it returns. */
  readonly send: (message: VhostIotlbMessage) => void;
  /** A queue that waited may be tried again. */
  readonly retry: (queue: number) => void;
  readonly tracer?: Tracer;
}

/**
 * The data plane's side of an IOTLB, and the device's view of memory through it.
 * [linux v6.1.176 drivers/vhost/vhost.c]
 *
 * Deviates: Linux gives up at a miss and begins the request again when the answer comes; here the
 * answer comes at once, or the queue waits. The messages are the same, unless a request needs more
 * translations than fit: Linux never gets to its end. What Linux remembers of each ring
 * (`meta_iotlb`) saves time and no message; here `generation` is for that.
 */
export class VhostBackend implements DmaSpace {
  readonly isIdentity = false;
  /** Rises with each message: what was translated before may be so no more. [linux v6.1.176 drivers/vhost/vhost.c vhost_vq_meta_reset] */
  generation = 0;
  readonly iotlb: VhostIotlb;
  readonly #options: VhostBackendOptions;
  readonly #tracer: Tracer;
  // By queue: what it waits for. A queue stops at the first miss, so it is one at most.
  readonly #pending = new Map<number, bigint>();
  readonly #granules = new Map<bigint, number>();
  #misses = 0;
  #updates = 0;
  #invalidates = 0;

  constructor(options: VhostBackendOptions) {
    this.#options = options;
    this.#tracer = options.tracer ?? NO_TRACE;
    this.iotlb = new VhostIotlb(options.maxIotlbEntries, ({ start, last }) => {
      if (!this.#tracer.on) return;
      const args = { dev: options.id, iova: start, size: last - start + 1n };
      this.#tracer.event('device', 'vhost_iotlb_evict', args);
    });
  }

  get name(): string {
    return `vhost IOTLB of ${this.#options.id}`;
  }

  get counters(): Omit<VhostCounters, 'stalls'> {
    return {
      misses: this.#misses,
      updates: this.#updates,
      invalidates: this.#invalidates,
      evictions: this.iotlb.evictions,
      entriesPeak: this.iotlb.peak,
      granules: Object.fromEntries(
        [...this.#granules].sort(([a], [b]) => (a < b ? -1 : 1)).map(([size, n]) => [`${size}`, n]),
      ),
    };
  }

  /**
   * Takes a message of QEMU's. [linux v6.1.176 drivers/vhost/vhost.c vhost_chr_write_iter,
   * vhost_process_iotlb_msg]
   * @returns 0, or a negative error number: nothing has changed then.
   */
  receive(message: VhostIotlbMessage): number {
    if (message.type === 'UPDATE') return this.#update(message);
    if (message.type !== 'INVALIDATE') return -EFAULT;
    const { iova, size } = message;
    this.#invalidates += 1;
    this.generation += 1;
    if (this.#tracer.on) {
      const args = { dev: this.#options.id, iova, size };
      this.#tracer.event('device', 'vhost_iotlb_invalidate', args);
    }
    this.iotlb.delete(iova, BigInt.asUintN(64, iova + size - 1n));
    return 0;
  }

  /**
   * One piece of a translation: as far as one entry goes. Asks QEMU if there is none.
   * [linux v6.1.176 drivers/vhost/vhost.c translate_desc]
   * @throws VhostStall when the piece cannot be had.
   */
  translate(
    hi: number,
    lo: number,
    length: number,
    access: DmaAccess,
    out: Translation,
  ): DmaStatus {
    const address = joinU64(hi, lo);
    let map = this.iotlb.find(address);
    if (map === undefined) {
      this.#misses += 1;
      this.#options.send({ type: 'MISS', iova: address, perm: access });
      map = this.iotlb.find(address);
    }
    if (map === undefined) throw new VhostStall(address, access, 'no translation');
    if ((map.perm & access) === 0) throw new VhostStall(address, access, 'no permission');
    const gpa = map.gpa + Number(address - map.start);
    const bytes = Math.min(length, Number(map.last - address) + 1);
    const { memory } = this.#options;
    const inMemory = memory.isBacked(gpa, bytes) ? bytes : bytesToHole(memory, gpa);
    if (inMemory === 0) throw new VhostStall(address, access, 'no memory');
    out.gpa = gpa;
    out.length = Math.min(bytes, inMemory);
    return DmaStatus.OK;
  }

  /** Only the end of the 64 bits is a limit: what is not there makes who touches it wait. */
  covers(hi: number, lo: number, length: number): boolean {
    return joinU64(hi, lo) + BigInt(length) <= 2n ** 64n;
  }

  countRemembered(): void {
    // A ring access that asked nobody.
  }

  /**
   * Sees to it that all of a range can be reached, piece by piece: of a ring, before it is worked on.
   * [linux v6.1.176 drivers/vhost/vhost.c vq_meta_prefetch]
   * @throws VhostStall
   */
  prefetch(address: bigint, length: number, access: DmaAccess): void {
    const out = { gpa: 0, length: 0 };
    for (let done = 0; done < length; done += out.length) {
      const at = BigInt.asUintN(64, address + BigInt(done));
      this.translate(Number(at >> 32n), Number(at & 0xffff_ffffn), length - done, access, out);
    }
  }

  /** Queue `queue` waits for a translation of `iova`: an update that holds it has it tried again. */
  wait(queue: number, iova: bigint): void {
    this.#pending.set(queue, iova);
  }

  /** The queue is given up, or begins again: it waits for nothing any more. */
  forget(queue: number): void {
    this.#pending.delete(queue);
  }

  /** Forgets everything. [linux v6.1.176 drivers/vhost/vhost.c vhost_init_device_iotlb] */
  flush(): void {
    this.generation += 1;
    this.iotlb.clear();
    this.#pending.clear();
  }

  #update(message: Extract<VhostIotlbMessage, { type: 'UPDATE' }>): number {
    const { iova, gpa, size, perm } = message;
    if (size === 0n) return -EINVAL;
    // Linux's check of the address in QEMU: what it leads to must not run out of the 64 bits.
    if (size > 2n ** 64n - BigInt(gpa)) return -EFAULT;
    this.generation += 1;
    const last = BigInt.asUintN(64, iova + size - 1n);
    if (this.iotlb.add(iova, last, gpa, perm) !== 0) return -EFAULT;
    this.#updates += 1;
    this.#granules.set(size, (this.#granules.get(size) ?? 0) + 1);
    if (this.#tracer.on) {
      const args = { dev: this.#options.id, iova, gpa: BigInt(gpa), size, perm };
      this.#tracer.event('device', 'vhost_iotlb_update', args);
    }
    this.#notifyQueues(iova, last);
    return 0;
  }

  /** [linux v6.1.176 drivers/vhost/vhost.c vhost_iotlb_notify_vq] */
  #notifyQueues(iova: bigint, last: bigint): void {
    for (const [queue, address] of [...this.#pending]) {
      if (address < iova || address > last) continue;
      this.#pending.delete(queue);
      this.#options.retry(queue);
    }
  }
}
