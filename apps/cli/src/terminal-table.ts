import Table from 'cli-table3';

/** A column of a table at a terminal. */
export interface TextColumn {
  /** May be of several lines. */
  readonly head: string;
  readonly isNumber?: boolean;
}

/** A table in a box, as lines. Cells are text as it is to be shown, colours included. */
export function drawTable(
  columns: readonly TextColumn[],
  rows: readonly (readonly (string | number)[])[],
): string[] {
  const table = new Table({
    head: columns.map(({ head }) => head),
    colAligns: columns.map(({ isNumber }) => (isNumber === true ? 'right' : 'left')),
    style: { head: [], border: [], compact: true },
  });
  for (const cells of rows) table.push([...cells]);
  return table.toString().split('\n');
}
