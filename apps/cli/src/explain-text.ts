/** An explanation for people: prose and small tables, at any width from 40 columns on. */
import type {
  Answer,
  Cost,
  DeviceExplanation,
  Difference,
  Explanation,
  Risk,
} from '@pinhole/machine';
import { readTimesText } from './costs.js';
import { costColumns } from './explain-costs.js';
import { answerMark } from './explain-marks.js';
import { SEVERITY_MARKS, type Tone } from './report/marks.js';
import { type Colors, colorsIf, markText, paint, type TerminalOptions } from './terminal-style.js';
import { plain, wrap } from './terminal-text.js';

/** Prose is not wider than this, however wide the terminal. */
const MAX_WIDTH = 110;
/** Below this, a comparison goes one value a line. */
const SIDE_BY_SIDE = 70;

/** The whole of it. */
export function renderExplanation(explanation: Explanation, options: TerminalOptions): string {
  const colors = colorsIf(options.color);
  const page = new Page(Math.min(options.width, MAX_WIDTH), colors);
  page.facts(explanation);
  page.contradictions(explanation);
  page.findings(explanation);
  page.differences(explanation);
  for (const device of explanation.devices) page.device(device, explanation.kernels);
  page.notUnderstood(explanation);
  for (const note of explanation.notes) page.item('note', note);
  return `${page.lines
    .join('\n')
    .replace(/\n{3,}/g, '\n\n')
    .trim()}\n`;
}

class Page {
  readonly lines: string[] = [];
  readonly #width: number;
  readonly #colors: Colors;

  constructor(width: number, colors: Colors) {
    this.#width = width;
    this.#colors = colors;
  }

  facts({ platform, facts, kernels }: Explanation): void {
    this.#title(`${platform}, ${kernels.join(' and ')}`);
    for (const { what, value, from } of facts)
      this.#wrap(`${what}: ${value} (${from})`, '    ', '  ');
    this.#gap();
  }

  contradictions({ contradictions }: Explanation): void {
    if (contradictions.length === 0) return;
    this.#title('The inputs do not agree', 'bad');
    for (const { what, one, other } of contradictions) {
      this.#wrap(`${what}: ${one}; ${other}`, '    ', '  ', 'bad');
    }
    this.#gap();
  }

  findings({ findings }: Explanation): void {
    if (findings.length === 0) return;
    this.#title('What the inputs show');
    for (const { severity, text, line, fix, source } of findings) {
      const where = line === null ? '' : `console line ${line}: `;
      this.item(severity, `${where}${text} ${source}`);
      if (fix !== null) this.#wrap(fix, '           ', '    fix:   ', 'good');
    }
    this.#gap();
  }

  device(device: DeviceExplanation, kernels: readonly string[]): void {
    const { name, kind, driver, place, answers } = device;
    this.#title(`${name} (${name.startsWith(driver) ? '' : `${driver}, `}${kind}), ${place}`);
    for (const answer of answers) this.#answer(answer, kernels.length > 1);
  }

  differences({ differences, kernels }: Explanation): void {
    if (kernels.length < 2) return;
    this.#title(`From ${kernels.join(' to ')}`);
    if (differences.length === 0) this.#wrap('nothing changes', '    ', '  ');
    const isWide = this.#width >= SIDE_BY_SIDE && kernels.length === 2;
    for (const difference of differences) {
      if (isWide) this.#sideBySide(difference);
      else this.#oneBelowAnother(difference);
    }
    this.#gap();
  }

  notUnderstood({ notUnderstood }: Explanation): void {
    const groups = [
      ['Not understood, and may matter', 'may-matter', 'warn'],
      ['Not read: without effect on the answer', 'none', 'none'],
    ] as const;
    for (const [title, effect, tone] of groups) {
      const words = notUnderstood.filter((word) => word.effect === effect);
      if (words.length === 0) continue;
      this.#title(title, tone);
      for (const { text, why } of words) this.#wrap(`${text}: ${why}`, '    ', '  ');
      this.#gap();
    }
  }

  item(severity: Risk['severity'], text: string): void {
    const mark = SEVERITY_MARKS[severity];
    const tone = mark.tone === 'info' ? 'none' : mark.tone;
    this.#wrap(text, '    ', `  ${markText(mark)}: `, tone);
  }

  #answer(answer: Answer, namesKernel: boolean): void {
    const { steps, cost, reach, risks, fixes, kernel, assuming } = answer;
    const when = [namesKernel ? kernel : undefined, assuming ? `if ${assuming}` : undefined]
      .filter((text) => text !== undefined)
      .join(', ');
    const mark = answerMark(answer);
    this.#wrap(markText(mark), '    ', `  ${when === '' ? '' : `${when}: `}`, mark.tone, true);
    for (const [at, { side, text, fact, source }] of steps.entries()) {
      const head = `  ${String(at + 1).padStart(2)}. `;
      this.#wrap(`${side === 'qemu' ? 'QEMU' : 'guest'}: ${text}`, '      ', head);
      this.#wrap(`because ${fact}${source === '' ? '' : ` ${source}`}`, '      ', '      ', 'dim');
    }
    this.#cost(cost);
    this.#wrap(reach.text, '         ', '  reach: ');
    for (const { severity, text, source } of risks) this.item(severity, `${text} ${source}`);
    for (const { change, effect, isVerified } of fixes) {
      const how = isVerified ? ' (the model was run with it)' : '';
      this.#wrap(`${change}: ${effect}${how}`, '       ', '  fix: ', 'good');
    }
    this.#gap();
  }

  #cost(cost: Cost | null): void {
    if (cost === null) {
      this.#wrap('none counted: no I/O goes through', '        ', '  cost: ');
      return;
    }
    this.#wrap('of one read, counted in a run of the model', '        ', '  cost: ');
    const columns = costColumns(cost);
    const widths = columns.map(({ head, of }) =>
      Math.max(head.length, ...cost.rows.map((row) => of(row).length)),
    );
    // As many as there is room for; the others go below.
    const used = widths.map((_, at) => widths.slice(0, at + 1).reduce((sum, w) => sum + w + 2, 2));
    const fitting = used.filter((width) => width <= this.#width).length;
    for (const row of [undefined, ...cost.rows]) {
      const cells = columns.slice(0, fitting).map(({ head, of }) => (row ? of(row) : head));
      const line = cells.map((cell, at) => cell.padStart(widths[at] ?? 0)).join('  ');
      this.lines.push(`    ${line}`.trimEnd());
    }
    for (const { head, of } of columns.slice(fitting)) {
      this.#wrap(`${head}: ${cost.rows.map(of).join(', ')}`, '      ', '    ');
    }
    const times = cost.times === null ? [] : readTimesText(cost.times);
    for (const [at, text] of times.entries()) {
      this.#wrap(text, '          ', at === 0 ? '    time: ' : '          ');
    }
    for (const note of cost.notes) this.#wrap(note, '      ', '    ', 'dim');
  }

  #sideBySide({ device, assuming, what, values }: Difference): void {
    this.#wrap(`${device}${assuming === null ? '' : `, if ${assuming}`}: ${what}`, '    ', '  ');
    const column = Math.floor((this.#width - 7) / 2);
    const [left = [], right = []] = values.map(({ kernel, value }) =>
      itemsOf(kernel, value).flatMap(({ text, isItem }) =>
        isItem ? wrap(plain(text), column, '    ', '  - ') : wrap(plain(text), column),
      ),
    );
    for (let at = 0; at < Math.max(left.length, right.length); at += 1) {
      const one = (left[at] ?? '').padEnd(column);
      const two = right[at] ?? '';
      this.lines.push(
        `    ${this.#colors.cyan(one)} ${this.#colors.dim('|')} ${this.#colors.yellow(two)}`.trimEnd(),
      );
    }
  }

  #oneBelowAnother({ device, assuming, what, values }: Difference): void {
    this.#wrap(`${device}${assuming === null ? '' : `, if ${assuming}`}: ${what}`, '    ', '  ');
    for (const [at, { kernel, value }] of values.entries()) {
      const tone = at === 0 ? 'info' : 'warn';
      for (const { text, isItem } of itemsOf(kernel, value)) {
        this.#wrap(text, isItem ? '        ' : '      ', isItem ? '      - ' : '    ', tone);
      }
    }
  }

  #title(text: string, tone?: Tone): void {
    this.#wrap(text, '  ', '', tone, true);
  }

  #gap(): void {
    this.lines.push('');
  }

  #wrap(
    text: string,
    indent: string,
    head: string,
    tone: Tone | 'dim' = 'none',
    isBold = false,
  ): void {
    for (const line of wrap(plain(text), this.#width, indent, head)) {
      const painted = tone === 'dim' ? this.#colors.dim(line) : paint(tone, line, this.#colors);
      this.lines.push(isBold ? this.#colors.bold(painted) : painted);
    }
  }
}

// A value of several lines is a list below its kernel.
function itemsOf(kernel: string, value: string): { text: string; isItem: boolean }[] {
  const lines = value.split('\n');
  if (lines.length === 1) return [{ text: `${kernel}: ${value}`, isItem: false }];
  const items = lines.map((text) => ({ text, isItem: true }));
  return [{ text: `${kernel}:`, isItem: false }, ...items];
}
