export { findKernelProfile, KERNEL_PROFILES, kernelProfileForRelease } from './find.js';
export type {
  AllocatorProfile,
  DdwProfile,
  DispatchRule,
  KernelProfile,
  MapErrorRule,
  RestrictedAccessRule,
  SwiotlbProfile,
  TceProfile,
  TraceProfile,
  VringRule,
} from './types.js';
