/** What a replay has to say about a run: codes that stay, severity, evidence, what to do. */
import type { ExhaustionForecast } from './forecast.js';
import type { Evidence } from './tce-ledger.js';

/** How bad a finding is: with an error the command exits with 1. */
export type Severity = 'error' | 'warning' | 'info';

/** What a code stands for. */
interface FindingKind {
  readonly severity: Severity;
  readonly title: string;
  /** What to do. */
  readonly remedy: string;
}

/** The codes are part of the contract. */
export type FindingCode =
  | 'E_TCE_LEAK'
  | 'E_IOMMU_LEAK'
  | 'E_STALE_ACCESS'
  | 'E_ACCESS_OUTSIDE'
  | 'E_DMA_FAULT'
  | 'E_DOUBLE_MAP'
  | 'E_TCE_WIDER'
  | 'E_HCALL_FAILED'
  | 'E_WINDOW_EXHAUSTED'
  | 'E_WINDOW_FRAGMENTED'
  | 'E_SWIOTLB_FULL'
  | 'W_WINDOW_NEARLY_FULL'
  | 'W_SWIOTLB_NEARLY_FULL'
  | 'W_DDW_LOST'
  | 'W_GUEST_FAILED_MAPS'
  | 'W_REQUEST_FAILED'
  | 'I_FIRMWARE_MAPPINGS'
  | 'I_ALL_MEMORY_MAPPED'
  | 'I_NO_IOMMU'
  | 'I_BOUNCED'
  | 'I_DEFERRED_INVALIDATION';

/** Every finding there is. */
export const FINDINGS: Readonly<Record<FindingCode, FindingKind>> = {
  E_TCE_LEAK: {
    severity: 'error',
    title: 'mappings that the driver gave up stay in the window',
    remedy:
      'Give the guest a second window (QEMU before 10: -m SIZE,maxmem=LARGER), or use a kernel that unmaps; until then the window fills up and I/O ends.',
  },
  E_IOMMU_LEAK: {
    severity: 'error',
    title: 'mappings that the driver gave up are still mapped by the IOMMU',
    remedy:
      'The device can reach memory that belongs to somebody else by now: look at the IOMMU driver, or for an unmap of another size than the map.',
  },
  E_STALE_ACCESS: {
    severity: 'error',
    title: 'a device used a mapping after its driver gave it up',
    remedy:
      'The memory belongs to somebody else by then: look for the leak, or for a device that is not quiet.',
  },
  E_ACCESS_OUTSIDE: {
    severity: 'error',
    title: 'a device accessed bytes of a mapped page that are outside of the buffer',
    remedy:
      'An IOMMU protects pages, not bytes: nothing stopped it. Look for a wrong address or length in the device or in the descriptor.',
  },
  E_DMA_FAULT: {
    severity: 'error',
    title: 'a translation was denied: nothing maps the address',
    remedy:
      'QEMU logs no fault: one small buffer is dropped in silence and the request succeeds (reads of it give zeros, writes are lost); two at a time, or more than a page, break the device (NEEDS_RESET, no completion). Look for an unmap that came too early.',
  },
  E_DOUBLE_MAP: {
    severity: 'error',
    title: 'an entry was mapped again while it was in use',
    remedy:
      'The first mapping is gone without an unmap, and vhost may still use it: look for an allocator that is out of step.',
  },
  E_TCE_WIDER: {
    severity: 'error',
    title: 'a buffer that only goes to the device was left writable',
    remedy:
      'The device can change what it should only read: the kernel has to leave the write bit out.',
  },
  E_HCALL_FAILED: {
    severity: 'error',
    title: 'a TCE hypercall failed, and the guest went on',
    remedy:
      'Linux takes every error but H_NOT_ENOUGH_RESOURCES for success: the mapping is not there. Compare the LIOBN and the address with the windows.',
  },
  E_WINDOW_EXHAUSTED: {
    severity: 'error',
    title: 'the window has no room: mappings fail',
    remedy:
      'A larger default window (-global spapr-pci-host-bridge.dma_win_size=...), or a second window.',
  },
  E_WINDOW_FRAGMENTED: {
    severity: 'error',
    title: 'mappings fail although enough entries are free: the free ones do not lie together',
    remedy:
      'The request is repeated for ever (livelock): a larger default window (-global spapr-pci-host-bridge.dma_win_size=...), a second window, or smaller requests (max_sectors_kb).',
  },
  E_SWIOTLB_FULL: {
    severity: 'error',
    title: 'the pool of bounce buffers has no room: mappings fail',
    remedy:
      "A larger pool (swiotlb=SLOTS on the guest kernel's command line), or fewer requests in flight.",
  },
  W_WINDOW_NEARLY_FULL: {
    severity: 'warning',
    title: 'the window is nearly full',
    remedy:
      'A larger default window (-global spapr-pci-host-bridge.dma_win_size=...), or a second window.',
  },
  W_SWIOTLB_NEARLY_FULL: {
    severity: 'warning',
    title: 'the pool of bounce buffers is nearly full',
    remedy: "A larger pool (swiotlb=SLOTS on the guest kernel's command line).",
  },
  W_DDW_LOST: {
    severity: 'warning',
    title: 'the guest asked for a second window and did not get it',
    remedy:
      'QEMU before 10 says that memory can never grow (ibm,lrdr-capacity is 0) unless -m has maxmem: use -m SIZE,slots=N,maxmem=LARGER.',
  },
  W_GUEST_FAILED_MAPS: {
    severity: 'warning',
    title: "the guest's log says that mappings failed",
    remedy: 'See how full the window is; the trace itself has none of these, or is not given.',
  },
  W_REQUEST_FAILED: {
    severity: 'warning',
    title: 'a device answered a request with an error',
    remedy: "See the guest's log for what failed; a backend's error is in QEMU's own messages.",
  },
  I_FIRMWARE_MAPPINGS: {
    severity: 'info',
    title: 'firmware left entries mapped; the kernel cleared them',
    remedy: "Nothing to do: until then the firmware's devices could still write there.",
  },
  I_ALL_MEMORY_MAPPED: {
    severity: 'info',
    title: 'the second window maps all memory, for reading and writing',
    remedy:
      'Nothing to do: the price of no hypercall per I/O is that devices can reach everything.',
  },
  I_NO_IOMMU: {
    severity: 'info',
    title: 'no IOMMU stands between the device and memory',
    remedy: 'Nothing to do: the device can reach everything that the hypervisor can.',
  },
  I_BOUNCED: {
    severity: 'info',
    title: 'buffers were copied to bounce buffers, and back',
    remedy: 'Nothing to do: the price of memory that the device cannot reach, or must not.',
  },
  I_DEFERRED_INVALIDATION: {
    severity: 'info',
    title: 'what is unmapped stays within reach of the device until the next invalidation',
    remedy:
      "iommu.strict=1 on the guest kernel's command line invalidates at each unmapping, which costs an exit each time.",
  },
};

/** One finding about a run. */
export interface Finding {
  readonly code: FindingCode;
  readonly severity: Severity;
  readonly count: number;
  /** One sentence for people. */
  readonly summary: string;
  readonly evidence: { readonly first: Evidence | undefined; readonly [more: string]: unknown };
  readonly forecast?: ExhaustionForecast;
  readonly remedy: string;
}

/** Puts a finding together. */
export function finding(
  code: FindingCode,
  count: number,
  detail: string,
  first: Evidence | undefined,
  more: {
    readonly forecast?: ExhaustionForecast;
    readonly evidence?: Readonly<Record<string, unknown>>;
  } = {},
): Finding {
  const { severity, title, remedy } = FINDINGS[code];
  return {
    code,
    severity,
    count,
    summary: detail === '' ? `${title}.` : `${title}: ${detail}.`,
    evidence: { first, ...more.evidence },
    ...(more.forecast === undefined ? {} : { forecast: more.forecast }),
    remedy,
  };
}
