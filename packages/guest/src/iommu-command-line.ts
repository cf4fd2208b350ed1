import { splitWords } from './kernel-command-line.js';

/** What a kernel's command line says about IOMMUs, outside powerpc. */
export interface IommuCommandLine {
  /** `iommu=off`, `intel_iommu=off`: the kernel leaves the IOMMU alone. */
  readonly isOff: boolean;
  /** `iommu=pt`, `iommu.passthrough=1`: devices are passed through. */
  readonly isPassthrough: boolean;
  /** `iommu.strict=`, or `intel_iommu=strict`, which wins. Absent: as the kernel was built. */
  readonly isStrict?: boolean;
  /** `intel_iommu=strict`, the one of the two words that all kernels have for VT-d. */
  readonly isIntelStrict: boolean;
}

/**
 * Reads it; later words override earlier ones. `intel_iommu=on` is taken as given wherever a machine
 * has that IOMMU. [linux v6.1 drivers/iommu/iommu.c iommu_set_def_domain_type, iommu_dma_setup;
 * iommu_set_dma_strict; drivers/iommu/intel/iommu.c intel_iommu_setup; arch/x86/kernel/pci-dma.c
 * iommu_setup]
 */
export function parseIommuCommandLine(cmdline: string): IommuCommandLine {
  let isOff = false;
  let isPassthrough = false;
  let isStrict: boolean | undefined;
  let isIntelStrict = false;
  for (const word of splitWords(cmdline)) {
    const [name = '', value = ''] = word.split(/=(.*)/s);
    const flags = value.split(',');
    if (name === 'iommu.passthrough') isPassthrough = isYes(value) ?? isPassthrough;
    else if (name === 'iommu.strict') isStrict = isYes(value) ?? isStrict;
    else if (name === 'iommu' || name === 'intel_iommu') {
      for (const flag of flags) {
        if (flag === 'off') isOff = true;
        else if (flag === 'on') isOff = false;
        else if (flag === 'pt' && name === 'iommu') isPassthrough = true;
        else if (flag === 'nopt' && name === 'iommu') isPassthrough = false;
        else if (flag === 'strict' && name === 'intel_iommu') isIntelStrict = true;
      }
    }
  }
  // It is read after the early parameters, and has no opposite.
  if (isIntelStrict) isStrict = true;
  return { isOff, isPassthrough, isIntelStrict, ...(isStrict === undefined ? {} : { isStrict }) };
}

// [linux v6.1 lib/kstrtox.c kstrtobool]
function isYes(value: string): boolean | undefined {
  if (/^([yY1]|[oO][nN])/.test(value)) return true;
  return /^([nN0]|[oO][fF])/.test(value) ? false : undefined;
}
