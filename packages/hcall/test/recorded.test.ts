/** The hypercalls of a recorded run, read with a few regular expressions, against the tables. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { createGuestMemory, DmaAccess, DmaStatus } from '@pinhole/memory';
import { findRecording } from '@pinhole/recordings';
import { SpaprIommu, SpaprPhb } from '@pinhole/tce';
import { expect, test } from 'vitest';
import { createSpaprHypercalls, H_PUT_TCE, H_PUT_TCE_INDIRECT, H_STUFF_TCE } from '../src/index.js';

test('linux6.12-pinhole: every answer and every translation', () => {
  const log = gunzipSync(
    readFileSync(findRecording('linux6.12-pinhole').files.qemuTrace),
  ).toString();
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 31 }] });
  const phb = new SpaprPhb({ memory, ddw: false });
  const hypercalls = createSpaprHypercalls({ iommu: new SpaprIommu({ phbs: [phb] }), memory });
  const out = { gpa: 0, length: 0 };
  let calls = 0;
  let translations = 0;
  for (const line of log.split('\n')) {
    const kind = /^spapr_iommu_(?:pci_)?(\w+)/.exec(line)?.[1];
    const [liobn = 0n, ioba = 0n, third = 0n, fourth = 0n, fifth = 0n] = [
      ...line.matchAll(/0x[0-9a-f]+/g),
    ].map(([digits]) => BigInt(digits));
    const ret = Number(/ret=(-?\d+)/.exec(line)?.[1]);
    if (kind === 'put') {
      expect(hypercalls.call(H_PUT_TCE, [liobn, ioba, third]).ret, line).toBe(ret);
    } else if (kind === 'stuff') {
      const npages = BigInt(/npages=(\d+)/.exec(line)?.[1] ?? 0);
      const start = ioba - npages * 4096n;
      expect(hypercalls.call(H_STUFF_TCE, [liobn, start, third, npages]).ret, line).toBe(ret);
    } else if (kind === 'indirect') {
      const count = Number(fourth) + 1;
      for (let i = 0; i < count; i += 1) {
        memory.writeU64Be(Number(third) + i * 8, fifth - BigInt(count - 1 - i) * 4096n);
      }
      const args = [liobn, ioba, third, BigInt(count)];
      expect(hypercalls.call(H_PUT_TCE_INDIRECT, args).ret, line).toBe(ret);
    } else if (kind === 'xlate') {
      const perm = Number(/perm=(\d)/.exec(line)?.[1]);
      const address = [Number(ioba >> 32n), Number(ioba & 0xffff_ffffn)] as const;
      expect(phb.translate(...address, 1, DmaAccess.READ, out), line).toBe(DmaStatus.OK);
      expect(BigInt(out.gpa) & ~0xfffn, line).toBe(third);
      const write = phb.translate(...address, 1, DmaAccess.WRITE, out);
      expect(write, line).toBe(perm === 3 ? DmaStatus.OK : DmaStatus.NO_PERMISSION);
      translations += 1;
    }
    if (kind !== undefined && kind !== 'xlate' && kind !== 'new_table') calls += 1;
  }
  expect([calls, translations]).toEqual([2953, 4881]);
});
