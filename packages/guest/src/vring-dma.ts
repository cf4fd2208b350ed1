/** The one decision: does virtio use the DMA API? */

/** What the decision looks at. */
export interface VringDmaQuestion {
  /** VIRTIO_F_ACCESS_PLATFORM (bit 33) was negotiated. */
  readonly hasAccessPlatform: boolean;
  /** What the platform's hook answers, where a policy asks it, and why. */
  readonly archWantsDmaOps: { readonly answer: boolean; readonly because: string };
  /** Bus addresses differ from physical ones, with the operations that the flag and the hook choose. */
  readonly hasBusOffset: boolean;
  /** The same of the operations that any device on the bus has. Default: as `hasBusOffset`. */
  readonly busHasOffset?: boolean;
}

/** The answer. */
export interface VringDmaDecision {
  readonly useDmaApi: boolean;
  /**
   * Whose operations: `physical` addresses without the DMA API, the `bus` operations that any device
   * there has, or those that the platform's `hook` gives virtio.
   */
  readonly ops: 'physical' | 'bus' | 'hook';
  /** One line for people. */
  readonly because: string;
  /** A kernel warning that goes with it. */
  readonly warning?: string;
}

/** A rule that was proposed or adopted. */
export interface VirtioDmaPolicy {
  readonly id: string;
  readonly title: string;
  readonly source: string;
  readonly vringUseDmaApi: (question: VringDmaQuestion) => VringDmaDecision;
}

/** All of them; the first is upstream's. */
export const VIRTIO_DMA_POLICIES: readonly VirtioDmaPolicy[] = [
  {
    id: 'upstream',
    title: 'the flag alone decides',
    source: '[linux v6.1 drivers/virtio/virtio_ring.c vring_use_dma_api]',
    vringUseDmaApi: ({ hasAccessPlatform }) =>
      hasAccessPlatform
        ? { useDmaApi: true, ops: 'bus', because: 'ACCESS_PLATFORM negotiated: the DMA API' }
        : { useDmaApi: false, ops: 'physical', because: 'no ACCESS_PLATFORM: physical addresses' },
  },
  {
    id: 'rfc-2018',
    title: 'the flag, or the platform asks for it (arch_virtio_wants_dma_ops)',
    source:
      '[linuxppc-dev 2018-08-08 "Re: [RFC 0/4] Virtio uses DMA API for all devices"], never merged',
    vringUseDmaApi: ({ hasAccessPlatform, archWantsDmaOps, hasBusOffset }) => {
      if (hasAccessPlatform) {
        return { useDmaApi: true, ops: 'bus', because: 'ACCESS_PLATFORM negotiated: the DMA API' };
      }
      if (!archWantsDmaOps.answer) {
        return {
          useDmaApi: false,
          ops: 'physical',
          because: `no ACCESS_PLATFORM and the platform does not ask (${archWantsDmaOps.because}): physical addresses`,
        };
      }
      const because = `no ACCESS_PLATFORM, but the platform asks (${archWantsDmaOps.because}): the DMA API`;
      if (!hasBusOffset) return { useDmaApi: true, ops: 'hook', because };
      return {
        useDmaApi: true,
        ops: 'hook',
        because,
        warning:
          'WARN: virtio: the platform wants DMA ops without ACCESS_PLATFORM, and bus addresses differ from physical ones: the device was promised physical addresses',
      };
    },
  },
  {
    id: 'rfc-2018-direct-ops',
    title:
      'DMA operations always: virtio-direct ones, unless the flag or the platform says otherwise',
    source:
      '[linuxppc-dev 2018-08-08 "Re: [RFC 0/4] Virtio uses DMA API for all devices"], which describes the patches; their text was not found',
    vringUseDmaApi: ({ hasAccessPlatform, archWantsDmaOps }) => {
      if (hasAccessPlatform) {
        return {
          useDmaApi: true,
          ops: 'bus',
          because: 'ACCESS_PLATFORM negotiated: the bus DMA ops',
        };
      }
      if (archWantsDmaOps.answer) {
        const because = `no ACCESS_PLATFORM, but the platform overrides (${archWantsDmaOps.because}): its DMA ops`;
        return { useDmaApi: true, ops: 'hook', because };
      }
      const because = `no ACCESS_PLATFORM and the platform does not override (${archWantsDmaOps.because}): virtio_direct_dma_ops, physical addresses`;
      return { useDmaApi: true, ops: 'physical', because };
    },
  },
  {
    id: 'always-flag',
    title: 'the DMA API always: hosts are to set the flag on every device',
    source: '[linux-kernel 2018-08-07, C. Hellwig on "Virtio uses DMA API for all devices"]',
    vringUseDmaApi: ({ hasAccessPlatform, hasBusOffset, busHasOffset = hasBusOffset }) => {
      if (hasAccessPlatform) {
        return {
          useDmaApi: true,
          ops: 'bus',
          because: 'the DMA API always; ACCESS_PLATFORM negotiated',
        };
      }
      const because = 'the DMA API always, though the host did not set ACCESS_PLATFORM';
      if (!busHasOffset) return { useDmaApi: true, ops: 'bus', because };
      return {
        useDmaApi: true,
        ops: 'bus',
        because,
        warning:
          'WARN: virtio: bus addresses for a device without ACCESS_PLATFORM, which takes them for physical ones',
      };
    },
  },
];

/** The policy with this id, or undefined. */
export function findPolicy(id: string): VirtioDmaPolicy | undefined {
  return VIRTIO_DMA_POLICIES.find((policy) => policy.id === id);
}
