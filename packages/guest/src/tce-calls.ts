/** The guest's TCE hypercalls. [linux v6.1 arch/powerpc/platforms/pseries/iommu.c] */
import { type Gpa, hex, type Ioba, type Liobn, type Tracer } from '@pinhole/base';
import {
  H_NOT_ENOUGH_RESOURCES,
  H_PUT_TCE,
  H_PUT_TCE_INDIRECT,
  H_STUFF_TCE,
  H_SUCCESS,
  type Hypercalls,
} from '@pinhole/hcall';
import { DmaDirection, type GuestMemory } from '@pinhole/memory';
import { TCE_CALL_MAX } from './params.js';

const TCE_READ = 1n;
const TCE_WRITE = 2n;

/** The window that entries belong to; entry numbers count from its start. */
export interface TceWindow {
  readonly liobn: Liobn;
  readonly busOffset: Ioba;
  readonly pageShift: number;
}

/** Options of {@link TceCalls}. */
export interface TceCallsOptions {
  readonly hypercalls: Hypercalls;
  readonly memory: GuestMemory;
  /** A page for the lists of H_PUT_TCE_INDIRECT (Linux has one a CPU). */
  readonly listPage: Gpa;
  /** H_PUT_TCE_INDIRECT may be used: off for secure guests and with multitce=off. */
  readonly usePutIndirect: boolean;
  /** H_STUFF_TCE may be used: off with multitce=off. */
  readonly useStuff: boolean;
  readonly tracer: Tracer;
}

/** Installs and clears runs of entries with as few hypercalls as the kernel would make. */
export class TceCalls {
  readonly #options: TceCallsOptions;

  constructor(options: TceCallsOptions) {
    this.#options = options;
  }

  /**
   * Installs `npages` entries from `entry` on, for consecutive pages from `gpa`.
   * Only "not enough resources" is an error to Linux; it undoes what it built and answers false.
   * Any other failure is logged and taken for success. [tce_buildmulti_pSeriesLP]
   */
  build(
    window: TceWindow,
    entry: number,
    npages: number,
    gpa: Gpa,
    direction: DmaDirection,
  ): boolean {
    const { pageShift, busOffset } = window;
    const liobn = BigInt(window.liobn);
    const first = (BigInt(gpa) >> BigInt(pageShift)) << BigInt(pageShift);
    // Reading is always allowed; writing unless the buffer only goes to the device.
    const perm = direction === DmaDirection.TO_DEVICE ? TCE_READ : TCE_READ | TCE_WRITE;
    const { hypercalls, memory, listPage } = this.#options;
    const chunk = npages === 1 || !this.#options.usePutIndirect ? 1 : TCE_CALL_MAX;
    for (let done = 0; done < npages; ) {
      const count = Math.min(chunk, npages - done);
      const ioba = busOffset + (BigInt(entry + done) << BigInt(pageShift));
      const tce = (first + (BigInt(done) << BigInt(pageShift))) | perm;
      let ret: number;
      if (chunk === 1) {
        ({ ret } = hypercalls.call(H_PUT_TCE, [liobn, ioba, tce]));
      } else {
        for (let i = 0; i < count; i += 1) {
          memory.writeU64Be(listPage + i * 8, tce + (BigInt(i) << BigInt(pageShift)));
        }
        const args = [liobn, ioba, BigInt(listPage), BigInt(count)];
        ({ ret } = hypercalls.call(H_PUT_TCE_INDIRECT, args));
      }
      if (ret === H_NOT_ENOUGH_RESOURCES) {
        this.free(window, entry, done);
        return false;
      }
      if (ret !== H_SUCCESS) this.#warn(`tce_build failed, rc=${ret}, ioba ${hex(ioba)}`);
      done += count;
    }
    return true;
  }

  /** Clears `npages` entries from `entry` on. [tce_freemulti_pSeriesLP, tce_free_pSeriesLP] */
  free(window: TceWindow, entry: number, npages: number): void {
    const { hypercalls } = this.#options;
    const { pageShift, busOffset } = window;
    const liobn = BigInt(window.liobn);
    const chunk = this.#options.useStuff ? TCE_CALL_MAX : 1;
    for (let done = 0; done < npages; done += chunk) {
      const count = Math.min(chunk, npages - done);
      const ioba = busOffset + (BigInt(entry + done) << BigInt(pageShift));
      const { ret } = this.#options.useStuff
        ? hypercalls.call(H_STUFF_TCE, [liobn, ioba, 0n, BigInt(count)])
        : hypercalls.call(H_PUT_TCE, [liobn, ioba, 0n]);
      if (ret !== H_SUCCESS) this.#warn(`tce_free failed, rc=${ret}, ioba ${hex(ioba)}`);
    }
  }

  #warn(message: string): void {
    if (this.#options.tracer.on) this.#options.tracer.event('guest', 'guest_warn', { message });
  }
}
