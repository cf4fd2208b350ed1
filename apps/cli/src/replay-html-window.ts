import { formatSize, hex } from '@pinhole/base';
import type { ProfiledWindow, WindowPicture } from '@pinhole/machine';
import { escapeHtml } from './compare-html-text.js';

const COLUMNS = 64;
const CELL = 11;
const LEFT = 84;
const RIGHT = 92;
const TOP = 4;

interface Run {
  readonly row: number;
  readonly column: number;
  length: number;
  readonly className: string;
}

/** Which entries are mapped: cells by rows, pools as bands, given-up entries apart. */
export function windowPicture(
  id: string,
  window: ProfiledWindow,
  picture: WindowPicture,
  name: string,
): string {
  const { entriesPerCell, mapped, given, line, live, leaked } = picture;
  const cells = mapped.length;
  const columns = Math.min(COLUMNS, cells);
  const rows = Math.ceil(cells / columns);
  const poolOf = (cell: number): number =>
    window.pools.findIndex(({ end }) => cell * entriesPerCell < end);
  const bands = runs(cells, columns, (cell) => `pool${poolClass(window, poolOf(cell))}`);
  const used = runs(cells, columns, (cell) => {
    const entries = mapped[cell] ?? 0;
    if (entries === 0) return '';
    const color = (given[cell] ?? 0) > 0 ? 'gone' : `used${poolClass(window, poolOf(cell))}`;
    return `${color} f${Math.ceil((entries / entriesPerCell) * 4)}`;
  });
  const special = new Set([
    ...(window.busOffset === 0n ? [0] : []),
    ...window.pools.map(({ end }) => end - 1),
  ]);
  const marks = [...special].map((entry) => {
    const cell = Math.floor(entry / entriesPerCell);
    return `<rect class="mark" x="${LEFT + (cell % columns) * CELL + 1.5}" y="${TOP + Math.floor(cell / columns) * CELL + 1.5}" width="${CELL - 3}" height="${CELL - 3}"/>`;
  });
  const labels = Array.from({ length: Math.ceil(rows / 4) }, (_, i) => {
    const entry = i * 4 * columns * entriesPerCell;
    return `<text class="tick" x="${LEFT - 8}" y="${TOP + i * 4 * CELL + 10}" text-anchor="end">${hex(entry)}</text>`;
  });
  const names = window.pools.map(({ start }, i) => {
    const y = TOP + Math.floor(start / entriesPerCell / columns) * CELL;
    const edge =
      i === 0
        ? ''
        : `<line class="edge" x1="${LEFT}" y1="${y}" x2="${LEFT + columns * CELL}" y2="${y}"/>`;
    return `${edge}<text class="tick" x="${LEFT + columns * CELL + 8}" y="${y + 10}">${poolName(window, i)}</text>`;
  });
  const width = LEFT + columns * CELL + RIGHT;
  const height = TOP + rows * CELL + 4;
  const title = `${name}: the entries that were mapped when it was fullest`;
  const description = `After line ${line} of QEMU's log ${live} of ${window.size} entries were mapped${leaked > 0 ? `, ${leaked} of them given up by the driver` : ''}. One cell stands for ${entriesPerCell} entries. The table has the figures by pool.`;
  return `<div class="scroll" role="region" aria-label="${escapeHtml(title)}" tabindex="0">
<svg class="picture" role="img" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" aria-labelledby="${id}-title ${id}-desc">
<title id="${id}-title">${escapeHtml(title)}</title>
<desc id="${id}-desc">${escapeHtml(description)}</desc>
${[...bands, ...used].map(rect).join('')}
${names.join('')}${marks.join('')}${labels.join('')}
</svg></div>`;
}

/** What the colours stand for. */
export function pictureLegend(
  { pools, busOffset }: ProfiledWindow,
  { entriesPerCell, leaked }: WindowPicture,
): string {
  const small = pools.length - 1;
  const items = [
    ...(small > 0 ? [['used0', small === 1 ? 'small pool' : 'small pools 0, 2, ...']] : []),
    ...(small > 1 ? [['used1', 'small pools 1, 3, ...']] : []),
    ...(pools.length > 0 ? [['usedL', 'large pool (more than 15 entries at once)']] : []),
    ...(pools.length === 0 ? [['used0', 'mapped']] : []),
    ...(leaked > 0 ? [['gone', 'given up by the driver, still mapped']] : []),
    ['mark', `${busOffset === 0n ? 'entry 0 and ' : ''}the last of each pool: never handed out`],
  ].filter(([color]) => color !== 'mark' || pools.length > 0);
  const swatches = items.map(
    ([color = '', text = '']) =>
      `<li><svg aria-hidden="true" width="14" height="14" viewBox="0 0 14 14"><rect class="${color}" x="1.5" y="1.5" width="11" height="11"/></svg>${escapeHtml(text)}</li>`,
  );
  const cell =
    entriesPerCell === 1
      ? 'One cell is one entry.'
      : `One cell is ${entriesPerCell} entries; the stronger its colour, the more of them are mapped.`;
  return `<ul class="legend">${swatches.join('')}<li>${cell}</li></ul>`;
}

/** The pools in figures. */
export function poolTable(window: ProfiledWindow, picture: WindowPicture): string {
  const { pools, pageShift } = window;
  const { entriesPerCell, mapped, given } = picture;
  if (pools.length === 0) return '';
  const sum = (cells: readonly number[], start: number, end: number): number =>
    cells
      .slice(Math.floor(start / entriesPerCell), Math.ceil(end / entriesPerCell))
      .reduce((total, entries) => total + entries, 0);
  const rows = pools.map(({ start, end }, i) => {
    const size = formatSize((end - start) * 2 ** pageShift);
    const figures = [end - start, sum(mapped, start, end), sum(given, start, end)];
    return `<tr><th scope="row">${poolName(window, i)}</th><td class="n">${hex(start)} to ${hex(end - 1)}</td><td class="n">${escapeHtml(size)}</td>${figures.map((count) => `<td class="n${count === 0 ? ' zero' : ''}">${count.toLocaleString('en')}</td>`).join('')}</tr>`;
  });
  return `<div class="scroll" role="region" aria-label="Table of pools" tabindex="0"><table><thead><tr><th scope="col">pool</th><th scope="col" class="n">entries</th><th scope="col" class="n">of the bus</th><th scope="col" class="n">how many</th><th scope="col" class="n">mapped</th><th scope="col" class="n">given up</th></tr></thead><tbody>${rows.join('')}</tbody></table></div>`;
}

function poolName({ pools }: ProfiledWindow, i: number): string {
  if (i === pools.length - 1) return 'large pool';
  return pools.length === 2 ? 'small pool' : `small pool ${i}`;
}

function poolClass({ pools }: ProfiledWindow, pool: number): string {
  if (pools.length > 0 && pool === pools.length - 1) return 'L';
  return String(Math.max(0, pool) % 2);
}

// Neighbours of one row that look the same are one rectangle.
function runs(cells: number, columns: number, classOf: (cell: number) => string): Run[] {
  const found: Run[] = [];
  for (let cell = 0; cell < cells; cell += 1) {
    const className = classOf(cell);
    const [row, column] = [Math.floor(cell / columns), cell % columns];
    const last = found.at(-1);
    const isNext = last?.row === row && last.column + last.length === column;
    if (isNext && last.className === className) last.length += 1;
    else if (className !== '') found.push({ row, column, length: 1, className });
  }
  return found;
}

function rect({ row, column, length, className }: Run): string {
  return `<rect class="${className}" x="${LEFT + column * CELL}" y="${TOP + row * CELL}" width="${length * CELL}" height="${CELL}"/>`;
}
