/** Who used the IOMMU, by request and by device. */
import type { RunProfile } from '@pinhole/machine';
import { barChart } from './report/chart-bars.js';
import { type Html, html } from './report/html.js';
import { short } from './report/scale.js';
import { type Chart, figure } from './report/svg.js';
import { type TableColumn, table } from './report/table.js';

/** More rows are not shown. */
const MAX_ROWS = 50;
const MAX_BARS = 24;

const NO_REQUESTS = html`<p>QEMU's log has no virtqueue_pop: trace virtqueue_* and virtio_queue_notify, too.</p>`;

/** Hypercalls of requests, by virtqueue. */
export function hypercallsByRequest(profile: RunProfile): Html {
  const { histogram, openRequests } = profile;
  const queues = queuesOf(profile);
  if (queues.length === 0) return NO_REQUESTS;
  const open =
    openRequests === 0
      ? undefined
      : html`<p>${short(openRequests)} requests still had buffers mapped at the end; they count with the hypercalls that they had by then.</p>\n`;
  return html`<p>A request is what a device takes off a virtqueue (virtqueue_pop in QEMU's log) until it puts it back (virtqueue_fill).
A hypercall that maps belongs to the first request that the device takes after it accessed what was mapped: QEMU translates a
request's buffers just before it logs virtqueue_pop. A hypercall that unmaps belongs to the request of what it unmaps; one that unmaps for
several belongs to the first. Rings and other coherent memory of the guest's trace belong to no request. Where several threads serve
virtqueues at the same time, an access between two of their virtqueue_pop may count for the wrong one.</p>
${open}${figure(requestHistogram('requests-chart', histogram))}
${table({
  label: 'Virtqueues',
  columns: [
    ...QUEUE_COLUMNS,
    {
      head: 'hypercalls per request',
      isNumber: true,
      cell: (queue) => (queue.hypercalls / queue.requests).toFixed(2),
    },
    { head: 'most', isNumber: true, cell: ({ most }) => short(most) },
  ],
  rows: queues,
})}`;
}

/** Requests, by virtqueue. */
export function requests(profile: RunProfile): Html {
  const rows = queuesOf(profile);
  if (rows.length === 0) return NO_REQUESTS;
  return table({ label: 'Virtqueues', columns: QUEUE_COLUMNS, rows });
}

type Queue = RunProfile['queues'] extends Map<string, infer Q> ? Q : never;

const QUEUE_COLUMNS: readonly TableColumn<Queue>[] = [
  {
    head: 'virtqueue',
    cell: ({ vq, vdev, number }) => (vdev === undefined ? vq : `queue ${number} of ${vdev}`),
  },
  { head: 'requests', isNumber: true, cell: (queue) => short(queue.requests) },
  { head: 'completed', isNumber: true, cell: ({ completed }) => short(completed) },
];

function queuesOf({ queues }: RunProfile): Queue[] {
  return [...queues.values()]
    .filter((queue) => queue.requests > 0)
    .sort((a, b) => b.requests - a.requests)
    .slice(0, MAX_ROWS);
}

type Device = RunProfile['devices'] extends Map<string, infer D> ? D : never;

const DEVICE_COLUMNS: readonly TableColumn<Device>[] = [
  { head: 'device', cell: ({ device }) => device || "not known from the guest's trace" },
  { head: 'maps', isNumber: true, cell: ({ maps }) => short(maps) },
];

/** What each device did with windows. */
export function users({ devices }: RunProfile): Html {
  const rows = [...devices.values()]
    .sort((a, b) => b.hypercalls + b.translations - (a.hypercalls + a.translations))
    .slice(0, MAX_ROWS);
  return html`<p>A translation counts for the device whose mapping was accessed. Not known are rings that were set up before the trace began,
firmware, the kernel's clearing of the window, and a direct mapping that was accessed elsewhere than at its start.</p>
${table({
  label: 'Devices',
  columns: [
    ...DEVICE_COLUMNS,
    { head: 'TCEs', isNumber: true, cell: ({ tces }) => short(tces) },
    { head: 'hypercalls', isNumber: true, cell: ({ hypercalls }) => short(hypercalls) },
    { head: 'translations', isNumber: true, cell: ({ translations }) => short(translations) },
  ],
  rows,
})}`;
}

/** How often each device mapped. */
export function mappers({ devices }: RunProfile): Html {
  const rows = [...devices.values()].sort((a, b) => b.maps - a.maps).slice(0, MAX_ROWS);
  return table({ label: 'Devices', columns: DEVICE_COLUMNS, rows });
}

// How many requests took how many hypercalls: a bar for each number, or for a range of them.
function requestHistogram(id: string, histogram: ReadonlyMap<number, number>): Chart {
  return barChart({
    id,
    title: 'Requests by the number of their hypercalls',
    axis: 'requests',
    rowAxis: 'hypercalls',
    parts: ['requests'],
    rows: rowsOf(histogram),
  });
}

// Numbers that no request has are left out.
function rowsOf(histogram: ReadonlyMap<number, number>): { label: string; values: number[] }[] {
  const numbers = [...histogram.keys()].sort((a, b) => a - b);
  const width = numbers.length <= MAX_BARS ? 1 : Math.ceil(((numbers.at(-1) ?? 0) + 1) / MAX_BARS);
  const bars = new Map<number, number>();
  for (const hypercalls of numbers) {
    const start = hypercalls - (hypercalls % width);
    bars.set(start, (bars.get(start) ?? 0) + (histogram.get(hypercalls) ?? 0));
  }
  return [...bars].map(([start, requests]) => ({
    label: width === 1 ? String(start) : `${start} to ${start + width - 1}`,
    values: [requests],
  }));
}
