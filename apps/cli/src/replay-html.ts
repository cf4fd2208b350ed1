import { basename } from 'node:path';
import { hex } from '@pinhole/base';
import type { ReplayFinding, ReplayReport, RunProfile } from '@pinhole/machine';
import { breakable, escapeHtml } from './compare-html-text.js';
import { occupancyChart, requestHistogram } from './replay-html-chart.js';
import { REPLAY_STYLE } from './replay-html-style.js';
import { pictureLegend, poolTable, windowPicture } from './replay-html-window.js';
import { conclusion, type FileReport, isClean, type ReplayOutcome } from './replay-text.js';

const POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
const MAX_ROWS = 50;
const MAX_WINDOWS = 16;

type Profile = RunProfile;
type Window = Profile['windows'] extends Map<number, infer W> ? W : never;

/** A replay as one page: no network, no script. */
export function renderReplayHtml(outcome: ReplayOutcome, profile: Profile): string {
  const { report, qemu } = outcome;
  const title = `Replay of ${basename(qemu.path)}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Pinhole: ${escapeHtml(title)}</title>
<style>${REPLAY_STYLE}</style>
</head>
<body>
<main>
<h1>${breakable(title)}</h1>
<p class="verdict ${isClean(outcome) ? 'good' : 'bad'}">${escapeHtml(verdict(outcome))}</p>
<h2>The run</h2>
${summary(outcome)}
<h2>Checked against the model</h2>
${checks(report)}
${mismatches(report)}
<h2>Findings</h2>
${report.findings.length === 0 ? '<p>None.</p>' : report.findings.map(finding).join('\n')}
<h2>Windows</h2>
${windows(profile)}
<h2>Hypercalls per request</h2>
${requests(profile)}
<h2>Who used them</h2>
${users(profile)}
</main>
</body>
</html>
`;
}

function verdict(outcome: ReplayOutcome): string {
  const { findings } = outcome.report;
  const errors = findings.filter(({ severity }) => severity === 'error').length;
  const others = findings.length - errors;
  const found = `${errors === 0 ? 'No' : errors} finding${errors === 1 ? '' : 's'} of severity error${others === 0 ? '' : `, ${others} other${others === 1 ? '' : 's'}`}.`;
  return `${conclusion(outcome)} ${found}`;
}

function summary({ qemu, guest, report }: ReplayOutcome): string {
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
  return `<dl>${rows.map(([term, text]) => `<dt>${escapeHtml(term)}</dt><dd>${breakable(text)}</dd>`).join('')}</dl>`;
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

function checks({ hypervisor, guest }: ReplayReport): string {
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
  return table('Figures that were checked', ['what', 'checked', 'wrong'], body);
}

function mismatches({ hypervisor, guest }: ReplayReport): string {
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
  if (rows.length === 0) return '';
  return `<h3>The first that differ</h3>${table('Differences', ['where', 'what', 'recorded', 'the model'], rows, 0)}`;
}

function finding({
  code,
  severity,
  summary: text,
  evidence,
  remedy,
  forecast,
}: ReplayFinding): string {
  const { first } = evidence;
  const where = first === undefined ? '' : places(first.guestLine, first.qemuLine);
  const evidenceText =
    first === undefined
      ? ''
      : `<dt>First</dt><dd>${escapeHtml([where, first.text].filter(Boolean).join(': '))}</dd>`;
  const future =
    forecast === undefined
      ? ''
      : `<dt>Forecast</dt><dd>${number(forecast.tcesInUse)} of ${number(forecast.windowTces)} TCEs in use; ${number(forecast.moreMappings)} more mappings${forecast.moreRequests === undefined ? '' : `, or about ${number(forecast.moreRequests)} requests,`} until one finds no room; full at ${number(forecast.tcesWhenFull)}</dd>`;
  return `<article class="${severity}"><h3>${breakable(code)} <span class="severity">${severity}</span></h3>
<p>${escapeHtml(text)}</p>
<dl>${evidenceText}${future}<dt>What to do</dt><dd>${escapeHtml(remedy)}</dd></dl></article>`;
}

function places(guestLine: number | undefined, qemuLine: number | undefined): string {
  return [
    ...(guestLine === undefined ? [] : [`guest line ${guestLine}`]),
    ...(qemuLine === undefined ? [] : [`QEMU line ${qemuLine}`]),
  ].join(', ');
}

function windows(profile: Profile): string {
  const used = [...profile.windows.values()].filter(({ peak }) => peak > 0);
  if (used.length === 0) return '<p>No entry of any window was ever mapped.</p>';
  const more = used.length - MAX_WINDOWS;
  return `${used
    .slice(0, MAX_WINDOWS)
    .map((window) => windowSection(window, profile))
    .join('\n')}${more > 0 ? `<p>And ${more} more windows.</p>` : ''}`;
}

function windowSection(window: Window, { lines }: Profile): string {
  const { liobn, busOffset, pageShift, size, peak, live, leaked, occupancy } = window;
  const name = `Window ${hex(liobn)}`;
  const id = `w${liobn.toString(16)}`;
  const picture = window.picture();
  const given = leaked === 0 ? '' : `, ${number(leaked)} of them given up by the driver`;
  return `<section aria-labelledby="${id}"><h3 id="${id}">${name}</h3>
<p>${number(size)} entries of ${number(2 ** pageShift)} bytes at bus address ${hex(busOffset)}: ${number(peak)} in use at most, ${number(live)} at the end${given}.</p>
${occupancyChart(`${id}-time`, occupancy, { lines, size, name })}
<p>At its fullest, after line ${number(picture.line)}:</p>
${windowPicture(`${id}-entries`, window, picture, name)}
${pictureLegend(window, picture)}
${poolTable(window, picture)}</section>`;
}

function requests({ histogram, queues, openRequests }: Profile): string {
  const all = [...queues.values()].filter((queue) => queue.requests > 0);
  if (all.length === 0) {
    return "<p>QEMU's log has no virtqueue_pop: trace virtqueue_* and virtio_queue_notify, too.</p>";
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
      ? ''
      : `<p>${number(openRequests)} requests still had buffers mapped at the end; they count with the hypercalls that they had by then.</p>`;
  return `<p>A request is what a device takes off a virtqueue (virtqueue_pop in QEMU's log) until it puts it back (virtqueue_fill).
A hypercall that maps belongs to the first request that the device takes after it accessed what was mapped: QEMU translates a
request's buffers just before it logs virtqueue_pop. A hypercall that unmaps belongs to the request of what it unmaps; one that unmaps for
several belongs to the first. Rings and other coherent memory of the guest's trace belong to no request. Where several threads serve
virtqueues at the same time, an access between two of their virtqueue_pop may count for the wrong one.</p>
${open}${requestHistogram('requests', histogram)}
${table('Virtqueues', ['virtqueue', 'requests', 'completed', 'hypercalls per request', 'most'], rows)}`;
}

function users({ devices }: Profile): string {
  const all = [...devices.values()].sort(
    (a, b) => b.hypercalls + b.translations - (a.hypercalls + a.translations),
  );
  const rows = all
    .slice(0, MAX_ROWS)
    .map(({ device, ...use }) => [
      device === '' ? "not known from the guest's trace" : device,
      ...[use.maps, use.tces, use.hypercalls, use.translations].map(number),
    ]);
  return `<p>A translation counts for the device whose mapping was accessed. Not known are rings that were set up before the trace began,
firmware, the kernel's clearing of the window, and a direct mapping that was accessed elsewhere than at its start.</p>
${table('Devices', ['device', 'maps', 'TCEs', 'hypercalls', 'translations'], rows)}`;
}

// The first column names the row, the others from `figuresFrom` on are numbers.
function table(
  label: string,
  head: readonly string[],
  rows: readonly (readonly string[])[],
  figures = 1,
): string {
  const isFigure = (i: number): boolean => figures > 0 && i >= figures;
  const columns = head
    .map((text, i) => `<th scope="col"${isFigure(i) ? ' class="n"' : ''}>${escapeHtml(text)}</th>`)
    .join('');
  const body = rows.map(
    (cells) =>
      `<tr>${cells
        .map((text, i) => {
          if (i === 0) return `<th scope="row">${breakable(text)}</th>`;
          if (!isFigure(i)) return `<td>${breakable(text)}</td>`;
          return `<td class="n${text === '0' ? ' zero' : ''}">${escapeHtml(text)}</td>`;
        })
        .join('')}</tr>`,
  );
  return `<div class="scroll" role="region" aria-label="${escapeHtml(label)}" tabindex="0"><table><thead><tr>${columns}</tr></thead><tbody>${body.join('')}</tbody></table></div>`;
}

function number(count: number): string {
  return count.toLocaleString('en');
}
