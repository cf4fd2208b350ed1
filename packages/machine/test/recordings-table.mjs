// What the model predicts of each recording: docs/RECORDINGS.md.
//   node test/recordings-table.mjs          prints it
//   node test/recordings-table.mjs --write  writes it
import { readFileSync, writeFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import {
  ConsoleDigest,
  createRunReplay,
  inferRun,
  mismatchesOf,
  RunScout,
  reportRun,
} from '@pinhole/machine';
import { recordings } from '@pinhole/recordings';
import { createConsoleReader, createFtraceReader, createQemuLogReader } from '@pinhole/trace';

const CHUNK = 2 ** 16;

function replay({ files }) {
  const [qemu, guest, text] = [files.qemuTrace, files.guestTrace, files.console].map((url) =>
    gunzipSync(readFileSync(url)),
  );
  const scout = new RunScout();
  readAll(createFtraceReader, guest, (event, line) => scout.guestEvent(event, line));
  readAll(createQemuLogReader, qemu, (event, line) => scout.qemuEvent(event, line));
  const console = new ConsoleDigest();
  const reader = createConsoleReader({ onFact: (fact) => console.fact(fact) });
  reader.push(text);
  reader.end();
  const facts = scout.facts();
  const inference = inferRun(facts, console, undefined);
  const run = createRunReplay({ facts, inference });
  const sides = {
    qemu: side(createQemuLogReader, qemu, (event, line) => run.qemuEvent(event, line)),
    guest: side(createFtraceReader, guest, (event, line) => run.guestEvent(event, line)),
  };
  for (let wants = run.wants; wants !== undefined; wants = run.wants) {
    if (sides[wants].advance()) continue;
    if (wants === 'qemu') run.endQemu();
    else run.endGuest();
  }
  const report = reportRun({ facts, inference, console, replay: run });
  return { report, events: { qemu: sides.qemu.events, guest: sides.guest.events } };
}

function readAll(create, bytes, onEvent) {
  const reader = create({ onEvent });
  reader.push(bytes);
  reader.end();
}

function side(create, bytes, onEvent) {
  const reader = create({ onEvent });
  let at = 0;
  const own = {
    events: 0,
    advance() {
      if (at >= bytes.length) {
        own.events = reader.end().events;
        return false;
      }
      reader.push(bytes.subarray(at, at + CHUNK));
      at += CHUNK;
      return true;
    },
  };
  return own;
}

const number = (count) => count.toLocaleString('en');

/** So many of them are as the model has them. */
const share = (count, wrong) =>
  count === 0 ? '' : `${number(count - Math.min(wrong, count))} of ${number(count)}`;

function row(recording) {
  const { name } = recording;
  const { report, events } = replay(recording);
  const { guest, hypervisor, findings } = report;
  const operations = guest.maps + guest.unmaps + guest.allocs + guest.frees;
  const others = operations === 0 ? guest.dmaAddressMismatches : 0;
  const addresses = operations + guest.consistentAddresses + guest.inconsistentAddresses + others;
  const wrong = mismatchesOf(report);
  return [
    `\`${name}\``,
    number(events.qemu),
    number(events.guest),
    share(addresses, guest.dmaAddressMismatches + guest.inconsistentAddresses),
    share(guest.hcallsPredicted + guest.hcallsByKind, guest.hcallMismatches),
    share(hypervisor.translations, hypervisor.translationMismatches),
    share(hypervisor.invalidations, hypervisor.invalidationMismatches),
    share(guest.rangesPaired + guest.rangeMismatches, guest.rangeMismatches),
    share(hypervisor.requests, hypervisor.requestMismatches + guest.requestMismatches),
    number(wrong),
    number(guest.ordersFound),
    findings.map(({ code }) => `\`${code}\``).join(', ') || 'none',
  ];
}

/** The page, whole. */
export function recordingsPage() {
  const head = [
    'recording',
    'QEMU events',
    'guest events',
    'DMA addresses predicted',
    'hypercalls predicted',
    'translations predicted',
    'IOMMU commands checked',
    'IOMMU ranges paired',
    'requests checked',
    'mismatches',
    'orders searched',
    'findings',
  ];
  const line = (cells) => `| ${cells.join(' | ')} |`;
  const rule = head.map((_, i) => (i === 0 || i === head.length - 1 ? '---' : '---:'));
  return `# What the model predicts of real runs

Unmodified Linux on unmodified QEMU, recorded (\`packages/recordings\`), and replayed with all their
files: QEMU's log, the guest's trace, its console. This page is written by
\`npm run docs:recordings\`; a test fails when it is out of date.

${[line(head), line(rule), ...recordings.map((recording) => line(row(recording)))].join('\n')}

- **DMA addresses predicted**: every \`dma_map_*\`, \`dma_unmap_*\`, \`dma_alloc\` and \`dma_free\` of the
  guest's trace: the address that the model's kernel gives, against the recorded one. Linux 6.1 has
  no such events: there it is the addresses of its mapping hypercalls or of its IOMMU's maps, against the
  allocator's.
  Without an IOMMU they are physical ones, bounced ones the slots of the kernel's pool, behind VT-d, an
  SMMUv3 or virtio-iommu the ranges of Linux's IOVA allocator.
- **Hypercalls predicted**: each with all its arguments, for each of these events; for Linux 6.1 the
  kinds.
- **Translations predicted**: device accesses of QEMU's log: through TCEs, where to and with which
  permission; through VT-d and the SMMUv3 also whether QEMU's IOTLB has them. Of
  Linux 6.1 behind these, whose trace does not say when a device may use a buffer, that alone: where a
  translation leads is compared where the IOTLB has it.
- **IOMMU commands checked**: what the guest told its emulated IOMMU: invalidations of VT-d's queue,
  commands to the SMMUv3, requests to virtio-iommu.
- **IOMMU ranges paired**: \`map\` and \`unmap\` of the guest's trace, each found in QEMU's log with its
  addresses, in its order: with virtio-iommu both, with the SMMUv3 the unmaps, which are its
  invalidations. VT-d is told of many unmaps together.
- **Requests checked**: what devices took off virtqueues and gave back; on x86 and arm64
  also the mappings of the guest's trace that each is made of. A log of two boots has those of both, and
  the firmware's; with virtio-iommu the requests to it are among them.
- **Mismatches** count those, and every return code, invalidation and window of QEMU's log.
- **Orders searched**: how often the files left open which of several CPUs came first, and an order
  was found that explains the recorded addresses.
- **Findings**: [JSON.md](JSON.md#findings) has all codes. \`linux6.1-x86-intel-iommu\` defers its
  invalidations, too: it has no finding because Linux 6.1's trace cannot be joined with the log, and how
  many unmaps waited is counted where they are. The same for a run of your own:
  \`pinhole replay --qemu-trace FILE --guest-trace FILE --console FILE --html report.html\`.
`;
}

const PAGE = new URL('../../../docs/RECORDINGS.md', import.meta.url);
if (process.argv[1] === new URL(import.meta.url).pathname) {
  if (process.argv.includes('--write')) writeFileSync(PAGE, recordingsPage());
  else process.stdout.write(recordingsPage());
}
