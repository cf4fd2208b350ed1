/** Where a message-signalled interrupt is written, and what. [PCI 3.0 §6.8.2 "MSI-X"] */
export interface MsiMessage {
  readonly address: bigint;
  /** 32 bits. */
  readonly data: number;
}

/** How the interrupts of a PCI function reach its driver: the platform's part. */
export interface PciInterrupts {
  /** Calls `handler` when the interrupt line of the function is asserted. It may be shared. */
  onLine(handler: () => void): void;
  /**
   * Messages for `count` vectors; `handler` hears of each by its number. Absent or undefined: the
   * platform has none, and the line is used.
   */
  allocateVectors?(
    count: number,
    handler: (vector: number) => void,
  ): readonly MsiMessage[] | undefined;
}
