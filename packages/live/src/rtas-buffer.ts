import type { RtasReturns } from '@pinhole/hcall';
import type { GuestMemory } from '@pinhole/memory';
import { LiveError } from './errors.js';
import { RTAS_BUFFER, RTAS_CELLS } from './layout.js';

/** Cells before the arguments: token, nargs, nret. */
const HEADER = 3;
/** What cells hold that no call has written. No call of QEMU's has this to say. */
const UNWRITTEN = 0xa5c3_5a3c;

/**
 * The argument buffer of RTAS calls in guest memory, all cells big-endian.
 * [qemu v7.2 hw/ppc/spapr_hcall.c h_rtas]
 */
export class RtasBuffer {
  readonly #bytes: Uint8Array = new Uint8Array(RTAS_CELLS * 4);
  readonly #view: DataView = new DataView(this.#bytes.buffer);
  readonly #memory: GuestMemory;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  write(token: number, args: readonly number[], nret: number): void {
    if (!(nret >= 0 && HEADER + args.length + nret <= RTAS_CELLS)) {
      throw new LiveError(
        'E_LIVE_USAGE',
        `expected at most ${RTAS_CELLS - HEADER} RTAS arguments and answers, found ${args.length} and ${nret}`,
      );
    }
    const cells = [token, args.length, nret, ...args];
    for (let i = 0; i < RTAS_CELLS; i += 1) this.#view.setUint32(4 * i, cells[i] ?? UNWRITTEN);
    this.#memory.write(RTAS_BUFFER, this.#bytes);
  }

  /** The status, signed, and the other answers, up to the last one that was written. */
  returns(nargs: number, nret: number): RtasReturns {
    this.#memory.read(RTAS_BUFFER, this.#bytes);
    const first = HEADER + nargs;
    let end = first + nret;
    while (end > first && this.#view.getUint32(4 * (end - 1)) === UNWRITTEN) end -= 1;
    const rets: number[] = [];
    for (let i = first; i < end; i += 1) {
      rets.push(i === first ? this.#view.getInt32(4 * i) : this.#view.getUint32(4 * i));
    }
    return rets;
  }
}
