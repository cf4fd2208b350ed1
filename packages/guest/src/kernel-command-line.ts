import { IO_TLB_DEFAULT_SIZE, IO_TLB_SEGSIZE, IO_TLB_SIZE } from './params.js';

/** What a kernel's command line says about DMA on powerpc. */
export interface KernelCommandLine {
  /** `disable_ddw`: no second window. [linux v6.1 arch/powerpc/platforms/pseries/iommu.c disable_ddw_setup] */
  readonly disableDdw: boolean;
  /** False with `multitce=off`. [linux v6.1 arch/powerpc/platforms/pseries/iommu.c disable_multitce] */
  readonly multitce: boolean;
  /** `iommu=novmerge`: elements of scatter lists are not merged. [linux v6.1 arch/powerpc/kernel/iommu.c setup_iommu] */
  readonly novmerge: boolean;
  /**
   * `iommu=off`: the firmware interface tells the kernel to leave the IOMMU alone, and PCI devices have
   * no DMA operations. [linux v6.1 arch/powerpc/platforms/pseries/iommu.c iommu_init_early_pSeries]
   * UNVERIFIED: that prom_init takes the word so; it was not read.
   */
  readonly iommuOff: boolean;
  readonly swiotlb: SwiotlbParameter;
  /** Words that say nothing about DMA, or nothing on powerpc. */
  readonly unknown: readonly string[];
}

/** `swiotlb=`. [linux v6.1 kernel/dma/swiotlb.c setup_io_tlb_npages] */
export interface SwiotlbParameter {
  /** The pool, in bytes. */
  readonly bytes: number;
  /** Areas of the pool; default: one a CPU. */
  readonly areas?: number;
  readonly force: boolean;
  readonly noforce: boolean;
}

/** Reads a kernel command line; later words override earlier ones, as in the kernel. */
export function parseKernelCommandLine(cmdline: string): KernelCommandLine {
  const unknown: string[] = [];
  let disableDdw = false;
  let multitce = true;
  let novmerge = false;
  let iommuOff = false;
  let swiotlb: SwiotlbParameter = { bytes: IO_TLB_DEFAULT_SIZE, force: false, noforce: false };
  for (const word of splitWords(cmdline)) {
    const split = word.indexOf('=');
    const name = (split < 0 ? word : word.slice(0, split)).replaceAll('-', '_');
    const value = split < 0 ? undefined : word.slice(split + 1);
    if (name === 'disable_ddw') disableDdw = true;
    else if (name === 'multitce' && value !== undefined) multitce = multitce && value !== 'off';
    else if (name === 'iommu' && (value === 'novmerge' || value === 'vmerge')) {
      novmerge = value === 'novmerge';
    } else if (name === 'iommu' && (value === 'off' || value === 'force')) {
      iommuOff = value === 'off';
    } else if (name === 'swiotlb' && value !== undefined) {
      swiotlb = parseSwiotlb(value, swiotlb);
    } else unknown.push(word);
  }
  return { disableDdw, multitce, novmerge, iommuOff, swiotlb, unknown };
}

// [linux v6.1 kernel/dma/swiotlb.c setup_io_tlb_npages]: slots, then areas, then force or noforce;
// each may be left out.
function parseSwiotlb(value: string, before: SwiotlbParameter): SwiotlbParameter {
  let rest = value;
  let { bytes, areas } = before;
  const slots = /^(0x[0-9a-f]+|\d+)/i.exec(rest)?.[0];
  if (slots !== undefined) {
    // Whole segments of 128 slots.
    const segments = Math.min(Math.max(1, Math.ceil(Number(slots) / IO_TLB_SEGSIZE)), 2 ** 20);
    bytes = segments * IO_TLB_SEGSIZE * IO_TLB_SIZE;
    rest = rest.slice(slots.length);
  }
  if (rest.startsWith(',')) rest = rest.slice(1);
  const count = /^\d+/.exec(rest)?.[0];
  if (count !== undefined) {
    areas = Number(count) < 1 ? areas : 2 ** Math.ceil(Math.log2(Number(count)));
    rest = rest.slice(count.length);
  }
  if (rest.startsWith(',')) rest = rest.slice(1);
  const force = rest === 'force' ? true : before.force;
  const noforce = rest === 'noforce' ? true : before.noforce;
  return { bytes, force, noforce, ...(areas === undefined ? {} : { areas }) };
}

/**
 * The words of a kernel command line. Quotes keep spaces in a word; what follows a lone -- is for init.
 * [linux v6.1 lib/cmdline.c next_arg, init/main.c]
 */
export function splitWords(cmdline: string): string[] {
  const words = (cmdline.match(/(?:"[^"]*"?|[^\s"])+/g) ?? []).map((word) =>
    word.replaceAll('"', ''),
  );
  const end = words.indexOf('--');
  return end < 0 ? words : words.slice(0, end);
}
