import type { Gpa } from '@pinhole/base';
import { type Hypercalls, KVMPPC_H_RTAS } from '@pinhole/hcall';
import type { GuestMemory } from '@pinhole/memory';

/** Calls RTAS through a buffer in guest memory. [linux v6.1 arch/powerpc/kernel/rtas.c rtas_call] */
export class Rtas {
  readonly #hypercalls: Hypercalls;
  readonly #memory: GuestMemory;
  readonly #buffer: Gpa;

  /** @param options - `buffer`: a page of guest memory that the hypervisor can read and write. */
  constructor(options: { hypercalls: Hypercalls; memory: GuestMemory; buffer: Gpa }) {
    this.#hypercalls = options.hypercalls;
    this.#memory = options.memory;
    this.#buffer = options.buffer;
  }

  /** @returns `nret` cells; the first is the status, signed. Cells not written read as 0. */
  call(token: number, args: readonly number[], nret: number): number[] {
    const cells = [token, args.length, nret, ...args, ...new Array<number>(nret).fill(0)];
    cells.forEach((cell, i) => {
      this.#memory.writeU32Be(this.#buffer + i * 4, cell >>> 0);
    });
    this.#hypercalls.call(KVMPPC_H_RTAS, [BigInt(this.#buffer)]);
    const first = this.#buffer + (3 + args.length) * 4;
    return Array.from({ length: nret }, (_, i) => {
      const cell = this.#memory.readU32Be(first + i * 4);
      return i === 0 ? cell | 0 : cell;
    });
  }
}
