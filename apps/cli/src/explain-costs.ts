import { formatSize } from '@pinhole/base';
import type { Cost, CostRow } from '@pinhole/machine';

/** A column of the table of what reads cost. */
export interface CostColumn {
  readonly head: string;
  readonly of: (row: CostRow) => string;
}

const SIZE: CostColumn = { head: 'read', of: ({ size }) => formatSize(size) };

const driverColumn = (head: string, count: (row: CostRow) => number) => ({
  head,
  count,
  of: (row: CostRow): string => countText(count(row)),
});

/** What a guest pays for maps and unmaps; a machine has one kind or the other. */
const DRIVER_COLUMNS = [
  driverColumn('hcalls', ({ hcalls }) => hcalls),
  driverColumn('maps', ({ iommu }) => iommu.maps),
  driverColumn('commands', ({ iommu }) => iommu.commands),
] as const;

const LAST: readonly CostColumn[] = [
  { head: 'translations', of: ({ translations }) => String(translations) },
  { head: 'copied', of: ({ bytesCopied }) => formatSize(bytesCopied) },
  { head: 'segments', of: ({ segments }) => String(segments) },
];

/** The columns that a table of these costs needs: of hypercalls and IOMMU work, what there is. */
export function costColumns({ rows }: Cost): CostColumn[] {
  const paid = DRIVER_COLUMNS.filter(({ count }) => rows.some((row) => count(row) > 0));
  return [SIZE, ...(paid.length > 0 ? paid : DRIVER_COLUMNS.slice(0, 1)), ...LAST];
}

/** A count; of a fraction at most three digits. */
function countText(count: number): string {
  return Number.isInteger(count) ? String(count) : String(Number(count.toPrecision(2)));
}
