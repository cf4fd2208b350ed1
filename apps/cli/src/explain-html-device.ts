import type { Answer, Cost, DeviceExplanation, Fix, Risk } from '@pinhole/machine';
import { readTimesText } from './costs.js';
import { costColumns } from './explain-costs.js';
import { answerMark } from './explain-marks.js';
import { breakable, type Html, html } from './report/html.js';
import { SEVERITY_MARKS, type Tone } from './report/marks.js';
import { badge, card, facts, fold, note, steps } from './report/parts.js';
import { table } from './report/table.js';

/** The name of a device, and its driver where the name does not say it. */
export function deviceTitle({ name, driver }: DeviceExplanation): string {
  return name.startsWith(driver) ? name : `${name} (${driver})`;
}

/** All about one device: its path under each kernel and assumption, with steps, costs, risks, fixes. */
export function deviceCard(device: DeviceExplanation, namesKernel: boolean): Html {
  const { kind, place, transport, answers } = device;
  return card(
    breakable(deviceTitle(device)),
    worst(answers),
    facts([
      ['Kind', kind],
      ['Transport', transport],
      ['Place', place],
    ]),
    ...answers.map((answer) => answerHtml(answer, namesKernel, deviceTitle(device))),
  );
}

function worst(answers: readonly Answer[]): Tone {
  const tones = answers.map((answer) => answerMark(answer).tone);
  return (['bad', 'warn'] as const).find((tone) => tones.includes(tone)) ?? 'good';
}

function answerHtml(answer: Answer, namesKernel: boolean, device: string): Html {
  const { kernel, assuming, reach, risks, fixes, cost } = answer;
  const when = [
    ...(namesKernel ? [kernel] : []),
    ...(assuming === null ? [] : [`if ${assuming}`]),
  ].join(', ');
  return html`<h4>${when === '' ? '' : `${when}: `}${badge(answerMark(answer))}</h4>
${facts([['Reach', reach.text]])}
${risks.map(riskHtml)}
${fixes.map(fixHtml)}
${costHtml(cost, [device, when].filter(Boolean).join(', '))}
${fold(
  `The ${answer.steps.length} steps of the decision`,
  steps(
    answer.steps.map(({ side, text, fact, source }) => ({
      text: `${side === 'qemu' ? 'QEMU' : 'guest'}: ${text}`,
      because: `because ${fact} ${source}`.trim(),
    })),
  ),
)}`;
}

function riskHtml({ severity, text, source }: Risk): Html {
  const mark = SEVERITY_MARKS[severity];
  return note(
    mark.tone,
    html`${badge(mark)}: ${breakable(text)} <span class="dim">${source}</span>`,
  );
}

function fixHtml({ change, effect, isVerified }: Fix): Html {
  const how = isVerified ? ' (the model was run with it)' : '';
  return note('good', html`<b>Fix:</b> <code>${change}</code>: ${breakable(effect)}${how}`);
}

function costHtml(cost: Cost | null, label: string): Html {
  if (cost === null) return html`<p class="dim">No cost was counted: no I/O goes through.</p>`;
  return html`${table({
    label: `Costs, ${label}`,
    caption: 'What one read costs, counted in a run of the model',
    columns: costColumns(cost).map(({ head, of }, at) => ({ head, isNumber: at > 0, cell: of })),
    rows: cost.rows,
  })}${timesHtml(cost)}${cost.notes.map((text) => html`<p class="dim">${text}</p>\n`)}`;
}

function timesHtml({ times }: Cost): Html | undefined {
  if (times === null) return undefined;
  return html`<p>Time:</p>
<ul>${readTimesText(times).map((text) => html`<li>${text}</li>`)}</ul>
`;
}
