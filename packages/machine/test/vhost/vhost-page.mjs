// What runs with vhost show: docs/VHOST.md.
//   node test/vhost/vhost-page.mjs          prints it
//   node test/vhost/vhost-page.mjs --write  writes it
import { writeFileSync } from 'node:fs';
import { parseScenario, runScenario } from '@pinhole/machine';
import { createVhostRig, DISK, LIVE, LIVE_REQUESTS, placeLiveRequests } from './rig.mjs';

const KIB = 1024;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const DDW = '{ arch: pseries, memory: 2GiB }';
const DDW_64K = '{ arch: pseries, memory: 2GiB, pageSizes: 0x11000 }';
const PINHOLE = '{ arch: pseries, memory: 2GiB, ddw: false }';

const number = (count) => count.toLocaleString('en');
const size = (bytes) => {
  const [unit, name] = bytes >= GIB ? [GIB, 'GiB'] : bytes >= MIB ? [MIB, 'MiB'] : [KIB, 'KiB'];
  return `${decimals(bytes / unit)} ${name}`;
};
const sizeOrZero = (bytes) => (bytes === 0 ? '0' : size(bytes));
const decimals = (value) => String(Math.round(value * 100) / 100);

function table(head, rows, left = 1) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  const rule = head.map((_, i) => (i < left ? '---' : '---:'));
  return [line(head), line(rule), ...rows.map(line)].join('\n');
}

const MACHINES = [
  [DDW, { flag: false }],
  [DDW, {}],
  [DDW_64K, {}],
  [PINHOLE, {}],
];

// packages/live/test/live/vhost.test.ts holds these counts against a real QEMU.
function liveRows() {
  return LIVE.rows.map(({ name, counts }, i) => {
    const [machine, options] = MACHINES[i];
    const rig = createVhostRig(machine, options);
    const isRight = placeLiveRequests(GIB).every((runs) => rig.read(0, runs));
    if (!isRight) throw new Error(`${name}: wrong data`);
    const { misses, updates, invalidates, granules } = rig.vhost;
    const granule = Object.keys(granules).map((bytes) => size(Number(bytes)));
    const model = [misses, updates, invalidates, granule.join(', ') || '-'];
    const real = [counts.misses, counts.updates, counts.invalidates];
    const realGranule = counts.granule === 0 ? '-' : size(counts.granule);
    return [name, ...[...real, realGranule, ...model].map(String)];
  });
}

function run(machine, device, kernel, workload) {
  const text = `machine: ${machine}
guest: { kernel: ${kernel} }
devices: [{ type: virtio-blk, iommuPlatform: true, ${device} }]
workload: [${workload}]`;
  return runScenario(parseScenario(text), { disk: DISK });
}

const READS_64K = '{ read: { offset: 0, length: 4MiB, block: 64KiB } }';
const FIRST_QUESTION = [
  ['2 GiB, `maxmem=4G`', '{ arch: pseries, memory: 2GiB, maxMemory: 4GiB }'],
  ['2 GiB, no `maxmem`', '{ arch: pseries, memory: 2GiB }'],
  ['2 GiB, `ddw=off`', PINHOLE],
];

function answerRows() {
  return ['linux-6.1', 'linux-6.12', 'linux-7.2'].flatMap((kernel) =>
    FIRST_QUESTION.map(([name, machine]) => {
      const { counters, verdict } = run(machine, 'vhost: on', kernel, READS_64K);
      const { vhost } = counters;
      return [
        kernel,
        name,
        `\`${verdict.outcome}\``,
        decimals(counters.hcallsPerRequestTotal),
        decimals(vhost.invalidatesPerRequest),
        number(vhost.misses),
        Object.keys(vhost.granules)
          .map((bytes) => size(Number(bytes)))
          .join(', '),
      ];
    }),
  );
}

// Reads into the same buffer, after the first: what each request costs for ever.
function steadyRows() {
  const sizes = [4 * KIB, 64 * KIB, MIB];
  const rows = [
    ['no `iommu_platform`', DDW, { flag: false }],
    ['second window, 16 MiB pages', DDW, {}],
    ['second window, 64 KiB pages', DDW_64K, {}],
    ['pinhole only', PINHOLE, {}],
  ];
  return rows.flatMap(([name, machine, options]) =>
    sizes.map((length) => {
      const rig = createVhostRig(machine, options);
      const counts = () => {
        const { misses, invalidates } = rig.vhost;
        const hcalls = Object.values(rig.platform.counters().hcalls);
        return [hcalls.reduce((sum, count) => sum + count, 0), misses, invalidates];
      };
      const runs = [{ gpa: GIB, length }];
      rig.read(0, runs);
      const before = counts();
      for (let i = 0; i < 10; i += 1) if (!rig.read(0, runs)) throw new Error('wrong data');
      const per = counts().map((count, i) => decimals((count - before[i]) / 10));
      return [name, size(length), ...per];
    }),
  );
}

/** Reads a sector into every page of `pageSize` in `bytes` of memory, round after round. */
function rounds(machine, bytes, pageSize, order, maxIotlbEntries) {
  const rig = createVhostRig(machine, maxIotlbEntries === undefined ? {} : { maxIotlbEntries });
  const count = bytes / pageSize;
  const offset = pageSize / 2;
  const misses = [];
  for (let round = 0; round < 2; round += 1) {
    const before = rig.vhost.misses;
    for (let i = 0; i < count; i += 1) {
      const page = order(i, count, round);
      if (!rig.read(0, [{ gpa: page * pageSize + offset, length: 512 }])) throw new Error('wrong');
    }
    misses.push(rig.vhost.misses - before);
  }
  const { evictions, entriesPeak } = rig.vhost;
  return { count, misses, evictions, entriesPeak };
}

const inOrder = (i) => i;
// A step that has no factor in common with a count: each page once a round, in another order in each.
const scattered = (i, count, round) => {
  let step = Math.floor(count * (0.38 + 0.1 * round)) | 1;
  const gcd = (a, b) => (b === 0 ? a : gcd(b, a % b));
  while (gcd(step, count) !== 1) step += 2;
  return (i * step + 7 * round) % count;
};

function limitRows() {
  const memories = [2, 32, 33, 64].map((gib) => gib * GIB);
  return memories.flatMap((memory) => {
    const machine = `{ arch: pseries, memory: ${memory / GIB}GiB, maxMemory: ${(2 * memory) / GIB}GiB }`;
    const orders = memory > 32 * GIB ? [inOrder, scattered] : [inOrder];
    return orders.map((order) => {
      const { count, misses, evictions, entriesPeak } = rounds(machine, memory, 16 * MIB, order);
      return [
        size(memory),
        order === inOrder ? 'in order' : 'scattered',
        number(count),
        number(entriesPeak),
        number(misses[0]),
        `${number(misses[1])} (${Math.round((100 * misses[1]) / count)} %)`,
        number(evictions),
      ];
    });
  });
}

function granuleRows() {
  return [127, 128].map((mib) => {
    const machine = '{ arch: pseries, memory: 2GiB, maxMemory: 4GiB, pageSizes: 0x11000 }';
    // Above what the kernel keeps for itself.
    const shifted = (i) => i + GIB / (64 * KIB);
    const { count, misses, entriesPeak } = rounds(machine, mib * MIB, 64 * KIB, shifted);
    const last = `${number(misses[1])} (${Math.round((100 * misses[1]) / count)} %)`;
    return [`${mib} MiB`, number(count), number(entriesPeak), number(misses[0]), last];
  });
}

const HANDLERS = [
  ['QEMU', ''],
  ['KVM, host without the capability', ', tceHandler: kvm, kvmTceVfio: false'],
  ['KVM, host with it', ', tceHandler: kvm'],
];

function vtdRows() {
  return ['7.2', '10.0'].flatMap((qemu) =>
    ['', 'iommu.strict=1'].map((cmdline) => {
      const scenario = `machine: { arch: x86-64, memory: 2GiB, iommu: intel-iommu, qemu: "${qemu}" }
guest: { kernel: linux-6.1, cmdline: "${cmdline}" }
devices: [{ type: virtio-blk, iommuPlatform: true, vhost: on }]
workload: [{ read: { offset: 0, length: 1MiB, block: 4KiB } }]
`;
      const { counters, data, verdict } = runScenario(parseScenario(scenario));
      return [
        qemu,
        cmdline === '' ? 'deferred (default)' : 'strict',
        `\`${verdict.outcome}\``,
        `${data.completed} of ${data.requests}`,
        sizeOrZero(counters.strayBytesWritten),
        number(counters.vhost.invalidates),
      ];
    }),
  );
}

function kvmRows() {
  const reads = '{ read: { offset: 0, length: 4MiB, block: 4KiB } }';
  return ['1GiB', '128MiB', '16MiB'].flatMap((window) =>
    HANDLERS.map(([name, more]) => {
      const machine = `{ arch: pseries, memory: 2GiB, ddw: false, dmaWindowSize: ${window}${more} }`;
      const { data, counters, verdict } = run(machine, 'vhost: on', 'linux-6.12', reads);
      const wrong = sizeOrZero(data.bytesReadWrong);
      return [
        window.replace(/(\d+)/, '$1 '),
        name,
        `\`${verdict.outcome}\``,
        number(data.requests),
        wrong,
        sizeOrZero(counters.strayBytesWritten),
        number(counters.vhost.invalidates),
        number(counters.vhost.evictions),
      ];
    }),
  );
}

// The same with an IOTLB that a scenario cannot ask for; how many of the reads were wrong.
function wrongReads(maxIotlbEntries) {
  const machine = '{ arch: pseries, memory: 2GiB, ddw: false, tceHandler: kvm }';
  const rig = createVhostRig(machine, { kernel: 'linux-6.12', maxIotlbEntries });
  let wrong = 0;
  for (let i = 0; i < 1024; i += 1) {
    const runs = [{ gpa: GIB + 2 * i * 4 * KIB, length: 4 * KIB }];
    if (!rig.read(i * 4 * KIB, runs)) wrong += 1;
  }
  return wrong;
}

function dataPlaneRows() {
  return [
    ['second window, 16 MiB pages', '{ arch: pseries, memory: 2GiB, maxMemory: 4GiB }'],
    ['pinhole only', PINHOLE],
  ].flatMap(([name, machine]) =>
    ['off', 'on'].map((vhost) => {
      const { counters } = run(machine, `vhost: ${vhost}`, 'linux-6.1', READS_64K);
      return [
        name,
        vhost === 'on' ? 'vhost' : 'QEMU',
        decimals(counters.hcallsPerRequestTotal),
        decimals(counters.translationsPerRequest),
      ];
    }),
  );
}

/** The page, whole. */
export function vhostPage() {
  const counts = LIVE_REQUESTS.flat();
  const pages = counts.reduce((sum, count) => sum + count, 0);
  return `# vhost, the IOTLB and the second window

Ben Herrenschmidt's mail of 8 August 2018 left two things open. A guest whose whole memory is mapped
once, in a second DMA window, would cost nothing per request: "I don't know if that works with qemu and
the performance impact with vhost". This page answers both by running it. Its figures are counts of
model runs; it is written by \`npm run docs:vhost\`, and a test fails when it is out of date.

- **Does the second window work?** Yes, with vhost as with QEMU's own data plane, where the guest gets
  it: then no request makes a hypercall, an invalidation, or after the first use of a page a miss. It
  does not get it from QEMU 7.2 with Linux 6.12 or 7.2 and without \`maxmem\`.
- **What does it cost with vhost?** With 16 MiB pages nothing up to 32 GiB of memory. Without the second
  window ${decimals(19)} round trips to QEMU and ${decimals(19)} invalidations for each read of 64 KiB. A real run of the four rows
  below had about 1.0 and about 0.11 of the throughput without an IOMMU (64 KiB reads).

## Held against a real QEMU

The model's own data plane served the vhost-user disk of a real pseries machine, QEMU 7.2.22: real
hypercalls, real registers, QEMU's own answers. The guest's driver and its memory were the same as on the
model, so that the two can be compared message by message: each miss (address, access), each update
(address, size, guest memory, permission), each invalidation, what was read and written, and the whole
disk. \`npm run test:live\` does it (\`vhost.test.ts\`, \`vhost-tces.test.ts\` and \`vhost-x86.test.ts\` in
\`packages/live/test/live\`). **No difference was found.** It tries:

- the guest's driver without the flag, behind the pinhole, and behind second windows of 64 KiB and 16 MiB
  pages; split and packed rings, one queue and two; twelve requests with one kick; a driver that is
  removed and probed again
- TCEs by hand: mapped, taken back, taken back twice, replaced without an unmap, with less permission,
  with an address that is no memory; H_STUFF_TCE and H_PUT_TCE_INDIRECT; addresses in no window; windows
  that open, close and are reset while the disk runs; rings that are not mapped; a reset while a request
  waits
- five times 150 steps that a seed decides: TCEs of all kinds, reads, writes, kicks, resets
- a machine without an IOMMU (x86-64): the guest accepts bit 33, and the data plane is not told of it

The same ${LIVE_REQUESTS.length} reads on both, with ${counts.length} data segments of ${pages} pages of 64 KiB:

${table(
  [
    'run',
    'QEMU: misses',
    'updates',
    'invalidations',
    'granule',
    'model: misses',
    'updates',
    'invalidations',
    'granule',
  ],
  liveRows(),
)}

Four runs of an unmodified Linux 6.1 with another data plane had counted just this before. Their workload
was not written down. These reads are those of an earlier recording of the same guest (28 requests, 84
mappings of headers, status bytes and indirect tables, 101 of data, 697 H_STUFF_TCE), the only mix of its
requests that comes to 1988: 3·28 + 16·${pages}. Where their buffers were was not written down, either, and
the counts of second windows depend on it; here it is chosen (buffers used again, as \`dd\` does, in three
areas), and the same on both sides. The one update more than misses is QEMU's: it pushes the page of the
used ring when the device starts, and with vhost-user-blk's 128 entries the whole ring lies in it.

Two things to know. The data plane is the model's on both sides: this holds QEMU's half, the windows and
the hypercalls; when Linux's own vhost asks and what it drops is from reading its source. And QEMU enables
the queues of a vhost-user disk, and kicks them, before it pushes their used rings: a data plane that is
quicker asks for the page itself, which is one miss and one update more. Here it waits for the push.

## Does the second window work?

64 reads of 64 KiB, each into a buffer of its own, vhost on, the flag on:

${table(
  [
    'guest',
    'machine',
    'outcome',
    'hypercalls a request',
    'invalidations a request',
    'misses in all',
    'granule',
  ],
  answerRows(),
  3,
)}

Linux 7.2 without \`maxmem\` makes half of the hypercalls and no invalidation because it never takes its
mappings back: the leak that [RECORDINGS.md](RECORDINGS.md) has.

## What a request costs

After the first request, into the same buffer, one piece of memory, Linux 6.1 (64 KiB pages; in pieces of
64 KiB, as the runs of [COSTS.md](COSTS.md) have it, a read of 1 MiB makes 38 hypercalls):

${table(['run', 'read', 'hypercalls', 'misses', 'invalidations'], steadyRows(), 2)}

Against QEMU's own data plane, which looks up every access anew and keeps nothing (64 reads of 64 KiB,
first uses included):

${table(['run', 'data plane', 'hypercalls a request', 'look-ups in the IOMMU a request'], dataPlaneRows(), 2)}

A miss is a message to QEMU and its answer: two system calls, two changes of context, QEMU's big lock, and
all locks of the device's queues. An invalidation is one message inside of the hypercall that unmaps, for
each TCE. How long they take: [COSTS.md](COSTS.md).

## How much memory 2048 translations reach

vhost keeps 2048 translations (\`max_iotlb_entries\`) and drops the oldest, used or not. A guest that reads
one sector into every 16 MiB page of its memory, twice:

${table(
  [
    'memory',
    'pages are used',
    '16 MiB pages',
    'most entries',
    'misses, 1st round',
    'misses, 2nd round',
    'evictions',
  ],
  limitRows(),
  2,
)}

Beyond 32 GiB, who goes through all of memory in order finds each page dropped just before its turn; in
another order each time, some of them. More entries help: \`max_iotlb_entries\` of the module \`vhost\`.

With 64 KiB pages the same 2048 translations reach 128 MiB of buffers, and the ring wants its own:

${table(['buffers', '64 KiB pages', 'most entries', 'misses, 1st round', 'misses, 2nd round'], granuleRows())}

## A risk: TCEs in KVM

When KVM answers TCE hypercalls in the host's kernel, QEMU does not hear of them, and cannot tell vhost.
QEMU knows: when vhost registers its notifier, it makes the table anew in its own memory, and the calls
come to it. But not where the host has \`KVM_CAP_SPAPR_TCE_VFIO\`: there the table stays in the kernel
[qemu v7.2 hw/ppc/spapr_iommu.c spapr_tce_set_need_vfio]. By the code, vhost then never forgets a
translation that the guest took back. **No report of it was found, and it was not tried on a real host**:
it is what reading says, to be checked before anyone relies on it. \`machine.kvmTceVfio\` is the switch.
1024 reads of 4 KiB, each into a buffer of its own, default window only, Linux 6.12:

${table(
  [
    'default window',
    'TCEs are handled by',
    'outcome',
    'requests, all "successful"',
    'read wrong',
    'written to memory not given',
    'invalidations',
    'evictions',
  ],
  kvmRows(),
  3,
)}

The larger windows hide it: bus addresses come again only when the whole pool was used, and by then the
2048 entries were overwritten by newer ones. It is the limit that saves the data, not an invalidation: with
\`max_iotlb_entries=8192\`, ${wrongReads(8192)} of the 1024 reads behind the default window of 1 GiB are wrong (with 2048,
${wrongReads(2048)}). Whoever raises the limit for a large guest should know.
Behind a second window nothing is unmapped, and nothing can go stale.

## A defect: VT-d before QEMU 8.0

Linux on x86-64 defers: 255 unmaps wait for one invalidation of the whole domain. QEMU 7.2 then walks the
guest's page table, and tells of pages that were mapped at the walk before and are no more; what was mapped
and unmapped in between vhost never hears of [qemu v7.2 hw/i386/intel_iommu.c vtd_iotlb_domain_invalidate,
vtd_page_walk_one]. QEMU 8.0 tells of all of the bus [qemu commit 3e090e3489db]. 256 reads of 4 KiB:

${table(
  [
    'QEMU',
    'unmaps',
    'outcome',
    'requests completed',
    'written to memory not given',
    'invalidations',
  ],
  vtdRows(),
  3,
)}

The cells of \`pinhole matrix\` are too short for addresses to come again: there it is a leak. This is
\`-device intel-iommu\` as it comes. With \`device-iotlb=on\`, and in 7.2.0 without, vhost listens to
invalidations of a device's own TLB alone, which a guest sends only to a device with \`ats=on\`: that is
not modelled.

## What the model does

- **Rings and buffers are bus addresses**, reached through an IOTLB of ranges. A miss asks for one address
  and direction; QEMU answers with the whole page of the IOMMU, cut where memory ends, and always for reading
  and writing, so a page that the guest mapped for reading can be written by vhost once it was read.
- **UNMAP is all vhost listens to**, window by window: pseries refuses \`DEVIOTLB_UNMAP\`. A mapping that
  replaces another, without an unmap between, stays as it was in the IOTLB.
- **An address that is not mapped is a stall.** QEMU sends nothing. The queue waits; the request is still
  in the ring, not an error and not a completion. It is tried again at the next kick, or when another
  queue's miss brings an update that holds the address: never because the guest maps it. The run ends and
  says so (\`counters.vhost.stalls\`, \`firstStall\`).
- **No IOMMU, or no flag: no IOTLB.** Where the bus is system memory itself, QEMU hides bit 33 from the
  backend, which takes addresses for guest-physical ones. A bus with an offset is another address space:
  there vhost gets an IOTLB, of 4 KiB pages that never change.
- **An IOTLB protects nothing from the backend**: a vhost-user process has all of guest memory mapped.

## What it does not do

- Linux gives a request up at each miss and reads it again from the start; here the answer comes at once.
  The messages are the same, unless one request needs more translations than the IOTLB holds: in Linux it
  would never end.
- What Linux remembers of each ring besides (\`meta_iotlb\`) saves time and no message.
- A chain that is bad in itself breaks the device as in QEMU (DEVICE_NEEDS_RESET); a real backend would
  stop serving the queue and say nothing. Descriptors that straddle pages are read as QEMU 7.2 reads them.
- ACCESS_FAIL is a number that nobody sends; QEMU refuses it. ATS (DEVIOTLB notifiers) is not modelled.
- A device that starts while the pages of its rings are not mapped starts, as in QEMU 7.2, and stalls. QEMU 10
  gives the start up there [qemu commit 571bdc97b836]; a driver of Linux maps its rings first.
- Grants of Xen are no IOMMU to QEMU, and vhost has no way to map them: with \`grants: true\` the backend
  takes their numbers for guest-physical addresses. A real one may refuse to start instead.
- Features and configuration are those of virtio-blk; the queue has vhost-user-blk's 128 entries.
`;
}

const PAGE = new URL('../../../../docs/VHOST.md', import.meta.url);
if (process.argv[1] === new URL(import.meta.url).pathname) {
  if (process.argv.includes('--write')) writeFileSync(PAGE, vhostPage());
  else process.stdout.write(vhostPage());
}
