import { H_GET_TCE, H_PUT_TCE, RTAS_TOKENS } from '@pinhole/hcall';
import { expect, test } from 'vitest';
import { LiveQemu, type LiveQemuOptions } from '../../src/index.js';
import { describeLive, QEMU } from './support/live.js';

function withMachine<T>(options: LiveQemuOptions, use: (qemu: LiveQemu) => T): T {
  const qemu = LiveQemu.start({ qemu: QEMU, ...options });
  try {
    return use(qemu);
  } finally {
    qemu.close();
  }
}
const query = (qemu: LiveQemu, index: number): readonly number[] =>
  qemu.rtas(RTAS_TOKENS['ibm,query-pe-dma-window'], [0, 0x0800_0000, 0x2000_0000 + index], 5);

describeLive('machines', () => {
  test.each([
    ['an old type', { machine: 'pseries-4.1' }],
    ['properties', { machine: 'pseries,cap-htm=off' }],
    ['much memory', { memory: 4 * 2 ** 30 }],
    ['room for memory', { maxMemory: 2 ** 32 }],
    ['another CPU', { args: ['-cpu', 'power8'] }],
  ] as [string, LiveQemuOptions][])('%s', (_, options) => {
    withMachine(options, (qemu) => {
      expect(qemu.call(H_PUT_TCE, [0x8000_0000n, 0n, 0x3n]).ret).toBe(0);
      expect(qemu.call(H_GET_TCE, [0x8000_0000n, 0n]).out).toEqual([3n]);
      expect(qemu.deviceTree().length).toBeGreaterThan(4096);
      const [{ size } = { size: 0 }] = qemu.memory.regions;
      qemu.memory.writeU8(size - 1, 0x5a);
      expect(qemu.memory.readU8(size - 1)).toBe(0x5a);
    });
  });

  test('host bridges with properties', () => {
    const phbs = [
      { index: 1, ddw: false },
      { index: 5, pgsz: 0x1_1000, dma_win_size: 2 ** 31 },
    ];
    withMachine({ phbs }, (qemu) => {
      // Without dynamic windows the call is a parameter error; 4 KiB and 64 KiB pages are 3.
      expect(query(qemu, 1)[0]).toBe(-3);
      expect(query(qemu, 5)[3]).toBe(3);
      // LIOBN of the bridge with index 5; the last page of its window, and the one after it.
      const put = (ioba: bigint): number => qemu.call(H_PUT_TCE, [0x8000_0500n, ioba, 3n]).ret;
      expect([put(0x7fff_f000n), put(0x8000_0000n)]).toEqual([0, -4]);
    });
  });

  test('a call that halts the CPU ends within the bound', () => {
    withMachine({ timeoutMs: 300 }, (qemu) => {
      // H_CEDE
      expect(() => qemu.call(0xe0, [])).toThrow(expect.objectContaining({ code: 'E_QEMU_HANG' }));
    });
  });
});
