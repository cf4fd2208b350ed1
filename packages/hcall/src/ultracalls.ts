import { NO_TRACE, type Tracer } from '@pinhole/base';
import type { GuestMemory, PageOwnership } from '@pinhole/memory';
import {
  U_FUNCTION,
  U_P2,
  U_PARAMETER,
  U_SUCCESS,
  ULTRACALL_NAMES,
  UV_SHARE_PAGE,
  UV_UNSHARE_ALL_PAGES,
  UV_UNSHARE_PAGE,
} from './params.js';
import type { HcallResult, Ultracalls } from './types.js';

/** Options of {@link createUltravisor}. */
export interface UltravisorOptions {
  readonly memory: GuestMemory;
  readonly ownership: PageOwnership;
  readonly tracer?: Tracer;
}

/** The ultravisor's side of `sc 2`, and how often it was called. */
export interface Ultravisor extends Ultracalls {
  /** Calls by opcode, whatever came of them; -1: those that it does not know. */
  readonly counts: ReadonlyMap<number, number>;
}

/**
 * The ultravisor, for the calls with which a secure guest shares pages. Sharing and unsharing zero
 * the pages. [linux v6.1 Documentation/powerpc/ultravisor.rst UV_SHARE_PAGE, UV_UNSHARE_PAGE]
 */
export function createUltravisor(options: UltravisorOptions): Ultravisor {
  const counts = new Map<number, number>();
  const { memory, ownership } = options;
  const tracer = options.tracer ?? NO_TRACE;
  const { pageSize } = ownership;

  function change(args: readonly bigint[], share: boolean): number {
    const gfn = args[0] ?? 0n;
    const count = args[1] ?? 0n;
    const limit = BigInt(Math.floor(Number.MAX_SAFE_INTEGER / pageSize));
    if (gfn >= limit) return U_PARAMETER;
    if (count === 0n || count > limit - gfn) return U_P2;
    const gpa = Number(gfn) * pageSize;
    const length = Number(count) * pageSize;
    if (!memory.isBacked(gpa, 1)) return U_PARAMETER;
    if (!memory.isBacked(gpa, length)) return U_P2;
    if (share) ownership.share(gpa, length);
    else ownership.unshare(gpa, length);
    memory.fill(gpa, length, 0);
    if (tracer.on) {
      tracer.event('hypervisor', share ? 'uv_share_page' : 'uv_unshare_page', { gfn, count });
    }
    return U_SUCCESS;
  }

  function call(opcode: number, args: readonly bigint[]): HcallResult {
    let ret: number = U_FUNCTION;
    const counted = ULTRACALL_NAMES.has(opcode) ? opcode : -1;
    counts.set(counted, (counts.get(counted) ?? 0) + 1);
    if (opcode === UV_SHARE_PAGE) ret = change(args, true);
    else if (opcode === UV_UNSHARE_PAGE) ret = change(args, false);
    else if (opcode === UV_UNSHARE_ALL_PAGES) {
      for (const { gpa, length } of ownership.sharedRuns()) {
        ownership.unshare(gpa, length);
        memory.fill(gpa, length, 0);
      }
      ret = U_SUCCESS;
    }
    return { ret, out: [] };
  }
  return { call, counts };
}
