/** Tables: a caption, scopes, numbers by their last digit, a head that stays in sight. */
import { breakable, Html, html } from './html.js';
import { scrollable } from './parts.js';

/** A column of a table over rows of type `Row`. */
export interface TableColumn<Row> {
  readonly head: Html | string;
  /** Right-aligned; zeros are dimmed. */
  readonly isNumber?: boolean;
  /** Text is escaped, and may break after underscores. */
  readonly cell: (row: Row) => Html | string;
}

export interface TableOptions<Row> {
  /** What a screen reader calls the table. */
  readonly label: string;
  /** Shown above it. */
  readonly caption?: string;
  /** The first one names the row. */
  readonly columns: readonly TableColumn<Row>[];
  readonly rows: readonly Row[];
  /** Attributes of a row, such as `id` or `data-outcome`; values are escaped. */
  readonly attributes?: (row: Row) => Readonly<Record<string, string>>;
}

/** A table that scrolls by itself where it is too wide. Without rows it says so. */
export function table<Row>(options: TableOptions<Row>): Html {
  const { label, caption, columns, rows, attributes } = options;
  if (rows.length === 0)
    return html`<p class="dim">${label}: none.</p>
`;
  const head = columns.map(
    ({ head: text, isNumber }) =>
      html`<th scope="col"${new Html(isNumber ? ' class="n"' : '')}>${text}</th>`,
  );
  const body = rows.map(
    (row) =>
      html`<tr${attributesOf(attributes?.(row) ?? {})}>${columns.map((column, at) => cellHtml(column, row, at === 0))}</tr>\n`,
  );
  return scrollable(
    label,
    html`<table>${caption === undefined ? undefined : html`<caption><span>${caption}</span></caption>`}
<thead><tr>${head}</tr></thead>
<tbody>
${body}</tbody></table>`,
  );
}

function cellHtml<Row>({ cell, isNumber }: TableColumn<Row>, row: Row, isFirst: boolean): Html {
  const value = cell(row);
  const content = typeof value === 'string' ? breakable(value) : value;
  if (isFirst) return html`<th scope="row">${content}</th>`;
  if (!isNumber) return html`<td>${content}</td>`;
  const isZero = /^0( B| \/ 0)?$/.test(String(value));
  return html`<td class="n${isZero ? ' zero' : ''}">${content}</td>`;
}

function attributesOf(attributes: Readonly<Record<string, string>>): Html[] {
  return Object.entries(attributes).map(([name, value]) => html` ${name}="${value}"`);
}
