import type { CellResult } from '@pinhole/machine';

export function renderMatrixHtml(
  _results: readonly CellResult[],
  _options: { readonly planned: number },
): string {
  return '';
}
