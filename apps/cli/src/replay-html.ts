import { basename } from 'node:path';
import { hex } from '@pinhole/base';
import type { ReplayFinding, ReplayReport, RunProfile } from '@pinhole/machine';
import { overTheRun } from './replay-html-iommu.js';
import { hypercallsByRequest, mappers, requests, users } from './replay-html-usage.js';
import {
  occupancyChart,
  pictureLegend,
  poolTable,
  WINDOW_STYLE,
  windowPicture,
} from './replay-html-window.js';
import { conclusion, type FileReport, isClean, type ReplayOutcome } from './replay-outcome.js';
import { checkedRows, differenceRows, places, runRows } from './replay-rows.js';
import { breakable, type Html, html } from './report/html.js';
import { SEVERITY_MARKS } from './report/marks.js';
import { page } from './report/page.js';
import { badge, card, facts, note } from './report/parts.js';
import { short } from './report/scale.js';
import { figure } from './report/svg.js';
import { table } from './report/table.js';

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
        body: html`${checks(report)}${differences(report)}`,
      },
      {
        id: 'findings',
        title: 'Findings',
        body: findings.length === 0 ? html`<p>None.</p>` : html`${findings.map(finding)}`,
      },
      ...(report.inferred.iommu === 'spapr-tce'
        ? [
            { id: 'windows', title: 'Windows', body: windows(profile) },
            { id: 'requests', title: 'Hypercalls per request', body: hypercallsByRequest(profile) },
            { id: 'users', title: 'Who used them', body: users(profile) },
          ]
        : [
            { id: 'iommu', title: 'Over the run', body: overTheRun(profile, report) },
            { id: 'requests', title: 'Requests', body: requests(profile) },
            { id: 'users', title: 'Who mapped memory', body: mappers(profile) },
          ]),
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
  const { cpus, devices, iommu } = report.inferred;
  return facts([
    ["QEMU's log", fileText(qemu)],
    ["guest's trace", guest === undefined ? 'not given' : fileText(guest)],
    ...runRows(report),
    ...(guest === undefined ? [] : [['CPUs', String(cpus ?? 'not known')] as const]),
    ...(iommu === 'spapr-tce' ? Object.entries(devices) : []),
  ]);
}

function fileText({ path, summary: read, cutShort }: FileReport): string {
  const { lines, events, problems } = read;
  const bad = Object.entries(problems)
    .filter(([, count]) => count > 0)
    .map(([kind, count]) => `${short(count)} ${kind}`);
  const rest = bad.length === 0 ? '' : `; ${bad.join(', ')}`;
  const cut = cutShort === undefined ? '' : `; incomplete: ${cutShort}`;
  return `${path}: ${short(lines)} lines, ${short(events)} events${rest}${cut}`;
}

function checks(report: ReplayReport): Html {
  return table({
    label: 'Figures that were checked',
    columns: [
      {
        head: 'what',
        cell: ({ what, about }) => (about === undefined ? what : `${what}: ${about}`),
      },
      { head: 'checked', isNumber: true, cell: ({ count }) => short(count) },
      { head: 'wrong', isNumber: true, cell: ({ wrong }) => short(wrong) },
    ],
    rows: checkedRows(report),
  });
}

function differences(report: ReplayReport): Html | undefined {
  const rows = differenceRows(report);
  if (rows.length === 0) return undefined;
  return html`<h3>The first that differ</h3>
${table({
  label: 'Differences',
  columns: [
    { head: 'where', cell: ({ where }) => where },
    { head: 'what', cell: ({ what }) => what },
    { head: 'recorded', cell: ({ recorded }) => recorded },
    { head: 'the model', cell: ({ model }) => model },
  ],
  rows,
})}`;
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
    const where = places(first);
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
    moreRequests === undefined ? '' : `, or about ${short(moreRequests)} requests,`;
  return `${short(tcesInUse)} of ${short(windowTces)} TCEs in use; ${short(moreMappings)} more mappings${requestsToo} until one finds no room; full at ${short(tcesWhenFull)}`;
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
  const given = leaked === 0 ? '' : `, ${short(leaked)} of them given up by the driver`;
  return html`<section aria-labelledby="${id}"><h3 id="${id}">${name}</h3>
<p>${short(size)} entries of ${short(2 ** pageShift)} bytes at bus address ${hex(busOffset)}: ${short(peak)} in use at most, ${short(live)} at the end${given}.</p>
${figure(occupancyChart(`${id}-time`, occupancy, { lines, name }))}
<p>At its fullest, after line ${short(picture.line)}:</p>
${figure(windowPicture(`${id}-entries`, window, picture, name))}
${pictureLegend(window, picture)}
${poolTable(window, picture)}</section>
`;
}
