import { readFileSync } from 'node:fs';
import type { GuestMemory } from '@pinhole/memory';
import { Ccw, type ChannelCommand, type ChannelDevice, type ChannelStatus } from '@pinhole/virtio';
import { findQemu } from '../../src/find-qemu.js';
import { LiveMemory } from '../../src/live-memory.js';
import { QemuProcess } from '../../src/qemu-process.js';
import { Qmp } from '../../src/qmp.js';
import { SupervisorFd } from '../../src/supervisor.js';

/** The program of the guest, see `test/vectors/s390x-channel.s`, and its mailbox. */
const VECTOR = new URL('../vectors/s390x-channel.txt', import.meta.url);
const MAILBOX = 0x3000;
const [DOORBELL, REGISTERS, CONDITION, RESULT, READY] = [0, 8, 40, 48, 56];
const MAILBOX_SIZE = 64;
/** Where channel programs are put together: what lies from `USER` on is the caller's. */
const ORB = 0x4000;
const SCHIB = 0x4040;
const IRB = 0x4080;
const INTERRUPTION = 0x40f0;
const CCWS = 0x4100;
export const USER = 0x1_0000;

/**
 * Operations of the program, by number. The last is START SUBCHANNEL, TEST SUBCHANNEL and, to take the
 * interruption back, TEST PENDING INTERRUPTION.
 */
const Op = { STSCH: 1, MSCH: 2, DIAG_500: 3, RUN: 4 } as const;
/** [linux v6.1 arch/s390/include/uapi/asm/virtio-ccw.h KVM_S390_VIRTIO_CCW_NOTIFY] */
const VIRTIO_CCW_NOTIFY = 3n;
/** Waits are as long as those of `LiveQemu`. */
const TIMEOUT_MS = 10_000;
const QUIT_MS = 2_000;
/** Bytes of the guest's memory. */
export const MEMORY_SIZE: number = 2 ** 28;

/** Flags of a CCW. [qemu v7.2 include/hw/s390x/css.h] */
export const CCW_FLAG_CC = 0x40;
const CCW_FLAG_SLI = 0x20;
/** SENSE ID. [qemu v7.2 include/hw/s390x/css.h CCW_CMD_SENSE_ID] */
const SENSE_ID = 0xe4;
/** Enabled, in the flags of a subchannel; sense data come with the status, in its characteristics. */
const PMCW_FLAGS_ENA = 0x80;
const PMCW_CHARS_CSENSE = 1;

/** A CCW of a program of several. */
export interface ProgramCommand extends ChannelCommand {
  /** The CC flag: the next one follows if this one ends well. */
  readonly isChained?: boolean;
}

/** What TEST SUBCHANNEL tells of a program's end. */
export interface ProgramEnd {
  readonly deviceStatus: number;
  readonly subchannelStatus: number;
  /** What the last command left of its count. */
  readonly residual: number;
  /** How many commands were looked at. */
  readonly commands: number;
  /** The first byte of sense data; after a unit check. */
  readonly sense: number;
}

/**
 * A real QEMU s390-ccw-virtio machine. Its guest is a program of ours that executes the instruction
 * for which the mailbox asks. Everything is synchronous, as in `LiveQemu`.
 */
export class S390xMachine {
  readonly memory: GuestMemory;
  readonly #process: QemuProcess;
  readonly #mailbox: Uint8Array = new Uint8Array(MAILBOX_SIZE);
  readonly #view: DataView = new DataView(this.#mailbox.buffer);

  /** `devices`: arguments for QEMU; subchannels are numbered in their order. */
  constructor(qemu: string, devices: readonly string[]) {
    const process = new QemuProcess({
      qemu: findQemu(qemu),
      args: [
        ...['-machine', 's390-ccw-virtio,memory-backend=ram0', '-accel', 'tcg', '-smp', '1'],
        ...['-m', `size=${MEMORY_SIZE}B`, '-object'],
        `memory-backend-file,id=ram0,size=${MEMORY_SIZE}B,mem-path=/proc/self/fd/${SupervisorFd.RAM},share=on`,
        ...['-kernel', `/proc/self/fd/${SupervisorFd.FIRMWARE}`],
        ...['-no-user-config', '-nodefaults', '-display', 'none'],
        ...['-chardev', 'stdio,id=pinhole,signal=off', '-mon', 'chardev=pinhole,mode=control'],
        ...devices,
      ],
      firmware: readProgram(),
      memory: MEMORY_SIZE,
      timeoutMs: TIMEOUT_MS,
    });
    this.#process = process;
    this.memory = new LiveMemory(process, MEMORY_SIZE);
    try {
      new Qmp(process).start();
      process.waitFor('the program to start', () => this.memory.readU64Be(MAILBOX + READY) === 1n);
    } catch (error) {
      process.close();
      throw error;
    }
  }

  /** Executes one operation. @throws Error a program interruption. */
  execute(
    op: number,
    registers: readonly [r1: bigint, r2: bigint, r3?: bigint, r4?: bigint],
  ): { readonly condition: number; readonly r2: bigint } {
    registers.forEach((value = 0n, i) => {
      this.#view.setBigUint64(REGISTERS + 8 * i, BigInt.asUintN(64, value));
    });
    this.memory.write(MAILBOX + REGISTERS, this.#mailbox.subarray(REGISTERS, CONDITION));
    this.memory.writeU64Be(MAILBOX + DOORBELL, BigInt(op));
    this.#process.waitFor(`operation ${op}`, () => {
      this.memory.read(MAILBOX, this.#mailbox);
      return this.#view.getBigUint64(DOORBELL) === 0n;
    });
    const condition = Number(this.#view.getBigUint64(CONDITION));
    if (condition > 3) {
      const code = (condition & 0xffff).toString(16);
      throw new Error(`operation ${op}: program interruption 0x${code}`);
    }
    return { condition, r2: this.#view.getBigInt64(RESULT) };
  }

  /** The subchannel of the device with this number, enabled. */
  subchannel(number: number): LiveSubchannel {
    return new LiveSubchannel(this, number);
  }

  close(): void {
    this.#process.quit('{"execute":"quit"}\n', QUIT_MS);
  }
}

/** A subchannel of a real QEMU, for drivers and tests. */
export class LiveSubchannel implements ChannelDevice {
  readonly senseId: { readonly cuType: number; readonly cuModel: number };
  readonly #machine: S390xMachine;
  /** What general register 1 holds: subchannel set 0. */
  readonly #id: bigint;

  constructor(machine: S390xMachine, number: number) {
    this.#machine = machine;
    this.#id = BigInt(0x1_0000 | number);
    const { memory } = machine;
    this.enable(true);
    const end = this.run([{ code: SENSE_ID, address: USER, count: 7, suppressesLength: true }]);
    if (end.deviceStatus !== 0x0c) throw new Error('expected SENSE ID to be answered');
    this.senseId = { cuType: memory.readU16Be(USER + 1), cuModel: memory.readU8(USER + 3) };
  }

  /** MODIFY SUBCHANNEL: off or on. */
  enable(isOn: boolean): void {
    const { memory } = this.#machine;
    this.#do(Op.STSCH, SCHIB);
    const flags = memory.readU16Be(SCHIB + 4) & ~PMCW_FLAGS_ENA;
    memory.writeU16Be(SCHIB + 4, isOn ? flags | PMCW_FLAGS_ENA : flags);
    memory.writeU32Be(SCHIB + 24, memory.readU32Be(SCHIB + 24) | PMCW_CHARS_CSENSE);
    this.#do(Op.MSCH, SCHIB);
  }

  /** The device reset, and the subchannel off and on again: no revision is set. */
  restart(): ProgramEnd {
    const end = this.run([{ code: Ccw.VDEV_RESET, address: 0, count: 0 }]);
    this.enable(false);
    this.enable(true);
    return end;
  }

  /** START SUBCHANNEL with one command, and its end. */
  start(command: ChannelCommand): ChannelStatus {
    const end = this.run([command]);
    return statusOf(end);
  }

  /** A program from its start to its end. */
  run(program: readonly ProgramCommand[]): ProgramEnd {
    const { memory } = this.#machine;
    program.forEach(({ code, address, count, suppressesLength, isChained }, i) => {
      const at = CCWS + 8 * i;
      const flags = (suppressesLength === true ? CCW_FLAG_SLI : 0) | (isChained ? CCW_FLAG_CC : 0);
      memory.writeU8(at, code);
      memory.writeU8(at + 1, flags);
      memory.writeU16Be(at + 2, count);
      memory.writeU32Be(at + 4, address);
    });
    // Interruption parameter; format 1, all paths; the program.
    memory.writeU32Be(ORB, 0);
    memory.writeU32Be(ORB + 4, 0x0080_ff00);
    memory.writeU32Be(ORB + 8, CCWS);
    const registers = [this.#id, BigInt(ORB), BigInt(IRB), BigInt(INTERRUPTION)] as const;
    const { condition } = this.#machine.execute(Op.RUN, registers);
    if (condition !== 1) throw new Error(`START or TEST SUBCHANNEL: condition code ${condition}`);
    return {
      deviceStatus: memory.readU8(IRB + 8),
      subchannelStatus: memory.readU8(IRB + 9),
      residual: memory.readU16Be(IRB + 10),
      commands: (memory.readU32Be(IRB + 4) - CCWS) / 8,
      sense: memory.readU8(IRB + 32),
    };
  }

  /** DIAGNOSE 0x500. */
  notify(data: number, cookie: number): number {
    const registers = [VIRTIO_CCW_NOTIFY, this.#id, BigInt(data), BigInt(cookie)] as const;
    return Number(this.#machine.execute(Op.DIAG_500, registers).r2);
  }

  /** @throws Error where the condition code is not 0. */
  #do(op: number, address: number): void {
    const { condition } = this.#machine.execute(op, [this.#id, BigInt(address)]);
    if (condition !== 0) throw new Error(`operation ${op}: condition code ${condition}`);
  }
}

/** The end of a program of one command, as the model has it. @throws Error an end that it has not. */
export function statusOf(end: ProgramEnd): ChannelStatus {
  const { deviceStatus, subchannelStatus, residual, sense } = end;
  const key = `${deviceStatus.toString(16)} ${subchannelStatus.toString(16)}`;
  // Channel end and device end.
  if (key === 'c 0') return { ok: true, residual };
  if ((deviceStatus & 2) !== 0 && sense === 0x80) return { ok: false, reason: 'command-reject' };
  if (subchannelStatus === 0x20) return { ok: false, reason: 'program-check' };
  throw new Error(`device and subchannel status ${key}, sense ${sense}`);
}

/** Lines `address: words`, of what is not zero. */
function readProgram(): Uint8Array {
  const lines = readFileSync(VECTOR, 'utf8').trim().split('\n');
  const image = new Uint8Array(MAILBOX);
  for (const line of lines) {
    const [at, words] = line.split(': ') as [string, string];
    image.set(Buffer.from(words.replaceAll(' ', ''), 'hex'), Number.parseInt(at, 16));
  }
  return image.slice(0, image.findLastIndex((byte) => byte !== 0) + 1);
}
