import { formatSize } from '@pinhole/base';
import type { RunReport } from '@pinhole/machine';
import {
  type ComparedPath,
  costText,
  dataText,
  negotiatedText,
  setupText,
} from './compare-path.js';
import { type Html, html } from './report/html.js';
import { OUTCOME_MARKS } from './report/marks.js';
import { badge, card, counters, facts, fold, note, steps } from './report/parts.js';

/** All about one path: verdict, why, warnings; the steps and every counter folded away. */
export function pathCard(path: ComparedPath): Html {
  const { number, report } = path;
  const { decision, verdict, machine, negotiated } = report;
  const mark = OUTCOME_MARKS[verdict.outcome];
  const setup = setupText(report);
  const costs = costText(path);
  return card(
    `${number}. ${report.title}`,
    mark.tone,
    html`<p>${badge(mark)}: ${verdict.text}</p>\n`,
    html`${notes(report)}`,
    facts([
      ['Negotiated', negotiatedText(report)],
      ['DMA ops', decision.dmaOps],
      ['Because', decision.because],
      ['Device', decision.device],
      ['Data', dataText(report)],
      ...(setup === '' ? [] : [['Set-up', setup] as const]),
      ...(costs === '' ? [] : [['Time', costs] as const]),
      [
        'Machine',
        `${machine.arch}, ${formatSize(machine.memory)}${machine.secure ? ', secure guest' : ''}, ` +
          `QEMU ${machine.qemu}, ${machine.kernel}, policy ${machine.policy}`,
      ],
    ]),
    fold(
      `Decision steps and counters of path ${number}`,
      html`<h4>Decision steps</h4>\n`,
      steps(decision.steps.map((text) => ({ text }))),
      html`${
        negotiated === null
          ? undefined
          : html`<h4>Feature bits</h4>\n<p><code>${negotiated.names.join(' ')}</code></p>\n`
      }`,
      html`<h4>Counters</h4>\n`,
      counters(numbers(report).map(([name, value]) => [name, figure(name, value)])),
    ),
  );
}

function notes({ warnings, deviceErrors, data }: RunReport): Html[] {
  const { firstWrong } = data;
  return [
    ...warnings.map((text) => note('warn', html`Warning: <code>${text}</code>`)),
    ...deviceErrors.map((text) => note('bad', html`Device error: <code>${text}</code>`)),
    ...(firstWrong === undefined
      ? []
      : [
          note(
            'bad',
            html`First wrong byte: offset ${firstWrong.offset}, expected <code>${firstWrong.expected}</code>, found <code>${firstWrong.found}</code>`,
          ),
        ]),
  ];
}

function figure(name: string, value: number): string {
  const size = value >= 1024 && /bytes|reach\./i.test(name) ? ` (${formatSize(value)})` : '';
  return `${Number.isInteger(value) ? value : value.toFixed(2)}${size}`;
}

// Every number that the report has: a counter added to it shows up by itself.
function numbers({ data, counters: counted, reach }: RunReport): [name: string, value: number][] {
  return leaves({ ...data, ...counted, reach }, '');
}

function leaves(tree: object, prefix: string): [name: string, value: number][] {
  return Object.entries(tree).flatMap(([key, value]): [string, number][] => {
    if (key === 'firstWrong') return [];
    if (typeof value === 'number') return [[prefix + key, value]];
    return typeof value === 'object' && value !== null ? leaves(value, `${prefix}${key}.`) : [];
  });
}
