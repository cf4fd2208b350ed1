/** A property: a name and raw bytes. [Devicetree v0.4 §2.2.4 "Properties"] */
export interface FdtProperty {
  name: string;
  /** As stored, most significant byte first; empty for one whose presence says all. */
  value: Uint8Array;
}

/** A node. [Devicetree v0.4 §2.2 "Devicetree Structure and Conventions"] */
export interface FdtNode {
  /** With its unit address: `cpu@0`; `''` for the root. */
  name: string;
  /** In the order of the blob. */
  properties: FdtProperty[];
  /** In the order of the blob. */
  children: FdtNode[];
}

/** A region that the client program must leave alone. [Devicetree v0.4 §5.3] */
export interface FdtReservation {
  /** Guest-physical. */
  address: bigint;
  /** In bytes; never 0, which would end the list. */
  size: bigint;
}

/** What a blob says. */
export interface Fdt {
  root: FdtNode;
  reservations: FdtReservation[];
  /** `boot_cpuid_phys`: the `reg` of the CPU that boots. [Devicetree v0.4 §5.2 "Header"] */
  bootCpuid: number;
}

/** How much is tolerated; the same for reading and writing. */
export interface FdtOptions {
  /** How deep nodes may nest, the root counted. Default 64, as Linux has it. */
  maxDepth?: number;
  /**
   * Holds to the letter of the specification where writers do not: names of up to 31 characters of
   * its set, node names that start with a letter, padding of zeros, reservations that do not
   * overlap. Default false: dtc and libfdt do not look, and QEMU's own trees would not pass.
   */
  strict?: boolean;
}
