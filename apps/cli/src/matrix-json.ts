import { CELL_OUTCOMES, type CellResult } from '@pinhole/machine';

/** The matrix as data; see docs/JSON.md. */
export function matrixJson(results: readonly CellResult[], planned: number): object {
  return {
    schemaVersion: 1,
    planned,
    outcomes: Object.fromEntries(
      CELL_OUTCOMES.map((id) => [id, results.filter(({ outcome }) => outcome === id).length]),
    ),
    cells: results.map(cellJson),
  };
}

/** One cell as data. */
export function cellJson(result: CellResult): object {
  const { cell, ...shown } = result;
  return { ...cell, ...shown, rerun: rerunCommand(cell.id), trace: traceCommand(cell.id) };
}

/** What runs a cell alone, as a shell takes it. */
export function rerunCommand(id: string): string {
  return `pinhole matrix --cell ${id}`;
}

/** What traces it. */
export function traceCommand(id: string): string {
  return `${rerunCommand(id)} --trace '*' --trace-file cell.log`;
}
