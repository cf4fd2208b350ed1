// Each cell that ran for real, run again by the model with the guest's buffers cut where the real guest's
// were, and what both count side by side. The model's functions are given: sources in tests, the package in
// the script that makes the page.

/** Kernel pages of a request's own object, and of its indirect table, in the model's guest. */
const AREA = 16_384;
/** What a real disk was asked before its workload, too: see readQemuTrace in read-run.mjs. */
const MARK = { read: { offset: 2046 * 512, length: 512, block: 512 } };
const MARK_LAYOUT = 'header@0 data 512 table@0';

/** Translations of the disk's accesses in QEMU's log; those of interrupts have another name. */
const TRANSLATIONS = [
  ...['vtd_dmar_translate', 'spapr_iommu_xlate'],
  ...['smmuv3_translate_success', 'virtio_iommu_translate_out'],
];
const HCALLS = {
  H_PUT_TCE: 'spapr_iommu_pci_put',
  H_PUT_TCE_INDIRECT: 'spapr_iommu_pci_indirect',
  H_STUFF_TCE: 'spapr_iommu_pci_stuff',
};
/** The guest's events of its IOMMU: the generic ones, and those that VT-d's driver had before 5.11. */
const MAPS = ['map', 'map_single'];
const UNMAPS = ['unmap', 'unmap_single'];
/** What the guest had QEMU's IOMMU do, without what only waits for it. */
const COMMANDS = [
  'SMMU_CMD_TLBI_NH_VA',
  'SMMU_CMD_TLBI_NH_ASID',
  'virtio_iommu_map',
  'virtio_iommu_unmap',
];

/** observed.jsonl: a boot a line. */
export function readBoots(text) {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
}

/** Facts of every cell that both sides have. */
export const FACTS = [
  ...[
    'outcome',
    'features',
    'requests',
    'requests served',
    'reads wrong',
    'bytes of the image wrong',
  ],
  ...[
    'notifications by the driver',
    'notifications by the device',
    'buffers go through the DMA API',
  ],
  ...['mappings left', 'bytes bounced', ...Object.keys(HCALLS), 'TCEs cleared'],
  ...['IOMMU maps', 'IOMMU unmaps', 'IOMMU commands', 'translations'],
];

/**
 * What both sides do not mean the same by. VT-d's driver invalidates when a timer of 10 ms fires; no time
 * passes in the model, whose driver does so when its queue is full.
 */
export function isComparable(id, what) {
  return !(what === 'IOMMU commands' && id.includes('/x86-64-intel-iommu/'));
}

/**
 * A notification by hypercall is in the log when it comes, and again when the event loop has it; one by a
 * write to a PCI device is an eventfd from the start. [qemu hw/virtio/virtio.c virtio_queue_notify,
 * virtio_queue_notify_vq]
 */
function notifyLines(id) {
  return id.includes('/s390x/') ? 2 : 1;
}

/**
 * What one observed cell and the model's run of it show.
 * @returns a row for each comparable one of FACTS: `{ what, real, model }`, the same fact of both, as text
 */
export function compareCell(seen, model) {
  const { result, report, before } = runAsSeen(seen, model);
  const { data, decision, evidence, counters } = report;
  const { workload } = counters;
  const { guest, qemu } = seen;
  const sum = (names, of) => names.reduce((total, name) => total + (of[name] ?? 0), 0);
  // Without what the marks before the workload cost.
  const less = (count, of) => count - of(before.counters.workload);
  const facts = {
    outcome: [outcomeOf(seen), result.outcome],
    features: [seen.features, report.negotiated?.features ?? report.refusal],
    requests: [qemu.requests, requestsOf(model.scenarioOfCell(seen.id).workload)],
    'requests served': [qemu.requests.split(', ').length, data.completed - before.data.completed],
    'reads wrong': [seen.readsWrong.length, data.bytesReadWrong],
    'bytes of the image wrong': [seen.imageBytesWrong, data.imageBytesWrong],
    'notifications by the driver': [
      (qemu.events.virtio_queue_notify ?? 0) / notifyLines(seen.id),
      less(workload.kicks, ({ kicks }) => kicks),
    ],
    'notifications by the device': [
      qemu.events.virtio_notify_irqfd ?? 0,
      less(workload.interrupts, ({ interrupts }) => interrupts),
    ],
    // Whatever that API does with them: it is not asked where virtio gives physical addresses.
    'buffers go through the DMA API': [
      guest.events.dma_map > 0,
      !decision.dmaOps.startsWith('none'),
    ],
    'mappings left': [
      sum(['dma_map'], guest.events) - sum(['dma_unmap'], guest.events),
      evidence.entriesLeft,
    ],
    'bytes bounced': [guest.bytesBounced, less(workload.bytesBounced, (of) => of.bytesBounced)],
    'TCEs cleared': [
      qemu.events['TCEs cleared'] ?? 0,
      // Each that is written is cleared.
      less(workload.tcesWritten, ({ tcesWritten }) => tcesWritten) / 2,
    ],
    'IOMMU maps': [sum(MAPS, guest.events), less(workload.iommu.maps, ({ iommu }) => iommu.maps)],
    'IOMMU unmaps': [
      sum(UNMAPS, guest.events),
      less(workload.iommu.unmaps, ({ iommu }) => iommu.unmaps),
    ],
    'IOMMU commands': [
      sum(COMMANDS, qemu.events),
      less(workload.iommu.commands, ({ iommu }) => iommu.commands),
    ],
    translations: [
      sum(TRANSLATIONS, qemu.events),
      less(workload.translations, ({ translations }) => translations),
    ],
  };
  for (const [name, event] of Object.entries(HCALLS)) {
    const count = less(workload.hcalls[name] ?? 0, ({ hcalls }) => hcalls[name] ?? 0);
    facts[name] = [qemu.events[event] ?? 0, count];
  }
  return FACTS.filter((what) => isComparable(seen.id, what)).map((what) => {
    const [real, ofModel] = facts[what];
    return { what, real: String(real), model: String(ofModel) };
  });
}

/**
 * What both sides say of the whole machine: the windows that a pseries guest was offered and asked for; whether
 * the DMA API over an IOMMU defers invalidation, where the kernel says so.
 * @returns rows as those of compareCell
 */
export function compareBoot(
  { boot, windows, messages, cells },
  { scenarioOfCell, runScenario, matrixDisk },
  Tracer,
) {
  const flagged = cells.find(({ id }) => id.includes('/flag/'));
  if (flagged === undefined) return [];
  const created = [];
  const emit = ({ name, args }) => {
    if (name === 'spapr_iommu_ddw_create') created.push(args);
  };
  const { decision } = runScenario(scenarioOfCell(flagged.id), {
    disk: matrixDisk(),
    tracer: new Tracer({ emit }),
  });
  const steps = decision.steps.join('\n');
  const row = (what, real, model) => ({ what, real: joined(real), model: joined(model) });
  const policy = messages
    .map((line) => /TLB invalidation policy: (\w+) mode/.exec(line)?.[1])
    .find(Boolean);
  const isIommu = steps.includes('is invalidation deferred?');
  return [
    ...(isIommu && policy !== undefined
      ? [row('invalidation', [policy], [steps.includes('deferred?: yes') ? 'lazy' : 'strict'])]
      : []),
    ...(boot.includes('/pseries-')
      ? [
          row('windows on offer', found(messages.join('\n'), OFFER), found(steps, OFFER)),
          row(
            'windows made',
            found(windows.join('\n'), /page size=\w+, requested=\w+, start addr=\w+, liobn=\w+/g),
            created.map(({ pg_size: page, req_size: bytes, start, liobn }) => {
              const hex = (value) => `0x${value.toString(16)}`;
              return `page size=${hex(page)}, requested=${hex(bytes)}, start addr=${hex(start)}, liobn=${hex(liobn)}`;
            }),
          ),
        ]
      : []),
  ];
}

/** Of the answer to ibm,query-pe-dma-windows, as kernels print it. */
const OFFER = /lb=\w+ ps=\w+ wn=\w+/g;

function found(text, pattern) {
  return [...text.matchAll(pattern)].map(([match]) => match);
}

// Each of several devices may ask.
function joined(values) {
  return [...new Set(values)].join('; ') || 'none';
}

// The cell, and what served the marks before: the same run without the workload.
function runAsSeen(seen, model) {
  const { parseCellId, scenarioOfCell, runScenario, describeCell, architectures, matrixDisk } =
    model;
  const scenario = scenarioOfCell(seen.id);
  const layout = seen.guest.layout.length === 0 ? undefined : [...seen.guest.layout];
  const run = (workload) => {
    const places =
      layout === undefined ? undefined : [MARK_LAYOUT, MARK_LAYOUT, ...layout].map(parseLayout);
    return runScenario(
      { ...scenario, workload: [MARK, MARK, ...workload] },
      {
        disk: matrixDisk(),
        architectures:
          places === undefined ? architectures : architectures.map((each) => placed(each, places)),
      },
    );
  };
  const report = run(scenario.workload);
  return { report, result: describeCell(parseCellId(seen.id), report), before: run([]) };
}

/** The class of what was seen, by what the classes mean. */
function outcomeOf({ failures, readsWrong, imageBytesWrong, guest, qemu }) {
  if (failures.length > 0) return `failures: ${failures.join('; ')}`;
  if (readsWrong.length + imageBytesWrong > 0) return 'silently-wrong';
  if (guest.events.dma_map !== guest.events.dma_unmap) return 'leaks';
  const isMapped = [...MAPS, ...UNMAPS].some((name) => guest.events[name] > 0);
  const isCalled = Object.values(HCALLS).some((name) => qemu.events[name] > 0);
  return isMapped || isCalled || guest.bytesBounced > 0 ? 'works-slow' : 'works';
}

/** Sector and sectors of each request, as a disk of 512-byte sectors is asked for them. */
function requestsOf(workload) {
  const requests = workload.flatMap((operation) => {
    const { offset, length, block } = operation.read ?? operation.write;
    const kind = operation.read === undefined ? 'write' : 'read';
    return Array.from(
      { length: length / block },
      (_, at) => `${kind} ${(offset + at * block) / 512} ${block / 512}`,
    );
  });
  return requests.join(', ');
}

/** See layoutOf in read-run.mjs. */
function parseLayout(text) {
  const [, header, cut, table] = /^header@(\d+) data (\S+)(?: table@(\d+))?$/.exec(text);
  const data = cut.split('+').flatMap((part) => {
    const [, size, offset = 0, page = 0, times = 1] =
      /^(\d+)(?:@(\d+))?(?:\^(\d+))?(?:\*(\d+))?$/.exec(part);
    return Array(Number(times)).fill({ size: +size, offset: +offset, page: +page });
  });
  return { header: Number(header), data, table: Number(table ?? 0) };
}

/** The architecture, where the buffers of requests lie as these did: in pages, not at addresses. */
function placed(architecture, layout) {
  const build = (options) => {
    const platform = architecture.build(options);
    const { pages } = platform;
    const allocPages = pages.allocPages.bind(pages);
    const [alloc, free] = [pages.alloc.bind(pages), pages.free.bind(pages)];
    const areas = { object: allocPages(AREA), table: allocPages(AREA) };
    const ours = new Set();
    let next = 0;
    let current;
    let hasObject = false;
    pages.allocUser = (length) => {
      current = layout[next];
      next += 1;
      hasObject = false;
      const bytes = current.data.reduce((total, { size }) => total + size, 0);
      if (bytes !== length)
        throw new Error(`request ${next}: ${bytes} bytes seen, ${length} wanted`);
      // A gap after each: they are not one.
      return current.data.map(({ offset, size, page }) => {
        const base = allocPages(page * 4096 + offset + size + pages.pageSize);
        return { gpa: base + page * 4096 + offset, length: size };
      });
    };
    pages.alloc = (length) => {
      if (current === undefined || length > AREA / 2) return alloc(length);
      // The request's object first, then its table.
      const gpa = hasObject ? areas.table + current.table : areas.object + current.header;
      hasObject = true;
      ours.add(gpa);
      return gpa;
    };
    pages.free = (gpa, length) => {
      if (!ours.delete(gpa)) free(gpa, length);
    };
    return platform;
  };
  return { ...architecture, build };
}
