import { describe, expect, test } from 'vitest';
import { eventCatalogue } from './events.js';
import { findEvent, matchEvents } from './select.js';

describe('matchEvents', () => {
  test('a star is any text, a question mark one character', () => {
    expect([...matchEvents('spapr_iommu_pci_*')].sort()).toEqual([
      'spapr_iommu_pci_get',
      'spapr_iommu_pci_indirect',
      'spapr_iommu_pci_put',
      'spapr_iommu_pci_stuff',
    ]);
    expect([...matchEvents('dma_fre?')]).toEqual(['dma_free']);
  });

  test('a pattern matches whole names', () => {
    expect([...matchEvents('virtio_notify')]).toEqual(['virtio_notify']);
    expect([...matchEvents('*_p?t')].sort()).toEqual(['spapr_iommu_pci_put', 'spapr_iommu_put']);
  });

  test('commas join patterns; spaces around them do not count', () => {
    expect([...matchEvents('hcall, blk_*')].sort()).toEqual(['blk_io', 'blk_request', 'hcall']);
    expect(matchEvents('*').size).toBe(eventCatalogue.length);
  });

  test.each([
    ['spapr_iomu_*', 'spapr_iommu_put'],
    ['virtio_blk_handle_raed', 'virtio_blk_handle_read'],
    ['virtqueue-pop', 'virtqueue_pop'],
    ['dma_unmap_pag', 'dma_unmap_page'],
  ])('%s matches nothing and the error suggests %s', (pattern, suggestion) => {
    expect(() => matchEvents(pattern)).toThrow(
      expect.objectContaining({
        code: 'E_TRACE_PATTERN',
        message: expect.stringContaining(suggestion),
      }),
    );
  });

  test.each(['', 'virtio_notify,', 'zzz', `${'*a'.repeat(50)}b`])(
    'the pattern "%s" is an error',
    (pattern) => {
      expect(() => matchEvents(pattern)).toThrow(/no event matches/);
    },
  );

  test('a pattern as long as a book is refused in a short message', () => {
    expect(() => matchEvents('*x'.repeat(100_000))).toThrow(
      expect.objectContaining({ message: expect.stringMatching(/^.{1,250}$/) }),
    );
  });
});

test('findEvent knows the catalogue and nothing else', () => {
  expect(findEvent('spapr_iommu_xlate')?.args.map(({ name }) => name)).toEqual([
    'liobn',
    'ioba',
    'tce',
    'perm',
    'pgsize',
  ]);
  expect(findEvent('kvm_vm_ioctl')).toBeUndefined();
  expect(findEvent('toString')).toBeUndefined();
});
