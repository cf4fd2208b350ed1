// What real kernels did in cells of the matrix, beside the model: docs/REALITY.md.
//   node test/matrix/observed/reality-page.mjs          prints it
//   node test/matrix/observed/reality-page.mjs --write  writes it
// The text is reality.md; what stands in double braces there is made here.
import { readFileSync, writeFileSync } from 'node:fs';
import { Tracer } from '@pinhole/base';
import * as machine from '@pinhole/machine';
import { compareBoot, compareCell, FACTS, isComparable, readBoots } from './compare.mjs';

const here = (path) => new URL(path, import.meta.url);
const PAGE = here('../../../../../docs/REALITY.md');

/** The page, whole. */
export function realityPage() {
  const boots = readBoots(readFileSync(here('observed.jsonl'), 'utf8')).map((boot) => ({
    ...boot,
    rows: [
      ...boot.cells.flatMap((cell) =>
        compareCell(cell, machine).map((row) => ({ id: cell.id, ...row })),
      ),
      ...compareBoot(boot, machine, Tracer).map((row) => ({ id: boot.boot, ...row })),
    ],
  }));
  const seen = boots.flatMap(({ cells }) => cells);
  const rows = boots.flatMap((boot) => boot.rows);
  const differing = rows.filter(isDifferent);
  const all = machine.matrixCells();
  const parts = {
    total: String(all.length),
    observed: String(seen.length),
    qemu: [...new Set(boots.map(({ qemu }) => qemu.split(' ')[0]))].join(', '),
    verdict: verdictOf(rows, differing),
    differing: differing.map(different).join('\n'),
    zeros: String(rows.filter(({ real, model }) => real === '0' && model === '0').length),
    boots: boots.map(bootLine).join('\n'),
    facts: FACTS.join(',\n'),
    incomparable: String(seen.filter(({ id }) => !isComparable(id, 'IOMMU commands')).length),
    others: othersOf(all, new Set(seen.map(({ id }) => id))),
  };
  const text = readFileSync(here('reality.md'), 'utf8').replace(/\{\{(\w+)\}\}/g, (_, name) => {
    if (parts[name] === undefined) throw new Error(`reality.md: there is no {{${name}}}`);
    return parts[name];
  });
  // Where nothing differs nothing is said.
  return text.replace(/\n{3,}/g, '\n\n');
}

function isDifferent({ real, model }) {
  return real !== model;
}

function verdictOf(rows, differing) {
  const outcomes = rows.filter(({ what }) => what === 'outcome');
  const same = outcomes.filter((row) => !isDifferent(row)).length;
  const outcome = `the same outcome in ${same === outcomes.length ? 'all' : `${same} of ${outcomes.length}`}`;
  return `${outcome}; ${rows.length - differing.length} of ${rows.length} facts and counts are equal.`;
}

function different({ id, what, real, model }) {
  return `- \`${id}\`, ${what}: ${real}; the model: ${model}`;
}

function bootLine({ boot, version, cells, rows }) {
  const outcomes = (flag) => {
    const found = rows.filter(({ id, what }) => what === 'outcome' && id.includes(`/${flag}/`));
    return [...new Set(found.map(({ real }) => `\`${real}\``))].join(', ');
  };
  const split = cells.find(({ id }) => id.endsWith('/flag/normal/qemu/split'));
  const equal = rows.filter((row) => !isDifferent(row)).length;
  return line([
    ...[`\`${boot}\``, version, cells.length, outcomes('no-flag'), outcomes('flag')],
    ...[split === undefined ? '' : pricesOf(split, rows), `${equal} of ${rows.length}`],
  ]);
}

// What the real guest paid.
function pricesOf({ id, qemu }, rows) {
  const requests = qemu.requests.split(', ').length;
  const real = (what) => Number(rows.find((row) => row.id === id && row.what === what)?.real ?? 0);
  const hcalls = real('H_PUT_TCE') + real('H_PUT_TCE_INDIRECT') + real('H_STUFF_TCE');
  const prices = [
    [hcalls, 'hypercalls'],
    [real('IOMMU maps') + real('IOMMU unmaps'), 'maps and unmaps'],
    [real('translations'), 'translations'],
    [real('bytes bounced'), 'bytes copied'],
  ].filter(([count]) => count > 0);
  if (prices.length === 0) return 'nothing';
  return prices
    .map(([count, what]) => `${Math.round((count / requests) * 10) / 10} ${what}`)
    .join(', ');
}

// The first reason that holds.
const REASONS = [
  [
    ({ secure }) => secure,
    'a secure guest (PEF, SEV and TDX, pKVM, Secure Execution): QEMU emulates the hardware of none but pKVM, and a nested pKVM was not tried',
  ],
  [
    ({ policy }) => /^(rfc-|always-)/.test(policy),
    'a proposal of 2018: there never was such a kernel',
  ],
  [
    ({ policy }) => /-(4\.18|7\.2)$/.test(policy),
    'Linux 4.18 and 7.2: not at hand ([RECORDINGS.md](RECORDINGS.md) has runs of 7.2)',
  ],
  [
    ({ vhost }) => vhost,
    "vhost: needs the host's, which was not there; a vhost-user disk is another matter ([VHOST.md](VHOST.md))",
  ],
  [({ platform }) => platform === 'pseries-kvm', "TCEs in KVM: needs a POWER host's KVM"],
  [({ platform }) => platform.startsWith('xen'), 'Xen: needs its hypervisor'],
  [
    ({ platform, flag }) => platform === 'arm64-offset' && flag,
    'a bus with an offset, for the device, too: QEMU has none',
  ],
  [
    ({ platform }) => platform === 'x86-64-virtio-iommu',
    "virtio-iommu: Debian's 5.10 and 6.1 have no driver of it for x86-64",
  ],
  [() => true, 'Linux 5.10 for pseries and s390x: not at hand'],
];

function othersOf(all, seen) {
  const counts = new Map();
  for (const cell of all) {
    if (seen.has(cell.id)) continue;
    const [, why] = REASONS.find(([holds]) => holds(cell));
    counts.set(why, (counts.get(why) ?? 0) + 1);
  }
  const most = [...counts].sort(([, a], [, b]) => b - a);
  return most.map(([why, count]) => line([count, why])).join('\n');
}

function line(cells) {
  return `| ${cells.join(' | ')} |`;
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  if (process.argv.includes('--write')) writeFileSync(PAGE, realityPage());
  else process.stdout.write(realityPage());
}
