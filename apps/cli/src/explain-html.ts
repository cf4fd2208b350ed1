import { formatSize } from '@pinhole/base';
import type { Answer, CostRow, Explanation } from '@pinhole/machine';
import { deviceCard, deviceTitle } from './explain-html-device.js';
import { answerMark } from './explain-marks.js';
import { rangeChart } from './report/chart-ranges.js';
import { breakable, type Html, html } from './report/html.js';
import { SEVERITY_MARKS } from './report/marks.js';
import { page, type Section } from './report/page.js';
import { badge, card, facts, note } from './report/parts.js';
import { figure } from './report/svg.js';
import { type TableColumn, table } from './report/table.js';

/** An explanation as one page, made by `command`. */
export function renderExplainHtml(explanation: Explanation, command: string): string {
  const { platform, kernels, contradictions, findings, devices } = explanation;
  const costs = costChart(explanation);
  const sections: (Section | undefined)[] = [
    { id: 'given', title: 'What was given', body: given(explanation) },
    contradictions.length === 0
      ? undefined
      : {
          id: 'contradictions',
          title: 'The inputs do not agree',
          body: html`${contradictions.map(({ what, one, other }) => note('bad', `${what}: ${one}; ${other}`))}`,
        },
    findings.length === 0
      ? undefined
      : { id: 'findings', title: 'What the inputs show', body: html`${findings.map(findingCard)}` },
    { id: 'overview', title: 'Overview', body: overview(explanation) },
    costs === undefined ? undefined : { id: 'costs', title: 'Hypercalls of a read', body: costs },
    kernels.length < 2
      ? undefined
      : {
          id: 'differences',
          title: `From ${kernels.join(' to ')}`,
          body: differences(explanation),
        },
    {
      id: 'devices',
      title: 'The devices',
      body: html`${devices.map((device) => deviceCard(device, kernels.length > 1))}`,
    },
    rest(explanation),
  ];
  return page({
    title: 'How each virtio device reaches memory',
    intro: html`<p>${platform}, ${kernels.join(' and ')}.</p>`,
    sections: sections.filter((section) => section !== undefined),
    command,
  });
}

function given({ facts: all }: Explanation): Html {
  return facts(
    all.map(({ what, value, from }) => [
      what,
      html`${breakable(value)} <span class="dim">(${from})</span>`,
    ]),
  );
}

type Finding = Explanation['findings'][number];

function findingCard({ id, severity, text, line, fix, source }: Finding): Html {
  const mark = SEVERITY_MARKS[severity];
  return card(
    html`${badge(mark)} ${breakable(id)}`,
    mark.tone,
    html`<p>${breakable(text)} <span class="dim">${source}</span></p>\n`,
    facts([
      ...(line === null ? [] : [['Where', `console line ${line}`] as const]),
      ...(fix === null ? [] : [['What to do', fix] as const]),
    ]),
  );
}

interface Row {
  readonly device: string;
  readonly answer: Answer;
}

// One row for each device, kernel and assumption.
function rowsOf({ devices }: Explanation): Row[] {
  return devices.flatMap((device) =>
    device.answers.map((answer) => ({ device: deviceTitle(device), answer })),
  );
}

function overview(explanation: Explanation): Html {
  const rows = rowsOf(explanation);
  const columns: TableColumn<Row>[] = [{ head: 'device', cell: ({ device }) => device }];
  if (explanation.kernels.length > 1) {
    columns.push({
      head: 'kernel',
      cell: ({ answer }) => html`<span class="nowrap">${answer.kernel}</span>`,
    });
  }
  if (rows.some(({ answer }) => answer.assuming !== null)) {
    columns.push({ head: 'if', cell: ({ answer }) => answer.assuming ?? '' });
  }
  columns.push(
    { head: 'path', cell: ({ answer }) => badge(answerMark(answer)) },
    ...MAPPING.flatMap(({ head, of }) =>
      sizesOf(rows)
        .filter(() => rows.some(({ answer }) => answer.cost?.rows.some((row) => of(row) > 0)))
        .map(
          (size): TableColumn<Row> => ({
            head: `${head}, ${formatSize(size)}`,
            isNumber: true,
            cell: ({ answer }) => countOf(answer, size, of)?.toString() ?? '',
          }),
        ),
    ),
    {
      head: 'device reaches',
      isNumber: true,
      cell: ({ answer: { reach } }) => (reach.bytes === null ? '' : formatSize(reach.bytes)),
    },
    {
      head: 'risks',
      cell: ({ answer: { risks } }) =>
        html`${(['error', 'warning', 'note'] as const)
          .filter((severity) => risks.some((risk) => risk.severity === severity))
          .map((severity) => html`${badge(SEVERITY_MARKS[severity])} `)}`,
    },
  );
  return table({
    label: 'Table of devices',
    caption:
      'Hypercalls and IOMMU maps: of one read of that size. Nothing stands where it was not counted.',
    columns,
    rows,
  });
}

function sizesOf(rows: readonly Row[]): number[] {
  const sizes = rows.flatMap(({ answer }) => (answer.cost?.rows ?? []).map(({ size }) => size));
  return [...new Set(sizes)].sort((a, b) => a - b);
}

type Count = (row: CostRow) => number;

const hcalls: Count = (row) => row.hcalls;

/** What maps cost a guest: the one or the other. */
const MAPPING: readonly { readonly head: string; readonly of: Count }[] = [
  { head: 'hypercalls', of: hcalls },
  { head: 'maps', of: ({ iommu }) => iommu.maps },
];

function countOf({ cost }: Answer, size: number, of: Count): number | undefined {
  const row = cost?.rows.find((one) => one.size === size);
  return row === undefined ? undefined : of(row);
}

// None where no read costs a hypercall.
function costChart(explanation: Explanation): Html | undefined {
  const rows = rowsOf(explanation).filter(({ answer }) => answer.cost !== null);
  const sizes = sizesOf(rows);
  if (!rows.some(({ answer }) => sizes.some((size) => (countOf(answer, size, hcalls) ?? 0) > 0))) {
    return undefined;
  }
  return figure(
    rangeChart({
      id: 'costs-chart',
      title: 'Hypercalls of one read, by device and size',
      axis: 'hypercalls',
      parts: sizes.map((size) => `read of ${formatSize(size)}`),
      groups: rows.map(({ device, answer }) => ({
        label: explanation.kernels.length > 1 ? `${device}, ${answer.kernel}` : device,
        values: sizes.map((size) => {
          const count = countOf(answer, size, hcalls);
          return count === undefined ? null : { low: count, mid: count, high: count };
        }),
      })),
    }),
  );
}

function differences({ differences: all, kernels }: Explanation): Html {
  if (all.length === 0) return html`<p>Nothing changes.</p>`;
  return table({
    label: 'Table of differences',
    columns: [
      {
        head: 'device',
        cell: ({ device, assuming }) => (assuming === null ? device : `${device}, if ${assuming}`),
      },
      { head: 'what', cell: ({ what }) => what },
      ...kernels.map((kernel) => ({
        head: kernel,
        cell: ({ values }: (typeof all)[number]) =>
          valueHtml(values.find((value) => value.kernel === kernel)?.value ?? ''),
      })),
    ],
    rows: all,
  });
}

// Of several lines, each is one thing.
function valueHtml(value: string): Html {
  const all = value.split('\n');
  if (all.length === 1) return breakable(value);
  return html`<ul>${all.map((line) => html`<li>${breakable(line)}</li>`)}</ul>`;
}

function rest({ notUnderstood, notes }: Explanation): Section | undefined {
  if (notUnderstood.length === 0 && notes.length === 0) return undefined;
  const words = table({
    label: 'Words that were not understood',
    columns: [
      { head: 'words', cell: ({ text }) => html`<code>${text}</code>` },
      {
        head: 'effect',
        cell: ({ effect }) => (effect === 'none' ? 'none on the answer' : 'may matter'),
      },
      { head: 'why', cell: ({ why }) => why },
    ],
    rows: notUnderstood,
  });
  return {
    id: 'left-out',
    title: 'What the answer leaves out',
    body: html`${notUnderstood.length === 0 ? undefined : words}${notes.map((text) => note('info', text))}`,
  };
}
