/** Entries of a queue; one place stays empty. [linux v6.1 drivers/iommu/dma-iommu.c IOVA_FQ_SIZE] */
export const IOVA_FQ_SIZE = 256;
/**
 * The same where a flush costs as much as the unmaps did: the driver of virtio-iommu says so
 * (`shadow_on_flush`). [linux v6.12 drivers/iommu/dma-iommu.c IOVA_SINGLE_FQ_SIZE], not in v6.1
 */
export const IOVA_SINGLE_FQ_SIZE = 32_768;

/** Options of {@link IovaFlushQueue}. */
export interface IovaFlushQueueOptions {
  /** Makes the IOMMU forget all translations of the domain. */
  readonly flushIotlb: () => void;
  readonly free: (pfn: number, count: number) => void;
  /** Default: {@link IOVA_FQ_SIZE}. */
  readonly entries?: number;
}

/**
 * Deferred invalidation: unmapped ranges wait here, and one invalidation of everything serves them
 * all. Until then nobody gets them, and the device may still reach what they mapped.
 * [linux v6.1 drivers/iommu/dma-iommu.c queue_iova, fq_flush_timeout]
 */
export class IovaFlushQueue {
  readonly #options: IovaFlushQueueOptions;
  #waiting: { readonly pfn: number; readonly count: number }[] = [];

  constructor(options: IovaFlushQueueOptions) {
    this.#options = options;
  }

  /** Ranges that wait. */
  get size(): number {
    return this.#waiting.length;
  }

  /** Puts a range in; flushes first when the queue is full. */
  queue(pfn: number, count: number): void {
    if (this.#waiting.length === (this.#options.entries ?? IOVA_FQ_SIZE) - 1) this.flush();
    this.#waiting.push({ pfn, count });
  }

  /** What the timer does, 10 ms (a long queue's: 1 s) after the first range came. */
  flush(): void {
    this.#options.flushIotlb();
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { pfn, count } of waiting) this.#options.free(pfn, count);
  }
}
