import { hex, hi32, isSafeHi, joinNumber, lo32, NO_TRACE, type Tracer } from '@pinhole/base';
import type { GuestMemory } from '@pinhole/memory';
import type { SpaprIommu } from '@pinhole/tce';
import { kvmHGetTce, kvmHPutTce, kvmHPutTceIndirect, kvmHStuffTce } from './kvm-tce-hcalls.js';
import {
  H_FUNCTION,
  H_GET_TCE,
  H_PARAMETER,
  H_PUT_TCE,
  H_PUT_TCE_INDIRECT,
  H_STUFF_TCE,
  H_SUCCESS,
  HCALL_NAMES,
  KVMPPC_H_RTAS,
  RTAS_OUT_PARAM_ERROR,
  RTAS_TOKENS,
} from './params.js';
import {
  type RtasArguments,
  rtasCreatePeDmaWindow,
  rtasQueryPeDmaWindow,
  rtasRemovePeDmaWindow,
  rtasResetPeDmaWindow,
  rtasSetTceBypass,
} from './rtas-ddw.js';
import {
  createTceHcallContext,
  hGetTce,
  hPutTce,
  hPutTceIndirect,
  hStuffTce,
  type TceHcallContext,
} from './tce-hcalls.js';
import type { HcallResult, Hypercalls, Rtas, RtasReturns } from './types.js';

/** Options of {@link createSpaprHypercalls}. */
export interface SpaprHypercallsOptions {
  readonly iommu: SpaprIommu;
  /** Guest memory as the hypervisor sees it. */
  readonly memory: GuestMemory;
  /**
   * Who answers the TCE hypercalls: QEMU's user-space handlers (as under TCG), or KVM's in the host's
   * kernel, which leave to QEMU what is too hard for them. Default: `qemu`.
   */
  readonly tceHandler?: TceHandler;
  /**
   * With KVM's handlers: whether the host has KVM_CAP_SPAPR_TCE_VFIO. Then a table stays in the kernel
   * when somebody asks for notifications, who hears of nothing; without, QEMU makes the table anew in
   * its own memory, and all calls for it come to QEMU. Default: true.
   * [qemu v7.2 hw/ppc/spapr_iommu.c spapr_tce_set_need_vfio]
   */
  readonly kvmTceVfio?: boolean;
  readonly tracer?: Tracer;
}

/** See {@link SpaprHypercallsOptions}. */
export type TceHandler = 'qemu' | 'kvm';

const HANDLERS = new Map([
  [H_GET_TCE, hGetTce],
  [H_PUT_TCE, hPutTce],
  [H_STUFF_TCE, hStuffTce],
  [H_PUT_TCE_INDIRECT, hPutTceIndirect],
]);

const KVM_HANDLERS = new Map([
  [H_GET_TCE, kvmHGetTce],
  [H_PUT_TCE, kvmHPutTce],
  [H_STUFF_TCE, kvmHStuffTce],
  [H_PUT_TCE_INDIRECT, kvmHPutTceIndirect],
]);

const RTAS_HANDLERS = new Map<number, typeof rtasQueryPeDmaWindow>([
  [RTAS_TOKENS['ibm,set-tce-bypass'], rtasSetTceBypass],
  [RTAS_TOKENS['ibm,query-pe-dma-window'], rtasQueryPeDmaWindow],
  [RTAS_TOKENS['ibm,create-pe-dma-window'], rtasCreatePeDmaWindow],
  [RTAS_TOKENS['ibm,remove-pe-dma-window'], rtasRemovePeDmaWindow],
  [RTAS_TOKENS['ibm,reset-pe-dma-window'], rtasResetPeDmaWindow],
]);

/** The pseries hypervisor as QEMU implements it, for the calls that DMA needs. */
export class SpaprHypercalls implements Hypercalls, Rtas {
  /** How often each opcode was called; those that do not exist count together, as -1. */
  readonly counts: Map<number, number> = new Map();
  readonly #iommu: SpaprIommu;
  readonly #memory: GuestMemory;
  readonly #tracer: Tracer;
  readonly #isKvm: boolean;
  readonly #context: TceHcallContext;

  constructor(options: SpaprHypercallsOptions) {
    this.#iommu = options.iommu;
    this.#memory = options.memory;
    this.#tracer = options.tracer ?? NO_TRACE;
    this.#isKvm = options.tceHandler === 'kvm';
    this.#context = createTceHcallContext({
      iommu: this.#iommu,
      memory: this.#memory,
      tracer: this.#tracer,
      kvmTceVfio: options.kvmTceVfio ?? true,
    });
  }

  /** One hypercall. An unknown opcode answers H_FUNCTION. */
  call(opcode: number, args: readonly bigint[]): HcallResult {
    const counted = HCALL_NAMES.has(opcode) ? opcode : -1;
    this.counts.set(counted, (this.counts.get(counted) ?? 0) + 1);
    if (!this.#tracer.on) return this.#dispatch(opcode, args);
    const name = HCALL_NAMES.get(opcode) ?? hex(opcode);
    this.#tracer.begin('hypervisor', 'hcall', { name });
    const result = this.#dispatch(opcode, args);
    this.#tracer.end('hypervisor', 'hcall', { ret: result.ret });
    return result;
  }

  /**
   * One RTAS call by token, without the argument buffer in guest memory.
   * @returns the cells written; an unknown token writes only a parameter error.
   */
  rtas(token: number, args: readonly number[], nret: number): RtasReturns {
    return this.#rtas(token, {
      nargs: args.length,
      nret,
      arg: (index) => (args[index] ?? 0) >>> 0,
    });
  }

  #dispatch(opcode: number, args: readonly bigint[]): HcallResult {
    if (opcode === KVMPPC_H_RTAS) return this.#hRtas(args[0] ?? 0n);
    const handler = HANDLERS.get(opcode);
    if (handler === undefined) return { ret: H_FUNCTION, out: [] };
    if (this.#isKvm) {
      const answer = KVM_HANDLERS.get(opcode)?.(this.#context, args);
      if (answer !== undefined) return answer;
    }
    return handler(this.#context, args);
  }

  #rtas(token: number, call: RtasArguments): RtasReturns {
    const handler = RTAS_HANDLERS.get(token);
    if (handler === undefined) return [RTAS_OUT_PARAM_ERROR];
    return handler({ iommu: this.#iommu, tracer: this.#tracer }, call);
  }

  // The buffer: token, nargs, nret, arguments, returns; big-endian 32-bit cells.
  // [qemu v7.2 hw/ppc/spapr_hcall.c h_rtas]
  #hRtas(buffer: bigint): HcallResult {
    const token = this.#cell(buffer, 0);
    const nargs = this.#cell(buffer, 1);
    const nret = this.#cell(buffer, 2);
    const returns = this.#rtas(token, {
      nargs,
      nret,
      arg: (index) => this.#cell(buffer, 3 + index),
    });
    // QEMU computes the size of the arguments in 32 bits.
    const rets = buffer + 12n + BigInt((nargs * 4) >>> 0);
    returns.forEach((value, index) => {
      const gpa = this.#cellAddress(rets, index);
      if (gpa !== undefined) this.#memory.writeU32Be(gpa, value >>> 0);
    });
    return { ret: RTAS_HANDLERS.has(token) ? H_SUCCESS : H_PARAMETER, out: [] };
  }

  #cell(buffer: bigint, index: number): number {
    const gpa = this.#cellAddress(buffer, index);
    return gpa === undefined ? 0 : this.#memory.readU32Be(gpa);
  }

  // Where cell `index` lies, or undefined when that is no memory: it then reads as 0.
  #cellAddress(buffer: bigint, index: number): number | undefined {
    // The top four bits of a real address are not part of it. [qemu v7.2 include/hw/ppc/spapr.h ppc64_phys_to_real]
    const address = (buffer + BigInt(index) * 4n) & 0x0fff_ffff_ffff_ffffn;
    const hi = hi32(address);
    if (!isSafeHi(hi)) return undefined;
    const gpa = joinNumber(hi, lo32(address));
    return this.#memory.isBacked(gpa, 4) ? gpa : undefined;
  }
}

/** Makes the hypervisor side of a pseries machine. */
export function createSpaprHypercalls(options: SpaprHypercallsOptions): SpaprHypercalls {
  return new SpaprHypercalls(options);
}
