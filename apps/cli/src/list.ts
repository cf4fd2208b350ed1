import { builtInScenarios, loadScenario } from './scenarios.js';
import { terminalWidth } from './terminal.js';
import { plain, wrap } from './terminal-text.js';

/** `pinhole list`. */
export function list(options: { format: 'table' | 'json' }): void {
  const scenarios = builtInScenarios().map(({ id, number, path }) => {
    const { scenario } = loadScenario(id, []);
    return { number, id, title: scenario.title, expect: scenario.expect ?? null, path };
  });
  if (options.format === 'json') {
    process.stdout.write(`${JSON.stringify({ schemaVersion: 1, scenarios }, null, 2)}\n`);
    return;
  }
  const idWidth = Math.max(...scenarios.map(({ id }) => id.length)) + 2;
  const lines = scenarios.flatMap(({ id, title }) =>
    wrap(plain(title), terminalWidth(), ' '.repeat(idWidth), id.padEnd(idWidth)),
  );
  const folder = scenarios[0]?.path.replace(/[^/\\]*$/, '') ?? '';
  const where = wrap(`The files are in ${folder}: copy one and change it.`, terminalWidth());
  process.stdout.write(`${[...lines, '', ...where].join('\n')}\n`);
}
