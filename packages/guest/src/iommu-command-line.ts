import { splitWords } from './kernel-command-line.js';

/** What a kernel's command line says about IOMMUs, outside powerpc. */
export interface IommuCommandLine {
  /** `iommu=off`, `intel_iommu=off`: the kernel leaves the IOMMU alone. */
  readonly isOff: boolean;
  /** `iommu=pt`, `iommu.passthrough=1`: devices are passed through. */
  readonly isPassthrough: boolean;
  /** `iommu.strict=`, `intel_iommu=strict`. Absent: as the kernel was built. */
  readonly isStrict?: boolean;
}

/**
 * Reads it; later words override earlier ones. `intel_iommu=on` is taken as given wherever a machine
 * has that IOMMU. [linux v6.1 drivers/iommu/iommu.c iommu_set_def_domain_type, iommu_dma_setup;
 * drivers/iommu/intel/iommu.c intel_iommu_setup; arch/x86/kernel/pci-dma.c iommu_setup]
 */
export function parseIommuCommandLine(cmdline: string): IommuCommandLine {
  let isOff = false;
  let isPassthrough = false;
  let isStrict: boolean | undefined;
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
        else if (flag === 'strict' && name === 'intel_iommu') isStrict = true;
      }
    }
  }
  return { isOff, isPassthrough, ...(isStrict === undefined ? {} : { isStrict }) };
}

// [linux v6.1 lib/kstrtox.c kstrtobool]
function isYes(value: string): boolean | undefined {
  if (/^([yY1]|[oO][nN])/.test(value)) return true;
  return /^([nN0]|[oO][fF])/.test(value) ? false : undefined;
}
