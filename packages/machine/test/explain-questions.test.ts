/** The questions that users keep asking, with what they would paste, and the words that answer. */
import { readConsole } from '@pinhole/trace';
import { expect, test } from 'vitest';
import { type Explanation, explain } from '../src/index.js';

/** All that a reader would see. */
function textOf({ devices, findings, contradictions }: Explanation): string {
  return JSON.stringify({ devices, findings, contradictions });
}

const qemu = (line: string, kernels: string[] = []): Explanation =>
  explain({ qemu: line, kernels });
const log = (...lines: string[]): Explanation =>
  explain({ console: readConsole(`${lines.join('\n')}\n`) });

const only = ({ devices }: Explanation) => {
  const answer = devices[0]?.answers[0];
  if (answer === undefined) throw new Error('no device');
  return answer;
};

test('1: "swiotlb buffer is full", and a bigger pool does not help', () => {
  const large = log(
    '[    0.000000] Linux version 5.15.0-generic (b@h) (gcc) #1 SMP',
    '[    1.000000] AMD Memory Encryption Features active: SEV SEV-ES',
    '[  101.000000] virtio-pci 0000:00:02.0: swiotlb buffer is full (sz: 1048576 bytes), total 524288 (slots), used 12 (slots)',
  );
  expect(textOf(large)).toContain('256 KiB at most, so a bigger pool does not help');
  expect(large.findings[0]).toMatchObject({ id: 'swiotlb-too-large', line: 3 });
  const small = log(
    '[  101.000000] virtio_net virtio1: swiotlb buffer is full (sz: 4096 bytes), total 32768 (slots), used 32768 (slots)',
  );
  expect(textOf(small)).toContain('64 MiB of 64 MiB in use');
  expect(small.findings[0]?.fix).toContain('swiotlb=65536');
});

test('2: the disk is not found after SEV or Secure Execution was turned on', () => {
  const sev = qemu(
    'qemu-system-x86_64 -M q35,confidential-guest-support=sev0 -object sev-guest,id=sev0,cbitpos=47,reduced-phys-bits=1 -m 4G -device virtio-scsi-pci,id=scsi0,iommu_platform=off',
  );
  expect(only(sev).path.name).toBe('probe refused');
  expect(textOf(sev)).toContain('device must provide VIRTIO_F_ACCESS_PLATFORM');
  expect(only(sev).fixes[0]?.change).toContain('disable-legacy=on,iommu_platform=on');
  const s390 = log(
    '[    0.000000] Linux version 6.12.9-s390x (b@h) (gcc) #1 SMP',
    '[    0.500000] virtio_blk virtio0: device must provide VIRTIO_F_ACCESS_PLATFORM',
  );
  expect(only(s390).path.id).toBe('refused');
  expect(s390.findings[0]?.fix).toContain('iommu_platform=on');
});

test('3: iommu_platform=on with vhost collapses the network', () => {
  const net =
    '-netdev tap,id=n0,vhost=on -device virtio-net-pci,netdev=n0,disable-legacy=on,iommu_platform=on';
  for (const machine of [
    `qemu-system-ppc64 -M pseries -m 2G ${net}`,
    `qemu-system-x86_64 -M q35 -device intel-iommu,device-iotlb=on -m 2G ${net}`,
  ]) {
    const text = textOf(qemu(machine));
    expect(text).toContain('hundreds of MB/s falling below 1 MB/s');
    expect(text).toContain('with an IOTLB');
  }
  const fast = qemu(`qemu-system-ppc64 -M pseries -m 64G,maxmem=128G ${net}`);
  expect(textOf(fast)).toContain('vhost keeps 2048 translations of 16 MiB each (32 GiB)');
});

test('4: may a VMM always offer bit 33, IOMMU or not?', () => {
  const answer = qemu(
    'qemu-system-x86_64 -M q35 -m 2G -netdev tap,id=n0,vhost=on -device virtio-net-pci,netdev=n0,disable-legacy=on,iommu_platform=on',
  );
  expect(only(answer).path.name).toBe('DMA API, physical addresses (no IOMMU translates them)');
  expect(textOf(answer)).toContain('harmless without an IOMMU');
  expect(textOf(answer)).toContain('QEMU hides bit 33 from vhost');
});

test('5: are ring addresses in vhost messages guest-physical or IOVAs?', () => {
  const user = (flag: string): string =>
    textOf(
      qemu(
        `qemu-system-ppc64 -M pseries -m 1G,maxmem=2G -chardev socket,id=c0,path=s -netdev vhost-user,id=n0,chardev=c0 -device virtio-net-pci,netdev=n0,disable-legacy=on,iommu_platform=${flag}`,
      ),
    );
  expect(user('on')).toContain('ring and buffer addresses in its messages are IOVAs');
  expect(user('off')).toContain('addresses in its messages are guest-physical');
});

test('6: can a transitional device offer bit 33?', () => {
  const answer = qemu(
    'qemu-system-x86_64 -M pc -drive file=d.img,if=none,id=d0 -device virtio-blk-pci,drive=d0,iommu_platform=on',
  );
  expect(only(answer).path.name).toBe('QEMU does not start');
  expect(textOf(answer)).toContain('neither legacy nor transitional device');
  expect(textOf(answer)).toContain('it cannot offer bit 33');
  expect(only(answer).fixes.map(({ change }) => change)).toContain('disable-legacy=on');
});

test('7: Windows, or firmware, with iommu_platform=on', () => {
  const answer = qemu(
    'qemu-system-x86_64 -M q35 -cpu host -accel kvm -m 8G -device virtio-scsi-pci,disable-legacy=on,iommu_platform=on',
  );
  expect(textOf(answer)).toContain('This holds for firmware and for Windows drivers, too');
});

test('8: an SNP guest with much memory has a pool of at most 1 GiB', () => {
  const answer = qemu(
    'qemu-system-x86_64 -M q35,confidential-guest-support=snp0 -object sev-snp-guest,id=snp0,cbitpos=51,reduced-phys-bits=1 -m 512G -device virtio-blk-pci',
  );
  expect(only(answer).path.id).toBe('bounced');
  expect(textOf(answer)).toContain('the pool has 1 GiB');
});

test('8b: the pool of a small arm64 guest is that of the recording linux6.12-arm64-swiotlb', () => {
  const answer = qemu(
    'qemu-system-aarch64 -M virt -cpu cortex-a72 -m 2G -append "swiotlb=force" -device virtio-blk-pci,disable-legacy=on,iommu_platform=on',
  );
  expect(only(answer).path.id).toBe('bounced');
  // "SWIOTLB bounce buffer size adjusted to 2MB", its console says.
  expect(textOf(answer)).toContain('the pool has 2 MiB');
});

test('9: an adapter with a mask below 64 bits gets no second window', () => {
  const answer = log(
    '[    0.000000] Linux version 6.12.107-powerpc64le (b@h) (gcc) #1 SMP',
    '[    2.000000] tg3 0001:01:00.0: lsa_required: 1, lsa_enabled: 0, direct mapping: 0',
  );
  expect(answer.findings[0]).toMatchObject({ id: 'mask-below-64', line: 2 });
  expect(textOf(answer)).toContain('limited address mode');
});

test('10: what forced bounce buffers cost', () => {
  const answer = qemu(
    'qemu-system-x86_64 -M q35 -m 2G -append "console=ttyS0 swiotlb=force" -device virtio-blk-pci,disable-legacy=on,iommu_platform=on',
  );
  expect(textOf(answer)).toContain('Every byte is copied: twice for a read, once for a write');
  // The data twice; header, status and table of descriptors as well.
  for (const { size, bytesCopied, requests, segments } of only(answer).cost?.rows ?? []) {
    expect(bytesCopied).toBe(
      2 * (size + requests) + 16 * requests + 16 * (segments + 2 * requests),
    );
  }
  expect(only(answer).cost?.rows).toHaveLength(3);
  // The pool protects nothing here.
  expect(only(answer).reach.bytes).toBe(2 * 2 ** 30);
  expect(only(answer).fixes[0]?.change).toContain('leave out swiotlb=force');
});

test('11: vsock and -EFAULT from vhost', () => {
  const answer = qemu(
    'qemu-system-x86_64 -M q35 -m 2G -device vhost-vsock-pci,guest-cid=3,iommu_platform=on',
  );
  expect(textOf(answer)).toContain('gets -EFAULT from vhost');
});

test('12: SEV, TDX and neither, compared by counts', () => {
  const cost = (machine: string): number | undefined =>
    only(
      qemu(
        `qemu-system-x86_64 -M q35${machine} -m 4G -device virtio-blk-pci,disable-legacy=on,iommu_platform=on`,
      ),
    ).cost?.rows[2]?.bytesCopied;
  expect(cost('')).toBe(0);
  const sev = cost(',confidential-guest-support=c -object sev-guest,id=c') ?? 0;
  expect(sev).toBeGreaterThan(2 * 2 ** 20);
  expect(sev).toBeLessThan(2 * 2 ** 20 + 16 * 300);
  expect(cost(',confidential-guest-support=c -object tdx-guest,id=c')).toBe(sev);
});

test('13: -m 2G on a new guest, and every I/O makes hypercalls', () => {
  const line =
    'qemu-system-ppc64 -M pseries -m 2G -device virtio-blk-pci,drive=d0,disable-legacy=on,iommu_platform=on';
  const answer = qemu(line, ['linux-6.1', 'linux-6.12']);
  const [old, fresh] = answer.devices[0]?.answers ?? [];
  expect(old?.path.id).toBe('second-window');
  expect(fresh?.path.id).toBe('default-window');
  expect(textOf(answer)).toContain('ibm,lrdr-capacity says 0: QEMU 7.2 without maxmem');
  expect(fresh?.fixes[0]).toMatchObject({ change: '-m 2G,slots=2,maxmem=4G', isVerified: true });
  expect(answer.differences.map(({ what }) => what)).toContain('path');
  // Each change that was offered is one that helps.
  const changed = line.replace('-m 2G', fresh?.fixes[0]?.change ?? '');
  expect(only(qemu(changed)).path.id).toBe('second-window');
});

test('13: on a kernel that never unmaps, the forecast is the real one', () => {
  const answer = only(
    qemu(
      'qemu-system-ppc64 -M pseries -m 2G -device virtio-blk-pci,drive=d0,disable-legacy=on,iommu_platform=on',
      ['linux-7.2'],
    ),
  );
  expect(answer.path.id).toBe('default-window-leak');
  const leak = answer.risks.find(({ id }) => id === 'leak');
  // A real machine's window was full after about 65,500 reads.
  expect(leak?.text).toContain("window's 262144 entries are used up after about 65536 of them");
});

test('the formula for the default window agrees with the run', () => {
  for (const [option, extra] of [
    ['', 3],
    [',indirect_desc=off', 2],
  ] as const) {
    const { cost } = only(
      qemu(
        `qemu-system-ppc64 -M pseries -m 2G -device virtio-blk-pci,drive=d0,disable-legacy=on,iommu_platform=on${option}`,
      ),
    );
    for (const { hcalls, segments, requests } of cost?.rows ?? []) {
      expect(hcalls).toBe(2 * ((segments ?? 0) + extra * (requests ?? 0)));
    }
    expect(cost?.rows).toHaveLength(3);
  }
});

test('a window that is too small for large reads', () => {
  const { path, cost, risks } = only(
    qemu(
      'qemu-system-ppc64 -M pseries -m 2G -global spapr-pci-host-bridge.dma_win_size=0x100000 -device virtio-blk-pci,drive=d0,disable-legacy=on,iommu_platform=on',
    ),
  );
  expect(path.id).toBe('default-window');
  expect(cost?.rows.map(({ size }) => size)).toEqual([4096, 65536]);
  expect(risks.map(({ id }) => id)).toContain('no-room');
  expect(risks.map(({ id }) => id)).toContain('small-window');
});

test('the proposal of 2018 to use the DMA API always, without the flag', () => {
  const answer = qemu('qemu-system-ppc64 -M pseries -m 2G -device virtio-blk-pci,drive=d0', [
    'always-flag',
  ]);
  expect(only(answer).path.id).toBe('mismatched');
});
