// The positions of the debate with what cells of the matrix show: docs/THE-DEBATE.md.
//   node test/debate/debate-page.mjs          prints it
//   node test/debate/debate-page.mjs --write  writes it
// The text is the-debate.md; what stands in double braces there is taken from runs.
import { readFileSync, writeFileSync } from 'node:fs';
import { matrixDisk, runCell } from '@pinhole/machine';

const TEMPLATE = new URL('the-debate.md', import.meta.url);
const PAGE = new URL('../../../../docs/THE-DEBATE.md', import.meta.url);

/** The page, whole. */
export function debatePage() {
  const disk = matrixDisk();
  const known = new Map();
  const shown = (id) => {
    if (!known.has(id)) known.set(id, runCell(id, { disk }).result);
    return known.get(id);
  };
  // A table within a list is as far in as its first line.
  const part = /(^ *)?\{\{(\w+) ([^}]+)\}\}/gm;
  return readFileSync(TEMPLATE, 'utf8').replace(part, (_, indent = '', what, names) => {
    const make = PARTS[what];
    if (make === undefined) throw new Error(`the-debate.md: there is no {{${what} ...}}`);
    const made = make(names.trim().split(/\s+/).map(shown));
    return made.replace(/^/gm, indent);
  });
}

// What can stand in double braces before ids of cells.
const PARTS = {
  cells: (results) => table(results),
  outcome: ([result]) => `\`${result.outcome}\``,
  hcalls: ([result]) => decimals(result.counters.hcallsPerRequest),
  bounced: ([result]) => `${decimals(result.counters.bytesBounced / 2 ** 20)} MiB`,
  misses: ([result]) => decimals(result.counters.vhost.missesPerRequest),
  invalidates: ([result]) => decimals(result.counters.vhost.invalidatesPerRequest),
  throughput: ([{ costs }]) => range(costs.throughput),
  text: ([result]) => sentence(result),
  warning: ([{ warnings }]) => warnings[0],
  refusal: ([result]) => result.text.replace(/^refused at probe: /, ''),
};

function table(results) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  const rows = results.map((result) => [
    `\`${result.cell.id}\``,
    sentence(result),
    result.costs === null ? '' : range(result.costs.throughput),
  ]);
  return [
    line(['cell', 'what it shows', 'throughput']),
    '| --- | --- | ---: |',
    ...rows.map(line),
  ].join('\n');
}

// The most severe finding, what it comes to, and the names of the others.
function sentence({ findings, also }) {
  const [first, ...rest] = findings;
  const end = rest.find(({ outcome }) => outcome === 'hangs' || outcome === 'io-fails');
  const others = also.filter((outcome) => outcome !== end?.outcome);
  return [
    first.text.replaceAll('|', '\\|'),
    ...(end === undefined ? [] : [end.text.replaceAll('|', '\\|')]),
    ...(others.length > 0 ? [`also: ${others.join(', ')}`] : []),
  ].join('; ');
}

function range({ low, mid, high }) {
  const two = (value) => (value > 0.995 ? '1' : value.toPrecision(2));
  return low === high ? two(mid) : `${two(mid)} (${two(low)} to ${two(high)})`;
}

function decimals(value) {
  return String(Math.round(value * 100) / 100);
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  if (process.argv.includes('--write')) writeFileSync(PAGE, debatePage());
  else process.stdout.write(debatePage());
}
