/**
 * The four TCE hypercalls as KVM's in-kernel handlers do them. `undefined` is H_TOO_HARD: the kernel
 * declines, and QEMU's handler answers. No notifier hears of what the kernel stores: QEMU is not
 * there. No hardware table (VFIO) is attached. [linux v6.1.192 arch/powerpc/kvm/book3s_64_vio.c]
 */
import { hi32, isSafeHi, joinNumber, lo32 } from '@pinhole/base';
import type { GuestMemory } from '@pinhole/memory';
import { TCE_READ, TCE_WRITE, type TceTable } from '@pinhole/tce';
import { H_SUCCESS, TCE_LIST_ALIGN, TCE_LIST_MAX } from './params.js';
import { findTable, PARAMETER, SUCCESS, type TceHcallContext } from './tce-hcalls.js';
import type { HcallResult } from './types.js';

/** Page sizes that the kernel makes tables for. [linux v6.1.192 kvm_vm_ioctl_create_spapr_tce] */
const KVM_PAGE_SHIFT_MIN = 12;
const KVM_PAGE_SHIFT_MAX = 34;
/** Bytes of the host's pages: frames of guest memory are that large to KVM. */
const HOST_PAGE_SIZE = 0x1_0000;
const PERM = TCE_READ | TCE_WRITE;

/** What the kernel answers; `undefined`: it leaves the call to QEMU (H_TOO_HARD). */
export type KvmAnswer = HcallResult | undefined;

/** [linux v6.1.192 kvmppc_h_put_tce] */
export function kvmHPutTce(context: TceHcallContext, args: readonly bigint[]): KvmAnswer {
  const table = findKernelTable(context, args);
  if (table === undefined) return undefined;
  const first = validate(table, args[1] ?? 0n, 1n);
  if (first < 0) return PARAMETER;
  const [hi, lo] = [hi32(args[2] ?? 0n), lo32(args[2] ?? 0n)];
  if (!isGoodTce(context.memory, table, hi, lo)) return undefined;
  table.storeHalves(first, hi, lo);
  return SUCCESS;
}

/** [linux v6.1.192 kvmppc_h_get_tce] */
export function kvmHGetTce(context: TceHcallContext, args: readonly bigint[]): KvmAnswer {
  const table = findKernelTable(context, args);
  if (table === undefined) return undefined;
  const first = validate(table, args[1] ?? 0n, 1n);
  return first < 0 ? PARAMETER : { ret: H_SUCCESS, out: [table.get(first)] };
}

/** [linux v6.1.192 kvmppc_h_stuff_tce] */
export function kvmHStuffTce(context: TceHcallContext, args: readonly bigint[]): KvmAnswer {
  const table = findKernelTable(context, args);
  if (table === undefined) return undefined;
  const npages = BigInt.asUintN(64, args[3] ?? 0n);
  const first = validate(table, args[1] ?? 0n, npages);
  if (first < 0) return PARAMETER;
  const [hi, lo] = [hi32(args[2] ?? 0n), lo32(args[2] ?? 0n)];
  // Anything that grants nothing may be stuffed, to poison a table.
  if ((lo & PERM) !== 0) return PARAMETER;
  table.fillSilently(first, Number(npages), hi, lo);
  return SUCCESS;
}

/** [linux v6.1.192 kvmppc_h_put_tce_indirect] */
export function kvmHPutTceIndirect(context: TceHcallContext, args: readonly bigint[]): KvmAnswer {
  const table = findKernelTable(context, args);
  if (table === undefined) return undefined;
  const npages = BigInt.asUintN(64, args[3] ?? 0n);
  const address = args[2] ?? 0n;
  if (npages > BigInt(TCE_LIST_MAX) || lo32(address) % TCE_LIST_ALIGN !== 0) return PARAMETER;
  const first = validate(table, args[1] ?? 0n, npages);
  if (first < 0) return PARAMETER;
  const { memory, list } = context;
  if (!isInMemslot(memory, hi32(address), lo32(address))) return undefined;
  const count = Number(npages);
  list.read(hi32(address), lo32(address), count);
  for (let i = 0; i < count; i += 1) {
    if (!isGoodTce(memory, table, list.hi(i), list.lo(i))) return undefined;
  }
  for (let i = 0; i < count; i += 1) {
    // The second pass wants a frame of every entry, of one that grants nothing, too. What was
    // stored before it stays.
    if (!isInMemslot(memory, list.hi(i), list.lo(i))) return PARAMETER;
    table.storeHalves(first + i, list.hi(i), list.lo(i));
  }
  return SUCCESS;
}

/**
 * The table, if the kernel has it: QEMU asks for one for each window that is opened, and keeps its
 * own where the kernel refuses, and where somebody listens on a host without KVM_CAP_SPAPR_TCE_VFIO.
 * [qemu v7.2 target/ppc/kvm.c kvmppc_create_spapr_tce] [qemu v7.2 hw/ppc/spapr_iommu.c
 * spapr_tce_set_need_vfio]
 *
 * Deviates: where the last listener goes QEMU's own table stays until the window closes.
 */
function findKernelTable(context: TceHcallContext, args: readonly bigint[]): TceTable | undefined {
  const table = findTable(context, args);
  if (table === undefined || !table.isEnabled) return undefined;
  if (!context.kvmTceVfio && table.hasNotifiers) return undefined;
  const { pageShift, busOffset, nbTable } = table;
  if (pageShift < KVM_PAGE_SHIFT_MIN || pageShift > KVM_PAGE_SHIFT_MAX) return undefined;
  const shift = BigInt(pageShift);
  const end = (busOffset >> shift) + BigInt(nbTable);
  return end > (2n ** 64n - 1n) >> shift ? undefined : table;
}

/**
 * The first entry of a range that lies in the window as a whole and begins with a page, or -1.
 * An empty range may begin where the window ends. (Kernels before the check had `npages` in it
 * looked at the first page alone and wrote past their table.)
 * [linux v6.1.192 arch/powerpc/kernel/iommu.c iommu_tce_check_ioba]
 */
function validate(table: TceTable, ioba: bigint, npages: bigint): number {
  const shift = BigInt(table.pageShift);
  const address = BigInt.asUintN(64, ioba);
  const page = address >> shift;
  // The kernel's table begins at a whole page, wherever QEMU's window does.
  const offset = table.busOffset >> shift;
  if (page << shift !== address || page < offset) return -1;
  const first = page - offset;
  return first + npages > BigInt(table.nbTable) ? -1 : Number(first);
}

/** [linux v6.1.192 kvmppc_tce_validate] */
function isGoodTce(memory: GuestMemory, table: TceTable, hi: number, lo: number): boolean {
  if ((lo & PERM) === 0) return true;
  const address = (BigInt(hi) << 32n) | BigInt((lo & ~PERM) >>> 0);
  if (address % BigInt(table.pageSize) !== 0n) return false;
  return isInMemslot(memory, hi, lo);
}

/**
 * Whether a frame belongs to a memory slot: QEMU makes those of whole pages of the host.
 * [linux v6.1.192 kvmppc_tce_to_ua, qemu v7.2 accel/kvm/kvm-all.c kvm_align_section]
 */
function isInMemslot(memory: GuestMemory, hi: number, lo: number): boolean {
  if (!isSafeHi(hi)) return false;
  const gpa = joinNumber(hi, lo);
  return memory.isBacked(gpa - (gpa % HOST_PAGE_SIZE), HOST_PAGE_SIZE);
}
