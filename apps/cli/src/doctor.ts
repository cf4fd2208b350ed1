import { type Check, type Status, selfChecks, systemChecks } from './doctor-checks.js';
import { toolChecks } from './doctor-tools.js';
import { EXIT } from './exit.js';
import { showsColor, terminalWidth } from './terminal.js';
import { colorsIf } from './terminal-style.js';
import { wrap } from './terminal-text.js';
import { VERSION } from './version.js';

/** `pinhole doctor`: is everything there, and does it work? */
export async function doctor(options: { format: 'table' | 'json' }): Promise<void> {
  const [system, tools] = await Promise.all([systemChecks(), toolChecks()]);
  const checks = [...system, ...(await selfChecks()), ...tools];
  const isOk = checks.every(({ status }) => status !== 'failed');
  if (options.format === 'json') {
    const report = { schemaVersion: 1, version: VERSION, ok: isOk, checks };
    process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
  } else {
    process.stdout.write(render(checks, isOk));
  }
  if (!isOk) process.exitCode = EXIT.FAILED;
}

const WORDS: Readonly<Record<Status, string>> = {
  ok: 'OK',
  warning: 'note',
  missing: 'missing',
  failed: 'FAILED',
};

function render(checks: readonly Check[], isOk: boolean): string {
  const { green, yellow, red } = colorsIf(showsColor());
  const colors: Readonly<Record<Status, (text: string) => string>> = {
    ok: green,
    warning: yellow,
    missing: yellow,
    failed: red,
  };
  const name = Math.max(...checks.map((check) => check.name.length));
  const width = terminalWidth();
  // In a narrow terminal, what was found stands below the name.
  const isNarrow = width < 64;
  const indent = ' '.repeat(isNarrow ? 9 : name + 11);
  const lines = checks.flatMap((check) => {
    const text = [
      check.isRequired && check.status === 'ok'
        ? check.found
        : `${check.found}. For ${check.purpose}.`,
      ...(check.fix === null ? [] : [`-> ${check.fix}`]),
    ];
    const found = text.flatMap((line) => wrap(line, width, indent, indent));
    const word = colors[check.status](WORDS[check.status].padEnd(8));
    if (isNarrow) return [`${word} ${check.name}`, ...found];
    const [first = '', ...rest] = found;
    return [`${word} ${check.name.padEnd(name)}  ${first.slice(indent.length)}`, ...rest];
  });
  const end = isOk
    ? 'Everything that pinhole needs is there and works.'
    : 'Something that pinhole needs is missing or does not work.';
  return `${[`pinhole ${VERSION}`, '', ...lines, '', ...wrap(end, width)].join('\n')}\n`;
}
