/** What differs from one QEMU to another, as data. */

/** One QEMU. */
export interface QemuProfile {
  readonly id: '7.2' | '10.0';
  readonly title: string;
  /** What `-M pseries` is. */
  readonly machineType: string;
  /**
   * The first value of `ibm,lrdr-capacity` where no memory can be added (no `maxmem`): 0, or where
   * memory ends.
   */
  readonly lrdrWithoutMaxmem: 'zero' | 'end-of-memory';
  readonly source: string;
}

/** The QEMUs that the model knows, oldest first. */
export const QEMU_PROFILES: readonly QemuProfile[] = [
  {
    id: '7.2',
    title: 'QEMU 7.2 (Debian 12)',
    machineType: 'pseries-7.2',
    lrdrWithoutMaxmem: 'zero',
    source: '[qemu v7.2 hw/ppc/spapr.c spapr_dt_rtas]',
  },
  {
    id: '10.0',
    title: 'QEMU 10.0 (Debian 13)',
    machineType: 'pseries-10.0',
    lrdrWithoutMaxmem: 'end-of-memory',
    source: 'the recording linux6.12-qemu10-ddw, whose guest makes a window of the size of memory',
  },
];

/** The profile with this id. Default: the first. */
export function qemuProfile(id: QemuProfile['id'] = '7.2'): QemuProfile {
  return QEMU_PROFILES.find((profile) => profile.id === id) ?? (QEMU_PROFILES[0] as QemuProfile);
}
