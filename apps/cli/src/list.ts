import { builtInScenarios, loadScenario } from './scenarios.js';

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
  const width = Math.max(...scenarios.map(({ id }) => id.length));
  const lines = scenarios.map(({ id, title }) => `${id.padEnd(width)}  ${title}`);
  const folder = scenarios[0]?.path.replace(/[^/\\]*$/, '') ?? '';
  process.stdout.write(
    `${lines.join('\n')}\n\nThe files are in ${folder}: copy one and change it.\n`,
  );
}
