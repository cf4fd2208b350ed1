import { type Hypercalls, KVMPPC_H_RTAS, type SpaprMachine } from '@pinhole/hcall';
import type { GuestMemory } from '@pinhole/memory';
import { RECORD_REGISTERS, RESERVED_MEMORY } from '../layout.js';
import type { LiveQemu } from '../live-qemu.js';
import { type HcallOp, RTAS_SLOT_CELLS, RTAS_SLOTS, type RtasOp, rtasBuffer } from './ops.js';

/** How many calls are made at once. */
export const BATCH_MAX = 1024;
/** Bytes of a place for an RTAS buffer. */
const SLOT = RTAS_SLOT_CELLS * 4;
/** The lists of TCEs: so many pages. */
export const LISTS = 0x100_0000;
export const LIST_PAGES = 24;
/** A page for RTAS buffers that lie askew. */
export const SCRATCH = 0x140_0000;
/** What QEMU leaves below the end of memory at a reset, at most: the device tree. */
const TOP = 0x40_0000;

/** What one side answers to a batch. */
export interface Answers {
  /** Eight registers a call, r3 to r10. */
  readonly registers: BigUint64Array;
  /** The places for RTAS buffers, as the calls left them. */
  readonly rtas: Uint8Array;
}

/** One of the two that are compared. */
export interface Side {
  /** Begins with a batch of at most `BATCH_MAX` calls. Buffers of RTAS calls are placed first. */
  submit(batch: readonly (HcallOp | RtasOp)[]): void;
  /** Ends it. The answers are good until the next `submit`. */
  collect(): Answers;
  readonly memory: GuestMemory;
  /** Windows as at the start; memory zeroed but for what the machine needs itself. */
  restart(): void;
  /** Windows as at the start; memory as it is, but for the uppermost part, which is zeroed. */
  reset(): void;
  close(): void;
}

/** Where the buffer of the call at this place in a batch lies. */
function slotOf(op: RtasOp, position: number): bigint {
  return op.at ?? BigInt(RTAS_SLOTS + position * SLOT);
}

// Places the buffers of a batch. Returns how far they reach, in places; 0 without any.
function placeBuffers(
  batch: readonly (HcallOp | RtasOp)[],
  memory: GuestMemory,
  scratch: Uint8Array,
): number {
  let end = 0;
  batch.forEach((op, i) => {
    if (op.kind !== 'rtas') return;
    const buffer = rtasBuffer(op);
    if (op.at === undefined) {
      scratch.set(buffer, i * SLOT);
      end = i + 1;
      return;
    }
    // As much of it as there is memory for.
    const at = Number(op.at & 0x0fff_ffff_ffff_ffffn);
    for (let cell = 0; cell < RTAS_SLOT_CELLS; cell += 1) {
      const gpa = at + cell * 4;
      if (memory.isBacked(gpa, 4)) memory.write(gpa, buffer.subarray(cell * 4, cell * 4 + 4));
    }
  });
  if (end > 0) memory.write(RTAS_SLOTS, scratch.subarray(0, end * SLOT));
  return end;
}

/** The model. */
export class ModelSide implements Side {
  readonly memory: GuestMemory;
  readonly machine: SpaprMachine;
  readonly #hypercalls: Hypercalls;
  readonly #registers = new BigUint64Array(BATCH_MAX * RECORD_REGISTERS);
  readonly #rtas = new Uint8Array(BATCH_MAX * SLOT);
  readonly #scratch = new Uint8Array(BATCH_MAX * SLOT);

  /** @param hypercalls - in the place of the machine's own: for tests of the campaign. */
  constructor(machine: SpaprMachine, hypercalls: Hypercalls = machine.hypercalls) {
    this.machine = machine;
    this.memory = machine.memory;
    this.#hypercalls = hypercalls;
  }

  submit(batch: readonly (HcallOp | RtasOp)[]): void {
    const end = placeBuffers(batch, this.memory, this.#scratch);
    const registers = this.#registers;
    batch.forEach((op, i) => {
      const at = i * RECORD_REGISTERS;
      const isRtas = op.kind === 'rtas';
      const opcode = isRtas ? BigInt(KVMPPC_H_RTAS) : op.opcode;
      const args = isRtas ? [slotOf(op, i)] : op.args;
      const { ret, out } = this.#hypercalls.call(Number(opcode), args);
      registers[at] = BigInt(ret);
      for (let r = 1; r < RECORD_REGISTERS; r += 1) {
        registers[at + r] = out[r - 1] ?? args[r - 1] ?? 0n;
      }
    });
    if (end > 0) this.memory.read(RTAS_SLOTS, this.#rtas.subarray(0, end * SLOT));
  }

  collect(): Answers {
    return { registers: this.#registers, rtas: this.#rtas };
  }

  restart(): void {
    for (const { base, size } of this.memory.regions) this.memory.fill(base, size, 0);
    this.machine.reset();
  }

  reset(): void {
    clearTop(this.memory);
    this.machine.reset();
  }

  close(): void {}
}

/** A real QEMU. */
export class LiveSide implements Side {
  readonly memory: GuestMemory;
  readonly #qemu: LiveQemu;
  readonly #rtas = new Uint8Array(BATCH_MAX * SLOT);
  readonly #scratch = new Uint8Array(BATCH_MAX * SLOT);
  #rtasEnd = 0;

  constructor(qemu: LiveQemu) {
    this.#qemu = qemu;
    this.memory = qemu.memory;
  }

  submit(batch: readonly (HcallOp | RtasOp)[]): void {
    this.#rtasEnd = placeBuffers(batch, this.memory, this.#scratch);
    const { batches } = this.#qemu;
    const { registers } = batches;
    batch.forEach((op, i) => {
      const at = i * RECORD_REGISTERS;
      const isRtas = op.kind === 'rtas';
      registers[at] = isRtas ? BigInt(KVMPPC_H_RTAS) : op.opcode;
      for (let r = 1; r < RECORD_REGISTERS; r += 1) {
        registers[at + r] = isRtas ? (r === 1 ? slotOf(op, i) : 0n) : (op.args[r - 1] ?? 0n);
      }
    });
    batches.submit(batch.length);
  }

  collect(): Answers {
    const { batches } = this.#qemu;
    batches.collect();
    if (this.#rtasEnd > 0) {
      this.memory.read(RTAS_SLOTS, this.#rtas.subarray(0, this.#rtasEnd * SLOT));
    }
    return { registers: batches.answers, rtas: this.#rtas };
  }

  restart(): void {
    this.reset();
    this.memory.fill(LISTS, LIST_PAGES * 4096, 0);
    this.memory.fill(SCRATCH, 4096, 0);
  }

  reset(): void {
    this.#qemu.reset();
    clearTop(this.memory);
  }

  close(): void {
    this.#qemu.close();
  }
}

function clearTop(memory: GuestMemory): void {
  const { base, size } = memory.regions[0] ?? RESERVED_MEMORY;
  memory.fill(base + size - TOP, TOP, 0);
}
