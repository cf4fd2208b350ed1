/**
 * A single changed digit shows on x86 and arm64, too: one at a time, in every field of both files.
 * What cannot show is listed in NOT_CHECKED with the reason.
 */
import { createRng } from '@pinhole/base';
import { findRecording } from '@pinhole/recordings';
import { expect, test } from 'vitest';
import { mismatchesOf } from '../../src/index.js';
import { filesOf, problemsOf, replayRun } from '../replay-run.js';

/** Fields, as `event.field`, and why a digit of theirs need not show. */
const NOT_CHECKED: readonly (readonly [field: RegExp, why: string])[] = [
  [/dma_alloc\.device/, 'a device may only allocate, or have allocated before the trace began'],
  [/dma_alloc\.virt_addr/, 'where KASLR put the linear map, nothing else says'],
  [/dma_alloc\.size/, 'the same number of pages, in memory that is not given back in the trace'],
  [/virtio_blk_handle_\w+\.sector/, 'what a request asks for is in memory, in neither file'],
  [/virtqueue_alloc_element\.size/, "of QEMU's own structure"],
  [/virtio_set_status\.val/, 'a driver may have taken another step'],
  [/virtio_set_status\.vdev/, 'there may be a device that is only reset'],
  [/virtio_blk_req_complete\.status/, 'the request may have failed: a finding'],
  [/vtd_iotlb_page_\w+\.iova low/, 'another byte of the same buffer'],
  [/virtio_iommu_translate\.flag/, 'a ring may be read and written'],
  [/smmuv3_cmdq_cfgi_/, 'a stream is configured in memory: what changed there is in neither file'],
  [/virtio_iommu_attach\.domain/, 'the second device does nothing, in any domain'],
  [/virtio_iommu_fill_resv_property\.subtype/, 'the two types are both reserved'],
];

interface Lines {
  readonly qemu: readonly string[];
  readonly guest: readonly string[];
}

interface Place {
  readonly file: keyof Lines;
  readonly field: string;
  readonly line: number;
  readonly at: number;
  readonly isHex: boolean;
}

const GUEST_LINE = /^ *\S+-\d+ +\[(\d+)\] \S+ +[\d.]+: (?!tracing_mark)(\w+): /;
const DEVICE = /[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]/g;
const GUEST_FIELD = /\b(\w+)=(0x)?([0-9a-f]+)\b/g;
const END = / - (0x)([0-9a-f]+) /g;
const QEMU_FIELD = /\b(\w+)(?: |=|= )(0x)?([0-9a-f]+)(?=$|[ ,])/g;
/** A translation of virtio-iommu: from where, and to where. */
const ARROW = /(0x)([0-9a-f]+) -> (0x)([0-9a-f]+)/;

function digitsOf(value: string, from: number, place: Omit<Place, 'at'>): Place[] {
  return [...value].flatMap((digit, i) =>
    /[0-9a-f]/.test(digit) ? [{ ...place, at: from + i }] : [],
  );
}

function guestPlaces(text: string, line: number): Place[] {
  const head = GUEST_LINE.exec(text);
  if (head === null) return [];
  const [start, cpu = '', event] = head;
  const rest = text.slice(start.length);
  const place = (field: string, isHex: boolean) =>
    ({ file: 'guest', line, field: `${event}.${field}`, isHex }) as const;
  const places = digitsOf(cpu, text.indexOf('[') + 1, place('cpu', false));
  for (const { 0: name, index } of rest.matchAll(DEVICE)) {
    places.push(...digitsOf(name, start.length + index, place('device', false)));
  }
  for (const [all, name = '', , value = ''] of rest.matchAll(GUEST_FIELD)) {
    if (name === 'flags' || name === 'attrs' || name === 'dir') continue;
    const from = start.length + rest.indexOf(all) + all.length - value.length;
    places.push(...digitsOf(value, from, place(name, !/size/.test(name))));
  }
  for (const { 0: all, 2: value = '', index } of rest.matchAll(END)) {
    places.push(
      ...digitsOf(value, start.length + index + all.indexOf(value, 5), place('end', true)),
    );
  }
  return places;
}

function qemuPlaces(text: string, line: number): Place[] {
  const event = /^(\w+) /.exec(text)?.[1] ?? '';
  const place = (field: string, isHex: boolean) =>
    ({ file: 'qemu', line, field: `${event}.${field}`, isHex }) as const;
  const arrow = ARROW.exec(text);
  const ends = arrow === null || text.includes('iova') ? [] : [arrow[2] ?? '', arrow[4] ?? ''];
  const arrows = ends.flatMap((value, i) => {
    const from = i === 0 ? text.indexOf(value) : text.lastIndexOf(` 0x${value}`) + 3;
    return digitsOf(value, from, place(i === 0 ? 'from' : 'to', true));
  });
  const fields = [...text.matchAll(QEMU_FIELD)].flatMap(
    ({ 0: all, 1: name, 2: hex, 3: value = '', index }) => {
      if (hex === undefined && !/^\d+$/.test(value)) return [];
      const from = index + all.length - value.length;
      const places = digitsOf(value, from, place(name as string, hex !== undefined));
      if (name !== 'iova' || event === 'vtd_dmar_translate') return places;
      return places.map((at, i) =>
        i < value.length - 3 ? at : { ...at, field: `${at.field} low` },
      );
    },
  );
  return [...arrows, ...fields];
}

/** A recording's last boot, up to its 1 MiB reads. */
function sliceOf(name: string): Lines {
  const { qemu, guest } = filesOf(findRecording(name) as never);
  const split = (bytes: Uint8Array): string[] => Buffer.from(bytes).toString('latin1').split('\n');
  const all = split(guest);
  const lines = all.slice(
    0,
    all.findIndex((text) => text.includes('MARK READ1M')),
  );
  const log = split(qemu);
  // The devices of the last boot have other names.
  const vdev = / vdev (\w+)/.exec(
    log.findLast((text) => text.includes('_blk_handle')) as string,
  )?.[1];
  const begin = name.includes('-virtio-iommu')
    ? 0
    : log.findIndex((text) => text.includes(` vdev ${vdev} `));
  const headers = lines.filter((text) => / dir=TO_DEVICE .* size=16 phys/.test(text)).length;
  // The firmware of a PC reads one sector.
  let left = headers + (name.includes('-x86-') ? 1 : 0);
  const queue = / vdev \S+ n 0 (vq \w+)/.exec(
    log.find(
      (text, i) =>
        i >= begin && text.startsWith('virtio_queue_notify') && text.includes(vdev ?? ''),
    ) ?? '',
  )?.[1];
  const end = log.findIndex((text, i) => {
    if (i >= begin && text.startsWith(`virtqueue_flush ${queue} `)) left -= 1;
    return left === 0;
  });
  return { guest: lines, qemu: log.slice(begin, end + 1) };
}

// What the console says of the machine is true.
const CONSOLE = Buffer.from('[    0.682890] smp: Brought up 1 node, 1 CPU\n');

function run({ qemu, guest }: Lines): ReturnType<typeof replayRun> {
  const bytes = (lines: readonly string[]): Uint8Array => Buffer.from(`${lines.join('\n')}\n`);
  return replayRun({ qemu: bytes(qemu), guest: bytes(guest), console: CONSOLE });
}

function isNoticed(lines: Lines): boolean {
  const result = run(lines);
  return (
    mismatchesOf(result.report) > 0 ||
    problemsOf(result) > 0 ||
    result.isRefused ||
    result.report.findings.some(({ severity }) => severity === 'error')
  );
}

const RUNS: readonly (readonly [name: string, perField: number])[] = [
  ['linux6.12-x86-plain', 4],
  ['linux6.12-x86-swiotlb', 4],
  ['linux6.12-x86-intel-iommu', 4],
  ['linux6.12-x86-virtio-iommu', 3],
  ['linux6.12-arm64-plain', 2],
  ['linux6.12-arm64-swiotlb', 2],
  ['linux6.12-arm64-smmuv3', 4],
  ['linux6.12-arm64-virtio-iommu', 3],
];

test.each(RUNS)(
  '%s: one digit in every field',
  (name, perField) => {
    const lines = sliceOf(name);
    const rng = createRng(20_241_130);
    const original = run(lines);
    expect(original.report.guest?.mismatches).toEqual([]);
    expect(original.report.guest?.requestsJoined).toBeGreaterThanOrEqual(21);
    expect(mismatchesOf(original.report) + problemsOf(original)).toBe(0);

    const byField = new Map<string, Place[]>();
    for (const place of [...lines.guest.flatMap(guestPlaces), ...lines.qemu.flatMap(qemuPlaces)]) {
      if (NOT_CHECKED.some(([pattern]) => pattern.test(place.field))) continue;
      const list = byField.get(place.field);
      if (list === undefined) byField.set(place.field, [place]);
      else list.push(place);
    }
    expect(byField.size).toBeGreaterThan(20);
    const unnoticed: string[] = [];
    for (const places of byField.values()) {
      for (let i = 0; i < perField; i += 1) {
        const { file, line, at, isHex } = places[rng.below(places.length)] as Place;
        const text = lines[file][line] as string;
        const base = isHex ? 16 : 10;
        const digit = Number.parseInt(text[at] as string, 16);
        const other = ((digit + 1 + rng.below(base - 1)) % base).toString(base);
        const changed = text.slice(0, at) + other + text.slice(at + 1);
        if (isNoticed({ ...lines, [file]: lines[file].with(line, changed) })) continue;
        unnoticed.push(`${file}, line ${line + 1}: ${text.trim()} => ${changed.trim()}`);
      }
    }
    expect(unnoticed).toEqual([]);
  },
  120_000,
);
