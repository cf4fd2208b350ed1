// The constants of the cost model and what it says against figures that are known: docs/COSTS.md.
//   node test/costs-page.mjs          prints it
//   node test/costs-page.mjs --write  writes it
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import {
  COST_ITEMS,
  COST_NAMES,
  COST_PRESETS,
  createSeededDisk,
  estimateCosts,
  findCostPreset,
  parseScenario,
  runScenario,
} from '@pinhole/machine';

const docs = new URL('../../../docs/', import.meta.url);

const read = (block) => ({ read: { offset: 0, length: Math.min(64 * block, 2 ** 23), block } });
const PINHOLE = { arch: 'pseries', memory: '2GiB', ddw: false };
const SECOND = { arch: 'pseries', memory: '2GiB', maxMemory: '4GiB' };
const LINUX_6_1 = { kernel: 'linux-6.1' };
const X86 = { arch: 'x86-64', memory: '2GiB' };

/**
 * Figures that others, or we, measured; `found` is from the lowest to the highest. `use`: `check` where
 * no constant was taken from it, `other machine` where it is of something that the model is not.
 */
const KNOWN = [
  {
    what: 'vhost-user, second window, reads of 64 KiB',
    preset: 'power9-tcg',
    machine: SECOND,
    guest: LINUX_6_1,
    vhost: 'on',
    block: 65_536,
    found: [1, 1],
    text: 'about 1.0',
    source: 'QEMU 7.2 under TCG, Linux 6.1, a backend of ours; measured before this model was made',
    use: 'check',
    says: 'Nothing is unmapped, and 16 MiB at a time stay in the IOTLB.',
  },
  {
    what: 'vhost-user, default window only, reads of 64 KiB',
    preset: 'power9-tcg',
    machine: PINHOLE,
    guest: LINUX_6_1,
    vhost: 'on',
    block: 65_536,
    found: [0.11, 0.11],
    text: 'about 0.11',
    source: 'the same run',
    use: 'check',
    // What the request would take if everything else were right.
    says: ({ perRequest, bypass }) => {
      const needed = ((perRequest.mid - bypass.mid) * 0.11) / (1 - 0.11);
      const ms = (ns) => (ns / 1e6).toFixed(2);
      return `The middle is too fast by a third. No message is missing: misses, updates and invalidations of such a run are the model’s one by one ([VHOST.md](VHOST.md)); QEMU waits for an answer to each update and invalidation [qemu hw/virtio/vhost-user.c vhost_user_send_device_iotlb_msg], which is in both constants; that backend waited for translations and read no request again, as Linux’s vhost does. Two things are not of that run: the request, which the preset has from QEMU’s own data plane (with ${ms(needed)} ms, inside of its range, in place of ${ms(bypass.mid)} ms the middle would be 0.11), and the middles of both constants, medians, where so many messages add up to means: on a busy host some wait long.`;
    },
  },
  {
    what: 'QEMU’s data plane, default window only, reads of 1 MiB',
    preset: 'power9-tcg',
    machine: PINHOLE,
    guest: LINUX_6_1,
    vhost: 'off',
    block: 2 ** 20,
    found: [0.89, 0.89],
    text: '0.89, 0.89',
    source:
      'best rounds of two runs of linux-guest.sh: 1389 against 1556 us, 444 against 500 us (medians: 0.83, 1.13)',
    use: 'check',
    says: 'A request of 1 MiB makes 38 hypercalls for 518 TCEs there, one of 64 KiB 8 for 38.',
  },
  {
    what: 'QEMU’s data plane, default window only, reads of 64 KiB',
    preset: 'power9-tcg',
    machine: PINHOLE,
    guest: LINUX_6_1,
    vhost: 'off',
    block: 65_536,
    found: [0.9, 1.04],
    text: '0.90, 1.04',
    source:
      'best rounds of the same two runs: 217 against 242 us, 233 against 224 us (medians: 1.07, 0.90)',
    use: 'check',
    says: 'What the path adds is as much as the noise of a busy machine.',
  },
  {
    what: 'QEMU’s data plane, second window, reads of 64 KiB',
    preset: 'power9-tcg',
    machine: SECOND,
    guest: LINUX_6_1,
    vhost: 'off',
    block: 65_536,
    found: [0.93, 1.04],
    text: '0.93, 1.04',
    source: 'the same two runs: 217 against 233 us, 233 against 224 us (medians: 1.06, 1.15)',
    use: 'check',
    says: 'The path adds translations only: the same holds.',
  },
  {
    what: 'emulated IOMMU, no vhost',
    preset: 'x86-kvm',
    machine: { ...X86, iommu: 'intel-iommu' },
    guest: { cmdline: 'iommu.strict=1' },
    vhost: 'off',
    block: 4096,
    found: [0.36, 0.36],
    text: '0.36 (185.75 of 518.94 MB/s)',
    source: 'virtio-net of a Linux guest [asterinas issue 3313]',
    use: 'other machine',
    says: 'Packets, many in flight: a request of a disk has far more time of its own, which hides the path. That is where the model is off for networks.',
  },
  {
    what: 'emulated IOMMU, with vhost',
    preset: 'x86-kvm',
    machine: { ...X86, iommu: 'intel-iommu' },
    guest: { cmdline: 'iommu.strict=1' },
    vhost: 'on',
    block: 4096,
    found: [0.0013, 0.0013],
    text: '0.0013 (0.68 of 518.94 MB/s)',
    source: 'as above; its reporters blame a defect of the host’s vhost-net',
    use: 'other machine',
    says: 'A stall that the model knows nothing of: an upper bound on how bad misses get.',
  },
  {
    what: 'emulated IOMMU, each buffer mapped and unmapped, strict',
    preset: 'x86-kvm',
    machine: { ...X86, iommu: 'intel-iommu' },
    guest: { cmdline: 'iommu.strict=1' },
    vhost: 'off',
    block: 4096,
    found: [0.43, 0.43],
    text: '0.43 of line rate; 0.91 with deferred invalidation',
    source: 'a 10 GbE card passed through, 2010 hardware [Amit et al., USENIX ATC 2011]',
    use: 'other machine',
    says: 'Of a line’s rate, not of the time of a request; the order, strict below deferred, is the model’s, too.',
  },
  {
    what: 'every byte bounced',
    preset: 'x86-kvm',
    machine: X86,
    guest: { cmdline: 'swiotlb=force' },
    vhost: 'off',
    block: 65_536,
    found: [0.2, 0.2],
    text: '0.20 at worst (up to 80 % less)',
    source: 'forced swiotlb in Firecracker guests [firecracker pull request 5156]',
    use: 'other machine',
    says: 'The worst case of a benchmark suite that streams; copies are all that the model counts of a bounce, no locks and no slots searched.',
  },
];

const table = (rows) => rows.map((cells) => `| ${cells.join(' | ')} |`);
const line = (columns) => columns.map(() => '---');
const ratio = (value) => (value >= 0.995 ? value.toFixed(3) : value.toPrecision(2));
const figure = (value, unit) =>
  unit === 'ns' ? value.toLocaleString('en-US') : `${value / 1e9} GB/s`;
const cell = (text) => text.replaceAll('|', '\\|').replaceAll('\n', ' ');

// All read the same one.
const disk = createSeededDisk(1);

function estimate({ preset, machine, guest, vhost, block }) {
  const scenario = {
    machine,
    guest,
    devices: [{ type: 'virtio-blk', iommuPlatform: true, vhost }],
    workload: [read(block)],
  };
  const report = runScenario(parseScenario(JSON.stringify(scenario)), { disk });
  const costs = estimateCosts(report, findCostPreset(preset));
  if (costs === undefined) throw new Error(`${machine.arch}: not every request was served`);
  return costs;
}

function presetSection({ id, title, architectures, constants }) {
  const columns = ['constant', 'low', 'middle', 'high', 'status', 'source'];
  const rows = COST_NAMES.flatMap((name) => {
    const constant = constants[name];
    if (constant === undefined) return [];
    const { low, mid, high, unit, status, source } = constant;
    const figures = [low, mid, high].map((value) => figure(value, unit));
    return [[`\`${name}\``, ...figures, status, cell(source)]];
  });
  return [
    `### \`${id}\``,
    '',
    `${title}. For: ${architectures.join(', ')}. Nanoseconds each, where there is no other unit.`,
    '',
    ...table([columns, line(columns), ...rows]),
    '',
  ];
}

function checks() {
  const columns = ['what', 'known', 'model: middle (low to high)', 'inside', 'assumed', 'use'];
  const estimates = KNOWN.map((known) => ({ ...known, costs: estimate(known) }));
  const rows = estimates.map(({ what, text, found, use, preset, costs }) => {
    const { low, mid, high } = costs.throughput;
    // What is known to two digits is inside where two digits of the ends are.
    const isInside = found[1] >= low * 0.995 && found[0] <= high * 1.005;
    const model = `${ratio(mid)} (${ratio(low)} to ${ratio(high)}), ${preset}`;
    const assumed = `${Math.round(costs.assumedShare * 100)} %`;
    return [cell(what), text, model, isInside ? 'yes' : 'no', assumed, use];
  });
  const notes = estimates.map(({ what, source, says, costs }) => {
    const text = typeof says === 'string' ? says : says(costs);
    return `- ${what}: ${cell(source)}. ${text}`;
  });
  return [...table([columns, line(columns), ...rows]), '', ...notes, ''];
}

/** The page. */
export function costsPage() {
  const head = readFileSync(new URL('costs-page-head.md', import.meta.url), 'utf8').trimEnd();
  const items = COST_NAMES.map((name) => {
    const { what, unit, role } = COST_ITEMS[name];
    return [`\`${name}\``, what, unit, role];
  });
  const columns = ['constant', 'price of', 'unit', 'part of'];
  return [
    head,
    '',
    '## What is priced',
    '',
    ...table([columns, line(columns), ...items]),
    '',
    '## Held against what is known',
    '',
    'Throughput compared with the bypass: 1 is as fast. "Inside": what is known and the range of the model',
    'have something in common. "Assumed": how much of the estimated time comes from guesses.',
    '',
    ...checks(),
    '## The machines',
    '',
    ...COST_PRESETS.flatMap(presetSection),
  ].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const page = costsPage();
  if (process.argv.includes('--write')) writeFileSync(new URL('COSTS.md', docs), page);
  else process.stdout.write(page);
}
