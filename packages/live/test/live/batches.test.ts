import { H_GET_TCE, H_PUT_TCE } from '@pinhole/hcall';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { LiveQemu } from '../../src/index.js';
import { describeLive, QEMU } from './support/live.js';

const LIOBN = 0x8000_0000n;

describeLive('batches', () => {
  let qemu: LiveQemu;
  beforeAll(() => {
    qemu = LiveQemu.start({ qemu: QEMU });
  });
  afterAll(() => qemu?.close());
  const record = (i: number, ...values: bigint[]): void => {
    qemu.batches.registers.fill(0n, 8 * i, 8 * i + 8);
    qemu.batches.registers.set(values, 8 * i);
  };

  test('a full one, in order, while the next is filled in', () => {
    const { batches } = qemu;
    for (let round = 0; round < 3; round += 1) {
      for (let i = 0; i < batches.capacity; i += 2) {
        record(i, BigInt(H_PUT_TCE), LIOBN, 0x1000n, BigInt((round * 4096 + i) * 0x1000 + 3));
        record(i + 1, BigInt(H_GET_TCE), LIOBN, 0x1000n);
      }
      batches.submit(batches.capacity);
      batches.registers.fill(0xdead_beefn);
      expect(batches.collect()).toBe(batches.capacity);
      for (let i = 0; i < batches.capacity; i += 2) {
        expect(batches.answers[8 * i]).toBe(0n);
        expect(batches.answers[8 * i + 9]).toBe(BigInt((round * 4096 + i) * 0x1000 + 3));
      }
    }
  });

  test('registers are raw, all 64 bits of r3 to r10', () => {
    const values = [0xfffcn, ...[1n, 2n, 3n, 4n, 5n, 6n, 7n].map((n) => (n << 60n) + n)];
    record(0, ...values);
    qemu.batches.submit(1);
    qemu.batches.collect();
    expect([...qemu.batches.answers.subarray(0, 8)]).toEqual([2n ** 64n - 2n, ...values.slice(1)]);
  });

  test.each([0, 2049, 1.5, -1])('a batch of %d is refused', (count) => {
    expect(() => qemu.batches.submit(count)).toThrow(
      expect.objectContaining({ code: 'E_LIVE_USAGE' }),
    );
  });

  test('order: one at a time, and what was submitted is collected', () => {
    const refused = expect.objectContaining({ code: 'E_LIVE_USAGE' });
    expect(() => qemu.batches.collect()).toThrow(refused);
    record(0, BigInt(H_GET_TCE), LIOBN, 0n);
    qemu.batches.submit(1);
    expect(() => qemu.batches.submit(1)).toThrow(refused);
    expect(() => qemu.call(H_GET_TCE, [LIOBN, 0n])).toThrow(refused);
    expect(qemu.batches.collect()).toBe(1);
  });

  test('a reset drops a batch that nobody collected', () => {
    record(0, BigInt(H_PUT_TCE), LIOBN, 0n, 3n);
    qemu.batches.submit(1);
    qemu.reset();
    expect(() => qemu.batches.collect()).toThrow();
    expect(qemu.call(H_GET_TCE, [LIOBN, 0n]).out).toEqual([0n]);
  });

  test('a guest that resets itself loses its answers, and goes on', () => {
    // The reset comes a moment after the call that asks for it, RTAS system-reboot.
    expect(() => {
      qemu.rtas(0x2004, [], 1);
      for (;;) qemu.call(H_GET_TCE, [LIOBN, 0n]);
    }).toThrow(expect.objectContaining({ code: 'E_GUEST_RESET' }));
    expect(qemu.call(H_GET_TCE, [LIOBN, 0n]).out).toEqual([0n]);
  });

  test('a guest that switches itself off: QEMU ends', () => {
    expect(() => {
      qemu.rtas(0x2003, [0, 0], 1);
      for (;;) qemu.call(H_GET_TCE, [LIOBN, 0n]);
    }).toThrow(expect.objectContaining({ code: 'E_QEMU_EXITED' }));
  });
});
