/**
 * Cells that ran for real, beside the model: here one of each machine, all of them in the slow suite.
 * What was seen is in observed/observed.jsonl, how in observed/observe.mjs.
 */
import { readFileSync } from 'node:fs';
import { Tracer } from '@pinhole/base';
import { describe, expect, test } from 'vitest';
import * as machine from '../../src/index.js';
import { parseCellId } from '../../src/matrix/axes.js';
// @ts-expect-error a script without types
import * as compare from './observed/compare.mjs';
// @ts-expect-error a script without types
import { boots as planned } from './observed/plan.mjs';

interface Row {
  readonly what: string;
  readonly real: string;
  readonly model: string;
}
interface SeenCell {
  readonly id: string;
  readonly features: string;
  readonly failures: readonly string[];
  readonly readsWrong: readonly string[];
  readonly imageBytesWrong: number;
  readonly guest: {
    readonly bytesBounced: number;
    readonly events: Readonly<Record<string, number>>;
    readonly layout: readonly string[];
  };
  readonly qemu: { readonly requests: string; readonly events: Readonly<Record<string, number>> };
}
interface SeenBoot {
  readonly boot: string;
  readonly kernel: string;
  readonly command: string;
  readonly windows: readonly string[];
  readonly failures: readonly string[];
  readonly cells: readonly SeenCell[];
}

const text = readFileSync(new URL('observed/observed.jsonl', import.meta.url), 'utf8');
const boots = compare.readBoots(text) as readonly SeenBoot[];
const rowsOf = (cell: SeenCell): Row[] => compare.compareCell(cell, machine);
const differing = (rows: readonly Row[]): Row[] => rows.filter(({ real, model }) => real !== model);
const cellOf = (id: string): SeenCell => {
  const cell = boots.flatMap(({ cells }) => cells).find((each) => each.id === id);
  if (cell === undefined) throw new Error(`${id} was not observed`);
  return cell;
};

/** Debian's kernels of these were not at hand. */
const NOT_BOOTED = /^linux-5\.10\/(pseries-.*|s390x)$/;

test('every boot that was planned has been, with a disk for each flag and ring', () => {
  const plan = planned(machine) as { name: string; cells: { id: string }[] }[];
  const wanted = plan.filter(({ name }) => !NOT_BOOTED.test(name));
  expect(boots.map(({ boot }) => boot)).toEqual(wanted.map(({ name }) => name).sort());
  for (const { boot, cells, failures } of boots) {
    const of = wanted.find(({ name }) => name === boot)?.cells ?? [];
    expect(cells.map(({ id }) => id)).toEqual(of.map(({ id }) => id));
    expect(failures).toEqual([]);
  }
});

test('what was booted is what the cell says', () => {
  for (const { boot, kernel, command, cells } of boots) {
    expect(kernel).toMatch(new RegExp(`^${boot.split('/')[0]?.replace('linux-', '')}\\.`));
    const disks = [...command.matchAll(/-device virtio-blk-\S+/g)].map(([device]) => device);
    expect(disks).toHaveLength(cells.length);
    cells.forEach(({ id }, at) => {
      const { flag, ring, secure, vhost } = parseCellId(id);
      expect(disks[at]).toContain(`iommu_platform=${flag ? 'on' : 'off'}`);
      expect(disks[at]?.includes('packed=on')).toBe(ring === 'packed');
      expect(disks[at]?.includes('indirect_desc=off')).toBe(ring === 'split-noindirect');
      expect({ secure, vhost }).toEqual({ secure: false, vhost: false });
    });
  }
});

test('nothing of the machine that made it is in the file', () => {
  expect(text).not.toMatch(/\/(tmp|home|root|work|usr|var)\//);
});

describe('the model does what the real one did', () => {
  const sample = boots
    .filter(({ boot }) => boot.startsWith('linux-6.12/'))
    .map(({ cells }) => cells.at(-1) as SeenCell);

  test.each(sample)('$id', (cell) => {
    const rows = rowsOf(cell);
    expect(differing(rows)).toEqual([]);
    const facts = compare.FACTS as readonly string[];
    expect(rows.map(({ what }) => what)).toEqual(
      facts.filter((what) => compare.isComparable(cell.id, what)),
    );
  });

  test('and of the windows', () => {
    const boot = boots.find((each) => each.boot === 'linux-6.12/pseries-ddw') as SeenBoot;
    const rows: Row[] = compare.compareBoot(boot, machine, Tracer);
    expect(rows.map(({ what }) => what)).toEqual(['windows on offer', 'windows made']);
    expect(differing(rows)).toEqual([]);
    expect(rows.map(({ real }) => real)).not.toContain('none');
    const none = compare.compareBoot({ ...boot, windows: [], messages: [] }, machine, Tracer);
    expect(differing(none)).toHaveLength(2);
  });
});

describe('a run that had been another shows', () => {
  const id = 'linux-6.12/x86-64-virtio-iommu/flag/normal/qemu/split';
  const less = (of: Readonly<Record<string, number>>, name: string): Record<string, number> => {
    return { ...of, [name]: (of[name] ?? 0) - 1 };
  };
  const changed = (change: (cell: SeenCell) => Partial<SeenCell>): string[] => {
    const cell = cellOf(id);
    return differing(rowsOf({ ...cell, ...change(cell) })).map(({ what }) => what);
  };
  const guest = (name: string) => (cell: SeenCell) => {
    return { guest: { ...cell.guest, events: less(cell.guest.events, name) } };
  };
  const qemu = (name: string) => (cell: SeenCell) => {
    return { qemu: { ...cell.qemu, events: less(cell.qemu.events, name) } };
  };

  test.each<[string, string[], (cell: SeenCell) => Partial<SeenCell>]>([
    ['a bit of the features', ['features'], () => ({ features: '0x330006e54' })],
    ['a read', ['outcome', 'reads wrong'], () => ({ readsWrong: ['r3'] })],
    ['a byte', ['outcome', 'bytes of the image wrong'], () => ({ imageBytesWrong: 1 })],
    ['a failure', ['outcome'], () => ({ failures: ['dd'] })],
    ['a map', ['IOMMU maps'], guest('map')],
    ['an unmap', ['IOMMU unmaps'], guest('unmap')],
    ['a mapping that is left', ['outcome', 'mappings left'], guest('dma_unmap')],
    ['a command', ['IOMMU commands'], qemu('virtio_iommu_map')],
    ['a translation', ['translations'], qemu('virtio_iommu_translate_out')],
    ['a hypercall', ['H_PUT_TCE'], qemu('spapr_iommu_pci_put')],
    ['a notification', ['notifications by the driver'], qemu('virtio_queue_notify')],
    ['an interrupt', ['notifications by the device'], qemu('virtio_notify_irqfd')],
  ])('%s: %j', (_, expected, change) => {
    expect(changed(change)).toEqual(expected);
  });

  test('a buffer that was cut elsewhere', () => {
    const cut = changed(({ guest: seen }) => ({
      guest: {
        ...seen,
        layout: seen.layout.map((line) => line.replace(/data 4096 /, 'data 2048+2048@2048 ')),
      },
    }));
    expect(cut).toEqual(['IOMMU maps', 'IOMMU unmaps', 'IOMMU commands', 'translations']);
  });
});
