import type { GuestMemory } from '@pinhole/memory';
import { LiveError } from './errors.js';
import {
  DEVICE_TREE,
  DOORBELL,
  MAILBOX,
  READY,
  RECORD_BYTES,
  RECORD_REGISTERS,
  RECORDS,
  RECORDS_MAX,
  STARTS,
} from './layout.js';
import type { QemuProcess } from './qemu-process.js';

/**
 * Hypercalls in bulk, raw: register for register what the CPU holds before and after `sc 1`.
 *
 * Record i of `registers` and of `answers` is the eight elements from 8 * i on: r3 (the opcode;
 * after the call, its return code) to r10. Between `submit` and `collect` QEMU works on its own
 * copy, and the caller may compute what it expects, or fill in the next batch.
 */
export interface HcallBatches {
  /** How many hypercalls one batch can have. */
  readonly capacity: number;
  /** In: the caller's. */
  readonly registers: BigUint64Array;
  /** Out: as the last batch that was collected left them. */
  readonly answers: BigUint64Array;
  /**
   * Lets QEMU begin with the first `count` records of `registers`.
   * @throws LiveError `E_LIVE_USAGE` when the last batch was not collected, or does not fit.
   */
  submit(count: number): void;
  /**
   * Waits for the batch to end and fills in `answers`.
   * @returns how many records there are.
   * @throws LiveError `E_LIVE_USAGE` without a batch, `E_QEMU_EXITED`, `E_QEMU_HANG`,
   * `E_GUEST_RESET`.
   */
  collect(): number;
}

/** Our end of the mailbox; the firmware has the other one. */
export class Mailbox implements HcallBatches {
  readonly capacity: number = RECORDS_MAX;
  readonly registers: BigUint64Array;
  readonly answers: BigUint64Array;
  readonly #in: Uint8Array;
  readonly #out: Uint8Array;
  readonly #single: BigUint64Array = new BigUint64Array(RECORD_REGISTERS);
  readonly #singleBytes: Uint8Array = new Uint8Array(this.#single.buffer);
  /** The doorbell and the two counts. */
  readonly #state: Uint8Array = new Uint8Array(READY + 8);
  readonly #stateView: DataView = new DataView(this.#state.buffer);
  readonly #bell: Uint8Array = new Uint8Array(8);
  readonly #bellView: DataView = new DataView(this.#bell.buffer);
  readonly #memory: GuestMemory;
  readonly #process: QemuProcess;
  #starts = 0;
  /** Records of a batch that was submitted and not collected. */
  #pending = 0;

  constructor(process: QemuProcess, memory: GuestMemory) {
    this.#process = process;
    this.#memory = memory;
    this.registers = new BigUint64Array(RECORDS_MAX * RECORD_REGISTERS);
    this.answers = new BigUint64Array(RECORDS_MAX * RECORD_REGISTERS);
    this.#in = new Uint8Array(this.registers.buffer);
    this.#out = new Uint8Array(this.answers.buffer);
  }

  /** Waits until the firmware has started once more. */
  waitForStart(): void {
    this.#process.waitFor('the firmware to start', () => {
      this.#readState();
      return this.#stateView.getUint32(READY + 4) !== this.#starts;
    });
    this.#starts = this.#stateView.getUint32(READY + 4);
  }

  /** How many times the firmware has started. */
  get starts(): number {
    return this.#starts;
  }

  /** Waits for a batch that nobody will collect. */
  drain(): void {
    if (this.#pending > 0) this.#waitForBell();
    this.#pending = 0;
  }

  /** Where QEMU put the device tree. */
  deviceTreeAddress(): number {
    return Number(this.#memory.readU64Be(MAILBOX + DEVICE_TREE));
  }

  submit(count: number): void {
    if (!Number.isInteger(count) || count < 1 || count > RECORDS_MAX) {
      throw new LiveError(
        'E_LIVE_USAGE',
        `expected a batch of 1 to ${RECORDS_MAX} hypercalls, found one of ${count}`,
      );
    }
    this.#ring(this.#in.subarray(0, count * RECORD_BYTES), count);
    this.#pending = count;
  }

  collect(): number {
    this.#process.check();
    const count = this.#pending;
    if (count === 0) {
      throw new LiveError('E_LIVE_USAGE', 'expected a batch to collect, but none was submitted');
    }
    this.#pending = 0;
    this.#wait();
    this.#memory.read(RECORDS, this.#out.subarray(0, count * RECORD_BYTES));
    return count;
  }

  /**
   * One hypercall.
   * @returns r3 to r10 after it; the next call overwrites them.
   */
  call(opcode: bigint, args: readonly bigint[]): BigUint64Array {
    if (args.length >= RECORD_REGISTERS) {
      throw new LiveError(
        'E_LIVE_USAGE',
        `expected at most ${RECORD_REGISTERS - 1} arguments, r4 to r10, found ${args.length}`,
      );
    }
    const registers = this.#single.fill(0n);
    registers[0] = opcode;
    registers.set(args, 1);
    this.#ring(this.#singleBytes, 1);
    this.#wait();
    this.#memory.read(RECORDS, this.#singleBytes);
    return registers;
  }

  /** Hands records over: they are all written before the doorbell is. */
  #ring(records: Uint8Array, count: number): void {
    this.#process.check();
    if (this.#pending > 0) {
      throw new LiveError('E_LIVE_USAGE', 'expected the last batch to be collected first');
    }
    this.#memory.write(RECORDS, records);
    this.#bellView.setUint32(4, count);
    this.#memory.write(MAILBOX + DOORBELL, this.#bell);
  }

  #wait(): void {
    if (!this.#waitForBell()) return;
    throw new LiveError(
      'E_GUEST_RESET',
      'expected the answers of hypercalls, but the machine reset itself meanwhile',
    );
  }

  /** Waits until the doorbell is cleared; true when a reset cleared it. */
  #waitForBell(): boolean {
    this.#process.waitFor('hypercalls to end', () => {
      this.#readState();
      return this.#stateView.getUint32(DOORBELL + 4) === 0;
    });
    if (this.#stateView.getUint32(STARTS + 4) === this.#starts) return false;
    this.waitForStart();
    return true;
  }

  #readState(): void {
    this.#memory.read(MAILBOX, this.#state);
  }
}
