export type { RtasCallName } from './params.js';
export {
  H_FUNCTION,
  H_GET_TCE,
  H_NOT_ENOUGH_RESOURCES,
  H_PARAMETER,
  H_PUT_TCE,
  H_PUT_TCE_INDIRECT,
  H_STUFF_TCE,
  H_SUCCESS,
  HCALL_NAMES,
  KVMPPC_H_RTAS,
  RTAS_DDW_PAGE_SIZES,
  RTAS_OUT_HW_ERROR,
  RTAS_OUT_PARAM_ERROR,
  RTAS_OUT_SUCCESS,
  RTAS_TOKENS,
  TCE_LIST_ALIGN,
  TCE_LIST_MAX,
  U_FUNCTION,
  U_P2,
  U_PARAMETER,
  U_SUCCESS,
  ULTRACALL_NAMES,
  UV_SHARE_PAGE,
  UV_UNSHARE_ALL_PAGES,
  UV_UNSHARE_PAGE,
} from './params.js';
export type { QemuProfile } from './qemu-profiles.js';
export { QEMU_PROFILES, qemuProfile } from './qemu-profiles.js';
export type { SpaprHypercallsOptions, TceHandler } from './spapr-hcalls.js';
export { createSpaprHypercalls, SpaprHypercalls } from './spapr-hcalls.js';
export type {
  SavedMachine,
  SpaprMachineOptions,
  SpaprPhbConfig,
  SpaprVioConfig,
} from './spapr-machine.js';
export { SpaprMachine } from './spapr-machine.js';
export type { HcallResult, Hypercalls, Rtas, RtasReturns, Ultracalls } from './types.js';
export type { Ultravisor, UltravisorOptions } from './ultracalls.js';
export { createUltravisor } from './ultracalls.js';
