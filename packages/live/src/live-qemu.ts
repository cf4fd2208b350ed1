import { endianness, platform } from 'node:os';
import { hex } from '@pinhole/base';
import {
  H_GET_TCE,
  H_SUCCESS,
  type HcallResult,
  type Hypercalls,
  KVMPPC_H_RTAS,
  type Rtas,
  type RtasReturns,
} from '@pinhole/hcall';
import type { GuestMemory } from '@pinhole/memory';
import { spaprPhbBuid } from '@pinhole/tce';
import type { PciFunction } from '@pinhole/virtio';
import { LiveError } from './errors.js';
import { checkVersion, explainRefusal, findQemu } from './find-qemu.js';
import { mailboxFirmware } from './firmware.js';
import { RTAS_BUFFER } from './layout.js';
import { LiveMemory } from './live-memory.js';
import { type HcallBatches, Mailbox } from './mailbox.js';
import { commandLine, type LiveQemuOptions } from './options.js';
import { DEFAULT_MEMORY, DEFAULT_TIMEOUT_MS, H_LOGICAL_CI_LOAD, QUIT_MS } from './params.js';
import { LivePciFunction, type PciAddress, PciWindow } from './pci.js';
import { QemuProcess } from './qemu-process.js';
import { Qmp } from './qmp.js';
import { RtasBuffer } from './rtas-buffer.js';
import { SupervisorFd } from './supervisor.js';

/** Calls that leave something in r4 for the caller when they succeed. */
const WITH_R4 = new Set([H_GET_TCE, H_LOGICAL_CI_LOAD]);
/** The first word of a flattened device tree, and where its size is. [Devicetree v0.4 §5.2] */
const FDT_MAGIC = 0xd00d_feed;
const FDT_TOTALSIZE = 4;

/**
 * A real QEMU pseries machine behind the model's ports, synchronous. It runs firmware of ours that
 * makes the hypercalls it finds in a mailbox in guest memory. Guest memory outside of
 * `RESERVED_MEMORY` is the caller's.
 *
 * The virtual CPU never rests: an open machine costs a processor. QEMU ends with this process,
 * however that ends.
 *
 * Every method throws LiveError: `E_QEMU_EXITED` once QEMU is dead, `E_QEMU_HANG` when it does not
 * answer within `timeoutMs` (it is killed then), `E_CLOSED` after `close`.
 */
export class LiveQemu implements Hypercalls, Rtas {
  /** Of the running QEMU: `7.2.22`. */
  readonly version: string;
  /** QEMU's process id, for debuggers and profilers. */
  readonly pid: number;
  readonly memory: GuestMemory;
  readonly #process: QemuProcess;
  readonly #qmp: Qmp;
  readonly #mailbox: Mailbox;
  readonly #rtas: RtasBuffer;
  readonly #windows = new Map<bigint, PciWindow>();
  readonly #functions = new Map<string, LivePciFunction>();

  /**
   * Starts QEMU. The machine is ready for calls when this returns.
   * @throws LiveError `E_HOST`, `E_QEMU_MISSING`, `E_QEMU_NOT_PPC`, `E_QEMU_VERSION`,
   * `E_QEMU_EXITED` (the options are not to QEMU's liking, in its words), `E_QEMU_HANG`,
   * `E_LIVE_USAGE`.
   */
  static start(options: LiveQemuOptions = {}): LiveQemu {
    checkHost();
    const memory = options.memory ?? DEFAULT_MEMORY;
    const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    checkPositive('memory, in bytes', memory);
    checkPositive('timeoutMs', timeoutMs);
    const qemu = findQemu(options.qemu ?? 'qemu-system-ppc64');
    const process = new QemuProcess({
      qemu,
      args: commandLine(
        { ...options, memory },
        { ram: inherited(SupervisorFd.RAM), firmware: inherited(SupervisorFd.FIRMWARE) },
      ),
      firmware: mailboxFirmware(),
      memory,
      timeoutMs,
    });
    try {
      return new LiveQemu(process, qemu, memory);
    } catch (error) {
      process.close();
      if ((error as LiveError).code === 'E_QEMU_EXITED') explainRefusal(qemu);
      throw error;
    }
  }

  private constructor(process: QemuProcess, qemu: string, memory: number) {
    this.#process = process;
    this.#qmp = new Qmp(process);
    const version = this.#qmp.start();
    checkVersion(qemu, version);
    this.version = version.join('.');
    this.memory = new LiveMemory(process, memory);
    this.#mailbox = new Mailbox(process, this.memory);
    this.#rtas = new RtasBuffer(this.memory);
    this.#mailbox.waitForStart();
    this.pid = process.pid;
  }

  /** Hypercalls in bulk, while the caller does something else. */
  get batches(): HcallBatches {
    return this.#mailbox;
  }

  /**
   * One hypercall, with up to seven arguments.
   *
   * `out` has r4 after a successful H_GET_TCE or H_LOGICAL_CI_LOAD and is empty otherwise; all
   * registers are in `batches`.
   * @throws LiveError `E_GUEST_RESET`, `E_LIVE_USAGE` (too many arguments, a batch at work).
   */
  call(opcode: number, args: readonly bigint[]): HcallResult {
    const [r3 = 0n, r4 = 0n] = this.#mailbox.call(BigInt(opcode), args);
    const ret = Number(BigInt.asIntN(64, r3));
    return { ret, out: ret === H_SUCCESS && WITH_R4.has(opcode) ? [r4] : [] };
  }

  /**
   * One RTAS call. QEMU writes some of the cells, or none, as the call has it: what comes back are
   * those up to the last one that it changed.
   * @throws LiveError as `call` does; `E_LIVE_USAGE` for more than 61 arguments and answers.
   */
  rtas(token: number, args: readonly number[], nret: number): RtasReturns {
    this.#rtas.write(token, args, nret);
    this.#mailbox.call(BigInt(KVMPPC_H_RTAS), [BigInt(RTAS_BUFFER)]);
    return this.#rtas.returns(args.length, nret);
  }

  /**
   * A PCI function, present or not. Its BARs are placed at the first use of one. Bus
   * mastering is the driver's to enable.
   */
  pciFunction({
    phb = spaprPhbBuid(0),
    bus = 0,
    device,
    function: fn = 0,
  }: PciAddress): PciFunction {
    const key = `${hex(phb)} ${bus} ${device} ${fn}`;
    const known = this.#functions.get(key);
    if (known !== undefined) return known;
    const window = this.#windows.get(phb) ?? new PciWindow(phb);
    this.#windows.set(phb, window);
    const host = {
      call: this.call.bind(this),
      rtas: this.rtas.bind(this),
      mailbox: this.#mailbox,
      get starts(): number {
        return this.mailbox.starts;
      },
    };
    const address = { phb, bus, device, function: fn };
    const made = new LivePciFunction(host, window, phb, address);
    this.#functions.set(key, made);
    return made;
  }

  /**
   * Resets the machine, as its reset button would: devices and windows are as they were at the
   * start, memory keeps its contents. A batch that was not collected is lost.
   */
  reset(): void {
    this.#mailbox.drain();
    this.#qmp.execute('system_reset');
    this.#mailbox.waitForStart();
  }

  /**
   * The flattened device tree as QEMU gave it to the firmware, from guest memory: where the caller
   * has overwritten it, it is gone until the next reset.
   * @throws LiveError `E_DEVICE_TREE` when there is none.
   */
  deviceTree(): Uint8Array {
    const at = this.#mailbox.deviceTreeAddress();
    const isThere = this.memory.isBacked(at, 8) && this.memory.readU32Be(at) === FDT_MAGIC;
    const size = isThere ? this.memory.readU32Be(at + FDT_TOTALSIZE) : 0;
    if (!isThere || !this.memory.isBacked(at, size)) {
      throw new LiveError('E_DEVICE_TREE', `expected the device tree at ${hex(at)}, found none`, {
        details: { address: at },
      });
    }
    const tree = new Uint8Array(size);
    this.memory.read(at, tree);
    return tree;
  }

  /**
   * Carries out a QMP command and returns its answer. [qemu v7.2 docs/interop/qmp-spec.txt]
   * @throws LiveError `E_QMP` when QEMU refuses it.
   */
  qmp(command: string, args?: Readonly<Record<string, unknown>>): unknown {
    return this.#qmp.execute(command, args);
  }

  /** Ends QEMU: by its own `quit`, so that disks are in order, or by force. Idempotent. */
  close(): void {
    this.#process.quit('{"execute":"quit"}\n', QUIT_MS);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

const inherited = (fd: number): string => `/proc/self/fd/${fd}`;

/** Inherited descriptors by name need Linux; records are shared with the guest as this CPU has them. */
function checkHost(): void {
  if (platform() === 'linux' && endianness() === 'LE') return;
  throw new LiveError(
    'E_HOST',
    `expected Linux on a little-endian processor, found ${platform()}, ${endianness()}`,
  );
}

function checkPositive(what: string, value: number): void {
  if (Number.isSafeInteger(value) && value > 0) return;
  throw new LiveError('E_LIVE_USAGE', `expected ${what}, to be a positive integer, found ${value}`);
}
