/** What an IOMMU of the generic kind did over a run, or that there was none. */
import type { ReplayReport, RunProfile } from '@pinhole/machine';
import { lineChart } from './report/chart-lines.js';
import { type Html, html } from './report/html.js';
import { short } from './report/scale.js';
import { type Chart, figure } from './report/svg.js';

type Iommu = RunProfile['iommu'];

/** Translations, invalidations and mapped buffers over the lines of QEMU's log. */
export function overTheRun({ iommu, lines }: RunProfile, { inferred }: ReplayReport): Html {
  return html`${translations(iommu, inferred.iommu, lines)}${buffers(iommu, lines)}`;
}

function translations(iommu: Iommu, name: string, lines: number): Html {
  const { hits, walks, invalidations } = iommu.total;
  if (name === 'none') {
    return html`<p>No IOMMU stands between devices and memory: there are no translations, and nothing to invalidate.</p>\n`;
  }
  if (hits + walks + invalidations === 0) {
    return html`<p>QEMU's log has no translations: trace the IOMMU, too (-trace 'vtd_*', 'smmu*' or 'virtio_iommu_*').</p>\n`;
  }
  const split = isCached(name)
    ? html`: ${short(hits)} times the translation was in the IOTLB, ${short(walks)} times it was read from the tables`
    : ', and each time the mapping was looked up';
  return html`<p>Devices accessed memory ${short(hits + walks)} times through the IOMMU (${name})${split}.
The guest ${isCached(name) ? 'invalidated cached translations' : 'had mappings removed'} ${short(invalidations)} times.</p>
${figure(translationChart(iommu, name, lines))}
${figure(invalidationChart(iommu, name, lines))}
`;
}

// QEMU's virtio-iommu has no IOTLB.
function isCached(name: string): boolean {
  return name !== 'virtio-iommu';
}

function buffers({ buffers: held, peak, mostDeferred, isLazy }: Iommu, lines: number): Html {
  if (peak === 0) {
    return html`<p>Without a guest's trace that has its mappings (--guest-trace) there is no picture of mapped buffers.</p>\n`;
  }
  const after = isLazy
    ? html` An unmapped buffer stays within the device's reach as long as its translation is cached: ${short(mostDeferred)} waited for an invalidation at most.`
    : undefined;
  const points = (counts: readonly number[]): { x: number; y: number }[] =>
    [...counts, counts.at(-1) ?? 0].map((y, at) => ({ x: Math.min(at * held.step, lines), y }));
  return html`<p>Drivers held ${short(peak)} buffers mapped at most.${after}</p>
${figure(
  lineChart({
    id: 'buffers-chart',
    title: "Buffers over the lines of QEMU's log",
    x: LINE_AXIS,
    y: { label: 'buffers' },
    series: [
      { label: 'mapped', points: points(held.live) },
      ...(isLazy ? [{ label: 'unmapped, not yet invalidated', points: points(held.given) }] : []),
    ],
    shape: 'steps',
  }),
)}
`;
}

const LINE_AXIS = { label: "line of QEMU's log" };

function translationChart(iommu: Iommu, name: string, lines: number): Chart {
  const label = `translations in each ${perSlice(iommu)}`;
  const walks = pointsOf(iommu, 'walks', lines);
  return lineChart({
    id: 'translations-chart',
    title: `Translations over the lines of QEMU's log`,
    x: LINE_AXIS,
    y: { label },
    series: isCached(name)
      ? [
          { label: 'in the IOTLB', points: pointsOf(iommu, 'hits', lines) },
          { label: 'read from the tables', points: walks },
        ]
      : [{ label: 'looked up', points: walks }],
    shape: 'steps',
  });
}

function invalidationChart(iommu: Iommu, name: string, lines: number): Chart {
  const what = isCached(name) ? 'invalidations' : 'removed mappings';
  return lineChart({
    id: 'invalidations-chart',
    title: `Invalidations over the lines of QEMU's log`,
    x: LINE_AXIS,
    y: { label: `${what} in each ${perSlice(iommu)}` },
    series: [{ label: what, points: pointsOf(iommu, 'invalidations', lines) }],
    shape: 'area',
  });
}

function perSlice({ step }: Iommu): string {
  return step === 1 ? 'line' : `${short(step)} lines`;
}

function pointsOf(
  { slices, step }: Iommu,
  what: keyof Iommu['total'],
  lines: number,
): { x: number; y: number }[] {
  const counts = slices.map((slice) => slice[what]);
  return [...counts, counts.at(-1) ?? 0].map((y, at) => ({ x: Math.min(at * step, lines), y }));
}
