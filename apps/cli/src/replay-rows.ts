/** What a replay says about the run, for pages and terminals. */
import type { ReplayReport } from '@pinhole/machine';

/** Something that was checked. */
export interface CheckedRow {
  readonly what: string;
  /** What exactly, where there is room for it. */
  readonly about?: string;
  readonly count: number;
  readonly wrong: number;
}

/** What was inferred about the run. */
export function runRows({ inferred, guest }: ReplayReport): [key: string, text: string][] {
  const { kernel, kernelFrom, guestPageSize, ddw, boots, windows, liobns } = inferred;
  const kernelRows: [string, string][] =
    guest === null
      ? []
      : [['kernel', `${kernel} (${kernelFrom}), pages of ${guestPageSize} bytes`]];
  if (inferred.iommu !== 'spapr-tce') {
    const { platform, iommu, swiotlb, joined, devices } = inferred;
    const names = Object.entries(devices).map(([device, route]) => `${device}: ${route}`);
    return [
      ['machine', `${platform}; IOMMU: ${iommu}; boots: ${boots}`],
      ...(names.length === 0 ? [] : [['devices', names.join('; ')] as [string, string]]),
      ...(swiotlb === null ? [] : [['bounce', swiotlbText(swiotlb)] as [string, string]]),
      ['joined', joined],
      ...kernelRows,
    ];
  }
  const used = windows.map(
    ({ liobn, tces, live, peak }) =>
      `${liobn}: ${tces} TCEs, ${peak} in use at most, ${live} at the end`,
  );
  const named = liobns.join(', ') || 'none';
  return [
    ['windows', guest === null ? named : used.join('; ') || named],
    ['boots', `${boots}; second window: ${ddw}`],
    ...kernelRows,
  ];
}

function swiotlbText(swiotlb: NonNullable<ReplayReport['inferred']['swiotlb']>): string {
  const { base, bytes, areas, from, slots, peak } = swiotlb;
  const size = `${bytes / 2 ** 20} MiB at ${base} (${from}), ${areas} area${areas === 1 ? '' : 's'}`;
  return `${size}; ${peak} of ${slots} slots in use at most`;
}

/** What was checked against the model. */
export function checkedRows(report: ReplayReport): CheckedRow[] {
  return [...hypervisorRows(report), ...guestRows(report)];
}

function hypervisorRows({ hypervisor, inferred }: ReplayReport): CheckedRow[] {
  const row = (what: string, about: string, count: number, wrong: number): CheckedRow => ({
    what,
    about,
    count,
    wrong,
  });
  const { hcalls, hcallMismatches, translations, translationMismatches } = hypervisor;
  const { invalidations, invalidationMismatches } = hypervisor;
  const requests = row(
    'device requests',
    'taken off virtqueues',
    hypervisor.requests,
    hypervisor.requestMismatches,
  );
  const translated = row('translations', 'of device accesses', translations, translationMismatches);
  if (inferred.iommu === 'spapr-tce') {
    return [
      row('TCE hypercalls', 'what QEMU returned', hcalls, hcallMismatches),
      translated,
      row('RTAS window calls', 'about windows', hypervisor.rtasCalls, hypervisor.rtasMismatches),
      requests,
    ];
  }
  if (translations + invalidations === 0) return [requests];
  return [
    requests,
    translated,
    inferred.iommu === 'virtio-iommu'
      ? row('IOMMU requests', 'to virtio-iommu', invalidations, invalidationMismatches)
      : row(
          'invalidations',
          `of the queue of ${inferred.iommu === 'smmuv3' ? 'the SMMUv3' : 'VT-d'}`,
          invalidations,
          invalidationMismatches,
        ),
  ];
}

function guestRows({ guest, inferred }: ReplayReport): CheckedRow[] {
  if (guest === null) return [];
  const { maps, unmaps, allocs, frees, dmaAddressMismatches, hcallsByKind } = guest;
  const { hcallsPredicted, hcallMismatches, requestsJoined, requestMismatches } = guest;
  const operations = maps + unmaps + allocs + frees;
  const rows: CheckedRow[] = [];
  if (operations > 0 || hcallsByKind === 0) {
    rows.push({
      what: 'DMA addresses',
      about: "that the guest's kernel gave",
      // Without DMA events, those of the IOMMU's maps.
      count: operations > 0 ? operations : guest.consistentAddresses + dmaAddressMismatches,
      wrong: dmaAddressMismatches,
    });
    if (hcallsPredicted + hcallMismatches > 0 || inferred.iommu === 'spapr-tce') {
      rows.push({
        what: 'guest hypercalls',
        about: 'that it made for them',
        count: hcallsPredicted,
        wrong: hcallMismatches,
      });
    }
  }
  if (requestsJoined + requestMismatches > 0) {
    rows.push({
      what: 'requests, joined',
      about: "whose buffers are the mappings of the guest's trace",
      count: requestsJoined,
      wrong: requestMismatches,
    });
  }
  if (guest.rangesPaired + guest.rangeMismatches > 0) {
    rows.push({
      what: 'IOMMU ranges',
      about: "that the guest's trace has, as the IOMMU was told of them",
      count: guest.rangesPaired,
      wrong: guest.rangeMismatches,
    });
  }
  if (hcallsByKind > 0) {
    const { consistentAddresses, inconsistentAddresses } = guest;
    rows.push(
      {
        what: 'hypercalls by kind',
        about: 'without a reason in the trace',
        count: hcallsByKind,
        wrong: hcallMismatches,
      },
      {
        what: 'their addresses',
        count: consistentAddresses + inconsistentAddresses,
        wrong: inconsistentAddresses,
      },
    );
  }
  return rows;
}

/** Something that model and files have differently. */
export interface DifferenceRow {
  readonly where: string;
  readonly what: string;
  readonly recorded: string;
  readonly model: string;
}

/** The first that differ. */
export function differenceRows({ hypervisor, guest }: ReplayReport): DifferenceRow[] {
  return [
    ...hypervisor.mismatches.map(({ line, event, what, logged, model }) => ({
      where: `QEMU line ${line}`,
      what: `${event}: ${what}`,
      recorded: logged,
      model,
    })),
    ...(guest?.mismatches ?? []).map(({ guestLine, qemuLine, what, recorded, model }) => ({
      where: places({ guestLine, qemuLine }),
      what,
      recorded,
      model,
    })),
  ];
}

/** Lines of the two files. */
export function places(at: {
  readonly guestLine?: number | undefined;
  readonly qemuLine?: number | undefined;
}): string {
  return [
    ...(at.guestLine === undefined ? [] : [`guest line ${at.guestLine}`]),
    ...(at.qemuLine === undefined ? [] : [`QEMU line ${at.qemuLine}`]),
  ].join(', ');
}
