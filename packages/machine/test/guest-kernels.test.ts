/** What the guest's kernel and its command line change in a whole run. */
import { describe, expect, test } from 'vitest';
import { parseScenario, runScenario } from '../src/index.js';

function run(guest: string, machine = '', device = '', block = '16KiB') {
  return runScenario(
    parseScenario(`
machine: { arch: pseries, memory: 512MiB, ${machine} }
guest: { ${guest} }
devices: [{ type: virtio-blk, iommuPlatform: true, ${device} }]
workload: [{ read: { offset: 0, length: ${block === '16KiB' ? '64KiB' : block}, block: ${block} } }]
`),
  );
}

describe('guest.cmdline', () => {
  test('disable_ddw: a hypercall per map and unmap where there would be none', () => {
    expect(run('kernel: linux-6.1').counters.hcallsPerRequestTotal).toBe(0);
    const report = run('kernel: linux-6.1, cmdline: "quiet disable_ddw"');
    expect(report.counters.hcallsPerRequestTotal).toBeGreaterThan(7);
    expect(report.decision.because).toContain('disable_ddw');
  });

  test('multitce=off: one hypercall an entry', () => {
    const report = run('kernel: linux-6.1, cmdline: "disable_ddw multitce=off"');
    expect(Object.keys(report.counters.workload.hcalls)).toEqual(['H_PUT_TCE']);
  });

  test('swiotlb=force: an ordinary guest copies each buffer behind its second window', () => {
    const report = run('kernel: linux-6.1, cmdline: "swiotlb=force"');
    expect(report.verdict.outcome).toBe('works');
    // A read copies in and out.
    expect(report.counters.workload.bytesBounced).toBeGreaterThan(2 * 65_536);
  });

  test('swiotlb=noforce takes the bounce pool from a secure guest: its device reads ciphertext', () => {
    const report = run('kernel: linux-6.1, secure: true, cmdline: "swiotlb=noforce"');
    expect(report.verdict.outcome).not.toBe('works');
    expect(report.counters.workload.bytesBounced).toBe(0);
  });
});

describe('guest.kernel', () => {
  test('decides the policy, unless the scenario does', () => {
    const policy = (guest: string) =>
      parseScenario(
        `{machine: {arch: pseries}, guest: {${guest}}, devices: [{type: virtio-blk}], workload: [{read: {offset: 0, length: 512, block: 512}}]}`,
      ).guest.policy;
    expect(policy('kernel: rfc-2018-direct-ops')).toBe('rfc-2018-direct-ops');
    expect(policy('kernel: rfc-2018, policy: upstream')).toBe('upstream');
    expect(policy('')).toBe('upstream');
  });

  test.each([
    ['linux-4.18', '7.2', 'works'],
    ['linux-5.4', '7.2', 'works'],
    ['linux-5.10', '7.2', 'works'],
    ['linux-6.1', '7.2', 'works'],
    ['linux-6.12.0', '7.2', 'works'],
    ['linux-6.12', '7.2', 'works-slow'],
    ['linux-6.12', '10.0', 'works'],
    ['linux-7.2', '10.0', 'works'],
  ])('%s on QEMU %s without maxmem: %s', (kernel, qemu, outcome) => {
    expect(run(`kernel: ${kernel}`, `qemu: "${qemu}"`).verdict.outcome).toBe(outcome);
  });

  test('linux-7.2 on QEMU 7.2 without maxmem: no unmap, and the window fills up', () => {
    const { counters } = run('kernel: linux-7.2');
    expect(counters.workload.hcalls.H_STUFF_TCE).toBeUndefined();
    expect(counters.tcesLive).toBe(counters.tcesPeak);
  });

  test('linux-5.4 in a secure guest: PCI devices have no DMA operations, the flag does not help', () => {
    expect(run('kernel: linux-5.4, secure: true').verdict.outcome).not.toBe('works');
    expect(run('kernel: linux-5.10, secure: true').verdict.outcome).toBe('works');
  });
});

describe('a window that is too small for a request', () => {
  // 256 TCEs for a request of 256 and its header, status, table and ring.
  const small = (kernel: string) =>
    run(`kernel: ${kernel}, cmdline: "disable_ddw"`, 'dmaWindowSize: 1MiB', '', '1MiB');

  test('Linux 4.18 fails it: virtqueue_add says -EIO', () => {
    const { verdict, data } = small('linux-4.18');
    expect(verdict).toMatchObject({ outcome: 'fails' });
    expect(verdict.text).toMatch(/^I\/O fails: .*-EIO, an I\/O error/);
    expect(data.rejected).toBeGreaterThan(0);
  });

  test('later ones requeue it for ever, as the recorded 6.12 with a window of 1 MiB does', () => {
    const { verdict, data } = small('linux-6.12');
    expect(verdict.text).toMatch(/^I\/O hangs: .*-ENOMEM, requeued 100 times \(a livelock\)/);
    expect(data).toMatchObject({ hung: 1, rejected: 0 });
  });
});
