/** What `pinhole explain` says of a command line, against what a real QEMU does with it. */
import { spawnSync } from 'node:child_process';
import { explain } from '@pinhole/machine';
import { describe, expect, test } from 'vitest';

const PPC64 = [
  '-M pseries -device virtio-rng-pci,iommu_platform=on',
  '-M pseries -device virtio-rng-pci-transitional,iommu_platform=on',
  '-M pseries -device virtio-gpu-pci,iommu_platform=on',
  '-M pseries -device virtio-balloon-pci,iommu_platform=on,disable-legacy=on',
  '-M pseries -device virtio-net,iommu_platform=on',
  '-M pseries -device virtio-net-pci,iommu_platform=on,disable-legacy=true',
  '-M pseries -device virtio-net-pci,iommu_platform=On',
  '-M pseries -device virtio-net-pci,noiommu_platform',
  '-M pseries -device virtio-rng-device',
  '-M pseries -device virtio-rng-ccw',
  '-M pseries -m 300 -device virtio-rng-pci',
  '-M pseries -m 512,maxmem=600M,slots=1 -device virtio-rng-pci',
  '-M pseries -m 2G,maxmem=1G -device virtio-rng-pci',
  '-M pseries -device spapr-pci-host-bridge,index=1,id=p1 -device virtio-rng-pci,bus=p1.0',
  '-M pseries -device spapr-pci-host-bridge,index=1,id=p1 -device virtio-rng-pci,bus=p1',
  '-M pseries -device spapr-pci-host-bridge,index=2 -device virtio-rng-pci,bus=pci.2',
  '-M pseries -device spapr-pci-host-bridge,index=2 -device virtio-rng-pci,bus=pci.1',
  '-M pseries -device pci-bridge,id=b,chassis_nr=1 -device virtio-rng-pci,bus=b,iommu_platform=on',
  '-M pseries-2.6 -device virtio-rng-pci,iommu_platform=on',
  '-M pseries-2.6 -device virtio-rng-pci,iommu_platform=on,disable-legacy=on',
  '-M pseries-2.6 -device virtio-rng-pci,iommu_platform=on,disable-legacy=on,disable-modern=off',
  '-M pseries -global virtio-rng-pci.disable-legacy=on -device virtio-rng-pci,iommu_platform=on',
  '-M pseries -global virtio-device.iommu_platform=on -device virtio-rng-pci-non-transitional',
  '-M pseries -global virtio-rng-device.iommu_platform=on -device virtio-rng-pci',
  '-M pseries -global pci-device.disable-legacy=on -device virtio-rng-pci,iommu_platform=on',
];

const X86 = [
  '-M q35 -device virtio-rng-pci,iommu_platform=on',
  '-M q35 -device pcie-root-port,id=rp,chassis=1 -device virtio-rng-pci,bus=rp,iommu_platform=on',
  '-M q35 -device pcie-pci-bridge,id=pb -device virtio-rng-pci,bus=pb,iommu_platform=on',
  '-M q35 -device pxb-pcie,id=px,bus_nr=8 -device virtio-rng-pci,bus=px,iommu_platform=on',
  '-M pc -device virtio-rng-pci,iommu_platform=on,disable-legacy=on',
  '-M pc -device virtio-rng-pci,bus=pcie.0',
  '-M microvm -device virtio-rng-device',
];

/** QEMU's complaint; `undefined` when it starts. */
function complaint(program: string, line: string): string | undefined {
  const common = ['-S', '-nographic', '-monitor', 'stdio', '-serial', 'none', '-vga', 'none'];
  const { stderr, status } = spawnSync(program, [...common, ...line.split(' ')], {
    encoding: 'utf8',
    input: 'quit\n',
    timeout: 20_000,
  });
  if (status === 0) return undefined;
  return stderr
    .split('\n')
    .find((text) => text.startsWith('qemu-system') && !/TCG doesn't|warning:/.test(text));
}

for (const [program, lines] of [
  ['qemu-system-ppc64', PPC64],
  ['qemu-system-x86_64', X86],
] as const) {
  const isMissing = spawnSync(program, ['--version']).status !== 0;
  describe.skipIf(isMissing)(program, () => {
    test.each(lines)('%s', (line) => {
      const said = complaint(program, line);
      const steps = explain({ qemu: `${program} ${line}` }).devices[0]?.answers[0]?.steps ?? [];
      const refusal = steps.map(({ text }) => text).find((text) => text.includes('QEMU refuses'));
      if (said === undefined) expect(refusal).toBeUndefined();
      // The words after the option that they are about.
      else expect(refusal).toContain(said.split(': ').at(-1)?.slice(0, 30));
    });
  });
}
