import type { SweepHeader, SweepRow } from '@pinhole/machine';
import { type Html, html } from './report/html.js';
import { page } from './report/page.js';
import { badge, facts, note } from './report/parts.js';
import { figure } from './report/svg.js';
import { table } from './report/table.js';
import { sweepChart } from './sweep-chart.js';
import { SWEEP_NOTE, sweepMark, sweepTableColumns } from './sweep-output.js';

/** What the page says besides the rows. */
export interface SweepHtmlOptions {
  /** What made the page. */
  readonly command: string;
}

/** What is drawn, as far as it was counted or estimated. */
const METRICS = ['nsMid', 'throughputMid', 'hcallsPerRequest', 'translationsPerRequest'] as const;

/** A sweep as one page. */
export function renderSweepHtml(
  header: SweepHeader,
  rows: readonly SweepRow[],
  { command }: SweepHtmlOptions,
): string {
  const { axes, points, title } = header;
  const varied = axes.map(({ path }) => path).join(' and ');
  return page({
    title: title === '' ? 'Sweep' : `Sweep: ${title}`,
    intro: html`<p>${rows.length} of ${points} points${varied === '' ? '' : `, over ${varied}`}. ${SWEEP_NOTE}</p>
${failures(rows)}`,
    sections: [
      { id: 'charts', title: 'Charts', body: charts(header, rows) },
      { id: 'points', title: 'Points', body: pointTable(header, rows) },
      { id: 'sweep', title: 'The sweep', body: about(header) },
    ],
    command,
  });
}

function failures(rows: readonly SweepRow[]): Html {
  const failed = rows.filter(({ error }) => error !== null);
  const shown = failed
    .slice(0, 10)
    .map(({ point, error }) => note('bad', `Point ${point}: ${error}`));
  const more = failed.length - shown.length;
  return html`${shown}${more > 0 ? html`<p>And ${more} more points with an error.</p>` : undefined}`;
}

function charts(header: SweepHeader, rows: readonly SweepRow[]): Html {
  const shown = METRICS.filter((name) =>
    rows.some((row) => typeof row[name] === 'number' && row[name] !== 0),
  );
  if (shown.length === 0) return html`<p>No point has anything to draw.</p>`;
  return html`${shown.map((name) => {
    const chart = sweepChart(header, rows, name);
    return figure(chart, chart.title);
  })}`;
}

function pointTable({ axes }: SweepHeader, rows: readonly SweepRow[]): Html {
  return table({
    label: 'Table of points',
    columns: [
      { head: 'point', cell: ({ point }: SweepRow) => String(point) },
      ...sweepTableColumns(axes, rows).map((column) =>
        column.head === 'outcome' ? { ...column, cell: outcomeHtml } : column,
      ),
    ],
    rows,
  });
}

function outcomeHtml(row: SweepRow): Html {
  const mark = sweepMark(row);
  return mark === undefined ? html`${String(row.error ?? '')}` : badge(mark);
}

function about({ axes, scenario, costs, shard }: SweepHeader): Html {
  return facts([
    ...axes.map(({ path, values }) => [path, values.join(', ')] as const),
    ['scenario', scenario],
    ...(costs === null ? [] : [['costs', `${costs.preset}, ${costs.digest}`] as const]),
    ...(shard === null ? [] : [['shard', JSON.stringify(shard)] as const]),
  ]);
}
