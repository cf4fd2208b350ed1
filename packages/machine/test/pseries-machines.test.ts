/** Whole runs on pseries machines that differ from the usual one: handlers, types, bridges, VIO. */
import { type TraceEvent, Tracer } from '@pinhole/base';
import { describe, expect, test } from 'vitest';
import { parseScenario, type RunReport, runScenario } from '../src/index.js';

const SCENARIO = `machine: { arch: pseries, memory: 2GiB, maxMemory: 4GiB }
devices:
  - { type: virtio-blk, iommuPlatform: true }
workload:
  - { read: { offset: 0, length: 64KiB, block: 16KiB } }
  - { write: { offset: 1MiB, length: 64KiB, block: 16KiB } }
`;
const KVM = 'machine.tceHandler=kvm';

function run(...set: readonly string[]): RunReport {
  return runScenario(parseScenario(SCENARIO, { set }));
}

function eventsOf(...set: readonly string[]): readonly TraceEvent[] {
  const events: TraceEvent[] = [];
  const tracer = new Tracer({ emit: (event) => events.push(event) });
  runScenario(parseScenario(SCENARIO, { set }), { tracer });
  return events;
}

describe('tceHandler: kvm', () => {
  test.each([
    ['a second window', [], 8],
    ['the default window', ['machine.ddw=false'], 8],
    ['no IOMMU for virtio', ['devices[0].iommuPlatform=false'], 8],
    ['a secure guest', ['guest.secure=true'], 8],
    ['a secure guest without bounce buffers', ['guest.secure=true', 'machine.ddw=false'], 0],
    ['Linux 6.1, 64 KiB pages', ['guest.kernel=linux-6.1', 'machine.ddw=false'], 8],
  ])("a run is the same as with QEMU's handlers: %s", (_what, set, completed) => {
    const [qemu, kvm] = [run(...set), run(...set, KVM)];
    expect(kvm.counters).toEqual(qemu.counters);
    // Only who answers is another.
    expect(kvm).toEqual({ ...qemu, machine: { ...qemu.machine, tceHandler: 'kvm' } });
    expect(kvm.data.completed).toBe(completed);
  });

  test("QEMU's trace has none of the hypercalls that the kernel answers", () => {
    const puts = (events: readonly TraceEvent[]): number =>
      events.filter(({ name }) => /^spapr_iommu_(pci_)?(put|stuff|indirect)/.test(name)).length;
    expect(puts(eventsOf('machine.ddw=false'))).toBeGreaterThan(0);
    expect(puts(eventsOf('machine.ddw=false', KVM))).toBe(0);
  });
});

describe('type', () => {
  test('pseries-2.6 and older have no second window', () => {
    const { decision, counters } = run('machine.type=pseries-2.6');
    expect(counters.hcallsPerRequest).toEqual(run('machine.ddw=false').counters.hcallsPerRequest);
    expect(counters.hcallsPerRequestTotal).toBeGreaterThan(0);
    expect(decision.steps.join('\n')).not.toMatch(/2\^59|0x800000000000000/);
    expect(run('machine.type=pseries-2.7').counters.hcallsPerRequestTotal).toBe(0);
    expect(run('machine.type=pseries-2.6', 'machine.ddw=true').counters.hcallsPerRequestTotal).toBe(
      0,
    );
  });

  test('pseries-4.1 has small pages only: 2 GiB take more hypercalls to map', () => {
    const setup = (type: string): number =>
      run(`machine.type=${type}`).counters.setup.hcalls.H_PUT_TCE_INDIRECT ?? 0;
    expect(setup('pseries-4.1')).toBeGreaterThan(setup('pseries-4.2'));
    expect(run('machine.type=pseries-4.1').verdict.outcome).toBe('works');
  });

  test('the newest type is that of pseries alone', () => {
    expect(run('machine.type=pseries-7.2')).toEqual(run());
  });
});

test('more bridges and VIO devices change nothing for the disk', () => {
  const more = ['machine.hostBridges=[{index: 1, ddw: false}]', 'machine.vio=[{reg: 0x2000}]'];
  expect(run(...more)).toEqual(run());
  expect(run(...more, 'machine.ddw=false')).toEqual(run('machine.ddw=false'));
});

test('a bridge with the limited-address mode has the usual windows until it is asked', () => {
  expect(run('machine.limitedAddressMode=true')).toEqual(run());
});

describe('errors', () => {
  test.each([
    [
      'machine.type=pc',
      'machine.type: expected pseries, pseries-7.2, pseries-2.6 or so, found "pc"',
    ],
    ['machine.type=pseries-1.9', 'expected a machine type such as pseries'],
    ['machine.tceHandler=xen', 'machine.tceHandler: expected "qemu" or "kvm", found "xen"'],
    ['machine.hostBridges=[{index: 0}]', 'machine.hostBridges[0].index: '],
    ['machine.hostBridges=[{index: 1}, {index: 1}]', 'found two with 0x80000100'],
    ['machine.hostBridges=[{index: 1, dmaWindowSize: 5}]', 'found 5 bytes at 0x0'],
    ['machine.hostBridges=[{}]', 'machine.hostBridges[0].index: expected number, found nothing'],
    ['machine.vio=[{reg: 0x2000}, {reg: 0x2000}]', 'found two with 0x2000'],
    ['machine.vio=[{reg: 0x2000, windowSize: 5}]', 'found 5 bytes at unit 0x2000'],
    ['machine.vio=[{reg: 4294967296}]', 'machine.vio[0].reg: '],
    ['machine.limitedAddressMode=1', 'machine.limitedAddressMode: expected boolean, found 1'],
  ])('%s', (set, message) => expect(() => run(set)).toThrow(message));
});

test('what is left to the machine type stays out of a parsed scenario', () => {
  const { machine } = parseScenario(SCENARIO, {
    set: ['machine.hostBridges=[{index: 2, pageSizes: 0x1000}]', 'machine.vio=[{reg: 0x71000000}]'],
  });
  expect(machine.hostBridges).toEqual([
    { index: 2, pageSizes: 0x1000n, dmaWindowSize: 2 ** 30, limitedAddressMode: false },
  ]);
  expect(machine.vio).toEqual([{ reg: 0x7100_0000, name: 'vdevice', windowSize: 2 ** 28 }]);
});
