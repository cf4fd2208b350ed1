import { basename } from 'node:path';
import { hex } from '@pinhole/base';
import type { ReplayFinding, ReplayReport, RunProfile } from '@pinhole/machine';
import { requestHistogram } from './replay-html-requests.js';
import {
  occupancyChart,
  pictureLegend,
  poolTable,
  WINDOW_STYLE,
  windowPicture,
} from './replay-html-window.js';
import { conclusion, type FileReport, isClean, type ReplayOutcome } from './replay-text.js';
import { breakable, type Html, html } from './report/html.js';
import { SEVERITY_MARKS } from './report/marks.js';
import { page } from './report/page.js';
import { badge, card, facts, note } from './report/parts.js';
import { figure } from './report/svg.js';
import { type TableColumn, table } from './report/table.js';

const MAX_ROWS = 50;
const MAX_WINDOWS = 16;

type Profile = RunProfile;
type Window = Profile['windows'] extends Map<number, infer W> ? W : never;

/** A replay as one page, made by `command`. */
export function renderReplayHtml(
  outcome: ReplayOutcome,
  profile: Profile,
  command: string,
): string {
  const { report, qemu } = outcome;
  const { findings } = report;
  return page({
    title: `Replay of ${basename(qemu.path)}`,
    intro: note(isClean(outcome) ? 'good' : 'bad', html`<b>${verdict(outcome)}</b>`),
    sections: [
      { id: 'run', title: 'The run', body: summary(outcome) },
      {
        id: 'checked',
        title: 'Checked against the model',
        body: html`${checks(report)}${mismatches(report)}`,
      },
      {
        id: 'findings',
        title: 'Findings',
        body: findings.length === 0 ? html`<p>None.</p>` : html`${findings.map(finding)}`,
      },
      { id: 'windows', title: 'Windows', body: windows(profile) },
      { id: 'requests', title: 'Hypercalls per request', body: requests(profile) },
      { id: 'users', title: 'Who used them', body: users(profile) },
    ],
    command,
    style: WINDOW_STYLE,
  });
}

function verdict(outcome: ReplayOutcome): string {
  const { findings } = outcome.report;
  const errors = findings.filter(({ severity }) => severity === 'error').length;
  const others = findings.length - errors;
  const found = `${errors === 0 ? 'No' : errors} finding${errors === 1 ? '' : 's'} of severity error${others === 0 ? '' : `, ${others} other${others === 1 ? '' : 's'}`}.`;
  return `${conclusion(outcome)} ${found}`;
}

function summary({ qemu, guest, report }: ReplayOutcome): Html {
  const { kernel, kernelFrom, guestPageSize, ddw, boots, cpus, devices } = report.inferred;
  const rows: [string, string][] = [
    ["QEMU's log", fileText(qemu)],
    ["Guest's trace", guest === undefined ? 'not given' : fileText(guest)],
  ];
  if (guest !== undefined) {
    rows.push(['Kernel', `${kernel} (${kernelFrom}), pages of ${guestPageSize} bytes`]);
    rows.push(['CPUs', cpus === null ? 'not known' : String(cpus)]);
  }
  rows.push(['Boots', String(boots)], ['Second window', ddw]);
  for (const [device, route] of Object.entries(devices)) rows.push([device, route]);
  return facts(rows);
}

function fileText({ path, summary: read, cutShort }: FileReport): string {
  const { lines, events, problems } = read;
  const bad = Object.entries(problems)
    .filter(([, count]) => count > 0)
    .map(([kind, count]) => `${number(count)} ${kind}`);
  const rest = bad.length === 0 ? '' : `; ${bad.join(', ')}`;
  const cut = cutShort === undefined ? '' : `; incomplete: ${cutShort}`;
  return `${path}: ${number(lines)} lines, ${number(events)} events${rest}${cut}`;
}

function checks({ hypervisor, guest }: ReplayReport): Html {
  const rows: [string, number, number][] = [
    ['TCE hypercalls: what QEMU returned', hypervisor.hcalls, hypervisor.hcallMismatches],
    ['translations of device accesses', hypervisor.translations, hypervisor.translationMismatches],
    ['RTAS calls about windows', hypervisor.rtasCalls, hypervisor.rtasMismatches],
  ];
  if (guest !== null) {
    const { maps, unmaps, allocs, frees } = guest;
    const operations = maps + unmaps + allocs + frees;
    if (operations > 0) {
      rows.push(
        ["DMA addresses that the guest's kernel gave", operations, guest.dmaAddressMismatches],
        ['hypercalls that it made for them', guest.hcallsPredicted, guest.hcallMismatches],
      );
    }
    if (guest.hcallsByKind > 0) {
      const addresses = guest.consistentAddresses + guest.inconsistentAddresses;
      rows.push(
        ['hypercalls without a reason in the trace', guest.hcallsByKind, 0],
        ['their addresses', addresses, guest.inconsistentAddresses],
      );
    }
  }
  const body = rows.map(([what, count, wrong]) => [what, number(count), number(wrong)]);
  return textTable('Figures that were checked', ['what', 'checked', 'wrong'], body);
}

function mismatches({ hypervisor, guest }: ReplayReport): Html | undefined {
  const rows = [
    ...hypervisor.mismatches.map(({ line, event, what, logged, model }) => [
      `QEMU line ${line}`,
      `${event}: ${what}`,
      logged,
      model,
    ]),
    ...(guest?.mismatches ?? []).map(({ guestLine, qemuLine, what, recorded, model }) => [
      places(guestLine, qemuLine),
      what,
      recorded,
      model,
    ]),
  ];
  if (rows.length === 0) return undefined;
  const head = ['where', 'what', 'recorded', 'the model'];
  return html`<h3>The first that differ</h3>\n${textTable('Differences', head, rows, head.length)}`;
}

function finding({
  code,
  severity,
  summary: text,
  evidence,
  remedy,
  forecast,
}: ReplayFinding): Html {
  const { first } = evidence;
  const mark = SEVERITY_MARKS[severity];
  const rows: [string, string][] = [];
  if (first !== undefined) {
    const where = places(first.guestLine, first.qemuLine);
    rows.push(['First', [where, first.text].filter(Boolean).join(': ')]);
  }
  if (forecast !== undefined) rows.push(['Forecast', forecastText(forecast)]);
  rows.push(['What to do', remedy]);
  return card(
    html`${badge(mark)} ${breakable(code)}`,
    mark.tone,
    html`<p>${text}</p>\n`,
    facts(rows),
  );
}

function forecastText(forecast: NonNullable<ReplayFinding['forecast']>): string {
  const { tcesInUse, windowTces, moreMappings, moreRequests, tcesWhenFull } = forecast;
  const requestsToo =
    moreRequests === undefined ? '' : `, or about ${number(moreRequests)} requests,`;
  return `${number(tcesInUse)} of ${number(windowTces)} TCEs in use; ${number(moreMappings)} more mappings${requestsToo} until one finds no room; full at ${number(tcesWhenFull)}`;
}

function places(guestLine: number | undefined, qemuLine: number | undefined): string {
  return [
    ...(guestLine === undefined ? [] : [`guest line ${guestLine}`]),
    ...(qemuLine === undefined ? [] : [`QEMU line ${qemuLine}`]),
  ].join(', ');
}

function windows(profile: Profile): Html {
  const used = [...profile.windows.values()].filter(({ peak }) => peak > 0);
  if (used.length === 0) return html`<p>No entry of any window was ever mapped.</p>`;
  const more = used.length - MAX_WINDOWS;
  return html`${used.slice(0, MAX_WINDOWS).map((window) => windowSection(window, profile))}${more > 0 ? html`<p>And ${more} more windows.</p>` : undefined}`;
}

function windowSection(window: Window, { lines }: Profile): Html {
  const { liobn, busOffset, pageShift, size, peak, live, leaked, occupancy } = window;
  const name = `Window ${hex(liobn)}`;
  const id = `w${liobn.toString(16)}`;
  const picture = window.picture();
  const given = leaked === 0 ? '' : `, ${number(leaked)} of them given up by the driver`;
  return html`<section aria-labelledby="${id}"><h3 id="${id}">${name}</h3>
<p>${number(size)} entries of ${number(2 ** pageShift)} bytes at bus address ${hex(busOffset)}: ${number(peak)} in use at most, ${number(live)} at the end${given}.</p>
${figure(occupancyChart(`${id}-time`, occupancy, { lines, name }))}
<p>At its fullest, after line ${number(picture.line)}:</p>
${figure(windowPicture(`${id}-entries`, window, picture, name))}
${pictureLegend(window, picture)}
${poolTable(window, picture)}</section>
`;
}

function requests({ histogram, queues, openRequests }: Profile): Html {
  const all = [...queues.values()].filter((queue) => queue.requests > 0);
  if (all.length === 0) {
    return html`<p>QEMU's log has no virtqueue_pop: trace virtqueue_* and virtio_queue_notify, too.</p>`;
  }
  all.sort((a, b) => b.requests - a.requests);
  const rows = all.slice(0, MAX_ROWS).map((queue) => {
    const { vq, vdev, number: index, hypercalls, most, completed } = queue;
    const where = vdev === undefined ? vq : `queue ${index} of ${vdev}`;
    const mean = (hypercalls / queue.requests).toFixed(2);
    return [where, ...[queue.requests, completed].map(number), mean, number(most)];
  });
  const open =
    openRequests === 0
      ? undefined
      : html`<p>${number(openRequests)} requests still had buffers mapped at the end; they count with the hypercalls that they had by then.</p>\n`;
  const head = ['virtqueue', 'requests', 'completed', 'hypercalls per request', 'most'];
  return html`<p>A request is what a device takes off a virtqueue (virtqueue_pop in QEMU's log) until it puts it back (virtqueue_fill).
A hypercall that maps belongs to the first request that the device takes after it accessed what was mapped: QEMU translates a
request's buffers just before it logs virtqueue_pop. A hypercall that unmaps belongs to the request of what it unmaps; one that unmaps for
several belongs to the first. Rings and other coherent memory of the guest's trace belong to no request. Where several threads serve
virtqueues at the same time, an access between two of their virtqueue_pop may count for the wrong one.</p>
${open}${figure(requestHistogram('requests-chart', histogram))}
${textTable('Virtqueues', head, rows)}`;
}

function users({ devices }: Profile): Html {
  const all = [...devices.values()].sort(
    (a, b) => b.hypercalls + b.translations - (a.hypercalls + a.translations),
  );
  const rows = all
    .slice(0, MAX_ROWS)
    .map(({ device, ...use }) => [
      device === '' ? "not known from the guest's trace" : device,
      ...[use.maps, use.tces, use.hypercalls, use.translations].map(number),
    ]);
  return html`<p>A translation counts for the device whose mapping was accessed. Not known are rings that were set up before the trace began,
firmware, the kernel's clearing of the window, and a direct mapping that was accessed elsewhere than at its start.</p>
${textTable('Devices', ['device', 'maps', 'TCEs', 'hypercalls', 'translations'], rows)}`;
}

// The columns from `figures` on are numbers.
function textTable(
  label: string,
  head: readonly string[],
  rows: readonly (readonly string[])[],
  figures = 1,
): Html {
  const columns = head.map(
    (text, at): TableColumn<readonly string[]> => ({
      head: text,
      isNumber: at >= figures,
      cell: (cells) => cells[at] ?? '',
    }),
  );
  return table({ label, columns, rows });
}

function number(count: number): string {
  return count.toLocaleString('en');
}
