/** The one decision: does virtio use the DMA API? */

/** What the decision looks at. */
export interface VringDmaQuestion {
  /** VIRTIO_F_ACCESS_PLATFORM (bit 33) was negotiated. */
  readonly hasAccessPlatform: boolean;
  /** What the platform's hook answers, where a policy asks it, and why. */
  readonly archWantsDmaOps: { readonly answer: boolean; readonly because: string };
  /** Bus addresses of this device differ from physical addresses. */
  readonly hasBusOffset: boolean;
}

/** The answer. */
export interface VringDmaDecision {
  readonly useDmaApi: boolean;
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

export const VIRTIO_DMA_POLICIES: readonly VirtioDmaPolicy[] = [
  {
    id: 'upstream',
    title: 'the flag alone decides',
    source: '[linux v6.1 drivers/virtio/virtio_ring.c vring_use_dma_api]',
    vringUseDmaApi: ({ hasAccessPlatform }) =>
      hasAccessPlatform
        ? { useDmaApi: true, because: 'ACCESS_PLATFORM negotiated: the DMA API' }
        : { useDmaApi: false, because: 'no ACCESS_PLATFORM: physical addresses' },
  },
  {
    id: 'rfc-2018',
    title: 'the flag, or the platform asks for it (arch_virtio_wants_dma_ops)',
    source:
      '[linuxppc-dev 2018-08-08 "Re: [RFC 0/4] Virtio uses DMA API for all devices"], never merged',
    vringUseDmaApi: ({ hasAccessPlatform, archWantsDmaOps, hasBusOffset }) => {
      if (hasAccessPlatform) {
        return { useDmaApi: true, because: 'ACCESS_PLATFORM negotiated: the DMA API' };
      }
      if (!archWantsDmaOps.answer) {
        return {
          useDmaApi: false,
          because: `no ACCESS_PLATFORM and the platform does not ask (${archWantsDmaOps.because}): physical addresses`,
        };
      }
      const because = `no ACCESS_PLATFORM, but the platform asks (${archWantsDmaOps.because}): the DMA API`;
      if (!hasBusOffset) return { useDmaApi: true, because };
      return {
        useDmaApi: true,
        because,
        warning:
          'WARN: virtio: the platform wants DMA ops without ACCESS_PLATFORM, and bus addresses differ from physical ones: the device was promised physical addresses',
      };
    },
  },
];

/** The policy with this id, or undefined. */
export function findPolicy(id: string): VirtioDmaPolicy | undefined {
  return VIRTIO_DMA_POLICIES.find((policy) => policy.id === id);
}
