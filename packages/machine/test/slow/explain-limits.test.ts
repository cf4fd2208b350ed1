/** How long a command line may be, and how long that takes. */
import { expect, test } from 'vitest';
import { explain } from '../../src/index.js';

const PSERIES = 'qemu-system-ppc64 -M pseries -m 2G,slots=2,maxmem=4G';
const MODERN = '-device virtio-blk-pci,drive=d0,disable-legacy=on,iommu_platform=on';

test('a command line of a megabyte is read, and one beyond what a shell takes is not', () => {
  const many = `${PSERIES} ${MODERN}${' stray'.repeat(180_000)}`;
  const explanation = explain({ qemu: many });
  expect(explanation.notUnderstood).toHaveLength(50);
  expect(explanation.notes.join()).toContain('179950 more words');
  expect(() => explain({ qemu: `${PSERIES}${' x'.repeat(2 ** 20)}` })).toThrowError(
    'at most 2097152',
  );
  // Devices that are alike are answered once.
  const devices = Array.from({ length: 10_000 }, (_, at) => ` ${MODERN},id=d${at}`);
  expect(explain({ qemu: `qemu-system-x86_64${devices.join('')}` }).devices).toHaveLength(10_000);
  // Each looks for a brace that never comes: quadratic, this would take hours.
  expect(explain({ qemu: `${PSERIES} ${MODERN} ${'${'.repeat(2 ** 19)}` }).devices).toHaveLength(1);
});
