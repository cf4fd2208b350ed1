import { formatSize, hex } from '@pinhole/base';
import type { Occupancy, ProfiledWindow, WindowPicture } from '@pinhole/machine';
import { lineChart } from './report/chart-lines.js';
import { type Html, html } from './report/html.js';
import { type Chart, chart } from './report/svg.js';
import { type TableColumn, table } from './report/table.js';

/** Rules of the pictures of windows. */
export const WINDOW_STYLE = `
svg line.edge { stroke: var(--bg); stroke-width: 3; }
.pool0 { fill: var(--c0); fill-opacity: .12; } .pool1 { fill: var(--c3); fill-opacity: .14; }
.poolL { fill: var(--c2); fill-opacity: .14; }
.used0 { fill: var(--c0); } .used1 { fill: var(--c3); } .usedL { fill: var(--c2); }
.gone { fill: var(--c1); }
.f1 { fill-opacity: .4; } .f2 { fill-opacity: .6; } .f3 { fill-opacity: .8; }
rect.mark { fill: none; stroke: var(--fg); stroke-width: 1.2; }
`;

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

/** Entries in use over the lines of QEMU's log. */
export function occupancyChart(
  id: string,
  { live, given, step }: Occupancy,
  { lines, name }: { readonly lines: number; readonly name: string },
): Chart {
  const pointsOf = (entries: readonly number[]): { x: number; y: number }[] =>
    [...entries, entries.at(-1) ?? 0].map((y, at) => ({ x: Math.min(at * step, lines), y }));
  return lineChart({
    id,
    title: `${name}: entries in use over the lines of QEMU's log`,
    x: { label: "line of QEMU's log" },
    y: { label: 'entries' },
    series: [
      { label: 'in use', points: pointsOf(live) },
      ...(given.some((entries) => entries > 0)
        ? [{ label: 'of them given up by the driver', points: pointsOf(given) }]
        : []),
    ],
    shape: 'area',
  });
}

/** Which entries are mapped: cells by rows, pools as bands, given-up entries apart. */
export function windowPicture(
  id: string,
  window: ProfiledWindow,
  picture: WindowPicture,
  name: string,
): Chart {
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
    return html`<rect class="mark" x="${LEFT + (cell % columns) * CELL + 1.5}" y="${TOP + Math.floor(cell / columns) * CELL + 1.5}" width="${CELL - 3}" height="${CELL - 3}"/>`;
  });
  const labels = Array.from({ length: Math.ceil(rows / 4) }, (_, i) => {
    const entry = i * 4 * columns * entriesPerCell;
    return html`<text class="tick" x="${LEFT - 8}" y="${TOP + i * 4 * CELL + 10}" text-anchor="end">${hex(entry)}</text>`;
  });
  const names = window.pools.map(({ start }, i) => {
    const y = TOP + Math.floor(start / entriesPerCell / columns) * CELL;
    const edge =
      i === 0
        ? undefined
        : html`<line class="edge" x1="${LEFT}" y1="${y}" x2="${LEFT + columns * CELL}" y2="${y}"/>`;
    return html`${edge}<text class="tick" x="${LEFT + columns * CELL + 8}" y="${y + 10}">${poolName(window, i)}</text>`;
  });
  const width = LEFT + columns * CELL + RIGHT;
  const height = TOP + rows * CELL + 4;
  const title = `${name}: the entries that were mapped when it was fullest`;
  const description = `After line ${line} of QEMU's log ${live} of ${window.size} entries were mapped${leaked > 0 ? `, ${leaked} of them given up by the driver` : ''}. One cell stands for ${entriesPerCell} entries. The table has the figures by pool.`;
  return chart(
    { id, title },
    { description, height, width },
    html`${[...bands, ...used].map(rect)}
${names}${marks}${labels}`,
  );
}

/** What the colours stand for. */
export function pictureLegend(
  { pools, busOffset }: ProfiledWindow,
  { entriesPerCell, leaked }: WindowPicture,
): Html {
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
      html`<li><svg aria-hidden="true" width="14" height="14" viewBox="0 0 14 14"><rect class="${color}" x="1.5" y="1.5" width="11" height="11"/></svg>${text}</li>`,
  );
  const cell =
    entriesPerCell === 1
      ? 'One cell is one entry.'
      : `One cell is ${entriesPerCell} entries; the stronger its colour, the more of them are mapped.`;
  return html`<ul class="legend">${swatches}<li>${cell}</li></ul>
`;
}

/** The pools in figures; nothing for a window without. */
export function poolTable(window: ProfiledWindow, picture: WindowPicture): Html | undefined {
  const { pools, pageShift } = window;
  const { entriesPerCell, mapped, given } = picture;
  if (pools.length === 0) return undefined;
  const rows = pools.map((pool, at) => ({ ...pool, name: poolName(window, at) }));
  const sum = (cells: readonly number[], { start, end }: Pool): string =>
    cells
      .slice(Math.floor(start / entriesPerCell), Math.ceil(end / entriesPerCell))
      .reduce((total, entries) => total + entries, 0)
      .toLocaleString('en');
  const number = (head: string, cell: (pool: Pool) => string): TableColumn<Pool> => ({
    head,
    isNumber: true,
    cell,
  });
  return table({
    label: 'Table of pools',
    columns: [
      { head: 'pool', cell: ({ name }) => name },
      number('entries', ({ start, end }) => `${hex(start)} to ${hex(end - 1)}`),
      number('of the bus', ({ start, end }) => formatSize((end - start) * 2 ** pageShift)),
      number('how many', ({ start, end }) => (end - start).toLocaleString('en')),
      number('mapped', (pool) => sum(mapped, pool)),
      number('given up', (pool) => sum(given, pool)),
    ],
    rows,
  });
}

type Pool = ProfiledWindow['pools'][number] & { readonly name: string };

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

function rect({ row, column, length, className }: Run): Html {
  return html`<rect class="${className}" x="${LEFT + column * CELL}" y="${TOP + row * CELL}" width="${length * CELL}" height="${CELL}"/>`;
}
