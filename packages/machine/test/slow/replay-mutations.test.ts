/**
 * A single changed digit in an input shows. One digit at a time, in every field of both files; what
 * cannot show, or does not, is listed in NOT_CHECKED with the reason.
 */
import { createRng } from '@pinhole/base';
import { findRecording } from '@pinhole/recordings';
import { expect, test } from 'vitest';
import { mismatchesOf } from '../../src/index.js';
import { filesOf, problemsOf, type RunFiles, replayRun } from '../replay-run.js';

/** Fields, as `file event.field`, and why a digit of theirs need not show. */
const NOT_CHECKED: readonly (readonly [field: RegExp, why: string])[] = [
  [/dma_alloc\.device/, 'a device may only allocate, or have allocated before the trace began'],
  [/dma_alloc\.size/, 'the same number of pages, in memory that is not given back in the trace'],
  [/xlate\.ioba/, 'another byte of the same buffer: a TCE says nothing about it'],
  [/ddw_\w+\.addr/, 'QEMU takes any configuration address of the host bridge'],
  [/pci_indirect\.(ioba|tceN) 2/, 'a second window is mapped once, and only used in part'],
];

interface Place {
  readonly file: 'guest' | 'qemu';
  readonly field: string;
  readonly line: number;
  readonly at: number;
  readonly isHex: boolean;
}

const GUEST_LINE = /^ *\S+-\d+ +\[(\d+)\] \S+ +[\d.]+: (?!tracing_mark)(\w+): /;
const GUEST_FIELD = /\b(dma_addr|size|phys_addr|virt_addr|opcode|retval)=([0-9a-f]+)/g;
const DEVICE = /^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]/;
const QEMU_LINE = /^spapr_iommu_(\w+) /;
const QEMU_FIELD = /(?:([a-zA-Z]+)=|( |-> ))(0x)?([0-9a-f]+)(?= |,|$)/g;
/** Where an object is in QEMU's memory, a descriptor, where the guest keeps its list. */
const QEMU_OTHER = new Set(['table', 'fd', 'tcelist']);

function digits(from: number, text: string, place: Omit<Place, 'at'>): Place[] {
  return [...text].flatMap((digit, i) =>
    /[0-9a-f]/.test(digit) ? [{ ...place, at: from + i }] : [],
  );
}

function guestPlaces(text: string, line: number): Place[] {
  const head = GUEST_LINE.exec(text);
  if (head === null) return [];
  const [start, cpu = '', event] = head;
  const place = { file: 'guest', line } as const;
  const rest = text.slice(start.length);
  const named = (field: string, isHex: boolean) => ({
    ...place,
    field: `${event}.${field}`,
    isHex,
  });
  return [
    ...digits(text.indexOf('[') + 1, cpu, named('cpu', false)),
    ...digits(start.length, DEVICE.exec(rest)?.[0] ?? '', named('device', false)),
    ...[...rest.matchAll(GUEST_FIELD)].flatMap(({ 0: all, 1: field = '', 2: value = '', index }) =>
      digits(
        start.length + index + all.length - value.length,
        value,
        named(field, field.includes('addr')),
      ),
    ),
  ];
}

function qemuPlaces(text: string, line: number): Place[] {
  const event = QEMU_LINE.exec(text)?.[1];
  if (event === undefined) return [];
  return [...text.matchAll(QEMU_FIELD)].flatMap(([all, name, before, hex, value = ''], i) => {
    const field = name ?? (before === ' ' ? 'ioba' : 'tce');
    if (QEMU_OTHER.has(field) || (hex === undefined && !/^\d+$/.test(value))) return [];
    const matches = [...text.matchAll(QEMU_FIELD)];
    const from = (matches[i]?.index ?? 0) + all.length - value.length;
    const window = text.includes('liobn=0x80000001') ? ' 2' : '';
    const isHex = hex !== undefined;
    return digits(from, value, { file: 'qemu', line, field: `${event}.${field}${window}`, isHex });
  });
}

interface Lines {
  readonly qemu: readonly string[];
  readonly guest: readonly string[];
}

/** The first `guestLines` of a recording, and as much of QEMU's log as goes with them. */
function sliceOf(name: string, guestLines: number): Lines {
  const { qemu, guest } = filesOf(findRecording(name) as never);
  const split = (bytes: Uint8Array): string[] => Buffer.from(bytes).toString('latin1').split('\n');
  const lines = split(guest).slice(0, guestLines);
  const log = split(qemu);
  // The kernel clears its window with 512 hypercalls; then come those of the trace.
  const wanted = 512 + lines.filter((text) => text.includes('hcall_entry')).length;
  let seen = 0;
  const end = log.findIndex((text) => {
    if (/^spapr_iommu_pci_(put|stuff|indirect)/.test(text)) seen += 1;
    return seen > wanted;
  });
  // Where mappings need no hypercall, what devices did with the first of them.
  return { guest: lines, qemu: log.slice(0, end < 0 || wanted === 512 ? 1500 : end) };
}

function run({ qemu, guest }: Lines): ReturnType<typeof replayRun> {
  const bytes = (lines: readonly string[]): Uint8Array => Buffer.from(`${lines.join('\n')}\n`);
  const files: RunFiles = { qemu: bytes(qemu), guest: bytes(guest) };
  return replayRun(files);
}

function isNoticed(lines: Lines): boolean {
  const result = run(lines);
  const { findings } = result.report;
  return (
    mismatchesOf(result.report) > 0 ||
    problemsOf(result) > 0 ||
    result.isRefused ||
    findings.some(({ severity }) => severity === 'error')
  );
}

const SLICES: [name: string, guestLines: number, perField: number][] = [
  // Up to the end of an operation: of the last one, half would be missing.
  ['linux6.12-pinhole-rng', 212, 3],
  ['linux6.12-pinhole-smp2', 209, 3],
  ['linux6.12-ddw', 120, 3],
];

test.each(SLICES)('%s: one digit in every field', (name, guestLines, perField) => {
  const lines = sliceOf(name, guestLines);
  const rng = createRng(20_241_124);
  const original = run(lines);
  expect(original.report.guest?.mismatches).toEqual([]);
  expect(mismatchesOf(original.report) + problemsOf(original)).toBe(0);

  const byField = new Map<string, Place[]>();
  for (const place of [
    // What is mapped at the end is not unmapped: nothing contradicts it.
    ...lines.guest.slice(0, (guestLines * 3) / 4).flatMap(guestPlaces),
    ...lines.qemu.flatMap(qemuPlaces),
  ]) {
    const list = byField.get(place.field);
    if (list === undefined) byField.set(place.field, [place]);
    else list.push(place);
  }
  expect(byField.size).toBeGreaterThan(12);

  const unnoticed: string[] = [];
  let changes = 0;
  for (const [field, places] of byField) {
    // On the way to a second window no CPU and no order matters.
    if (name === 'linux6.12-ddw' && field.endsWith('.cpu')) continue;
    if (NOT_CHECKED.some(([pattern]) => pattern.test(field))) continue;
    for (let i = 0; i < perField; i += 1) {
      const { file, line, at, isHex } = places[rng.below(places.length)] as Place;
      const text = lines[file][line] as string;
      const digit = Number.parseInt(text[at] as string, 16);
      const base = isHex ? 16 : 10;
      const other = ((digit + 1 + rng.below(base - 1)) % base).toString(base);
      const changed = text.slice(0, at) + other + text.slice(at + 1);
      changes += 1;
      if (isNoticed({ ...lines, [file]: lines[file].with(line, changed) })) continue;
      unnoticed.push(`${file}, line ${line + 1}: ${text.trim()} => ${changed.trim()}`);
    }
  }
  expect(unnoticed).toEqual([]);
  expect(changes).toBeGreaterThan(50);
});

test('a line that is missing, twice there, or swapped with the next', () => {
  const lines = sliceOf('linux6.12-pinhole-rng', 212);
  const relevant = /hcall_|dma_|spapr_iommu_(?!new_table|xlate)/;
  const unnoticed: string[] = [];
  for (const file of ['guest', 'qemu'] as const) {
    // Where the mappings are; the window's clearing comes before.
    const from = file === 'guest' ? 13 : lines.qemu.length - 400;
    for (let i = from; i + 1 < lines[file].length - 4; i += 17) {
      const here = lines[file][i] as string;
      const next = lines[file][i + 1] as string;
      if (!relevant.test(here)) continue;
      const changes: Record<string, string[]> = { missing: lines[file].toSpliced(i, 1) };
      // A second exit is of no hypercall.
      if (!here.includes('hcall_exit')) changes.twice = lines[file].toSpliced(i, 0, here);
      // Lines of two threads have no order.
      if (file === 'guest' && here.slice(0, 36) === next.slice(0, 36)) {
        changes.swapped = lines[file].toSpliced(i, 2, next, here);
      }
      for (const [what, changed] of Object.entries(changes)) {
        if (isNoticed({ ...lines, [file]: changed })) continue;
        unnoticed.push(`${file}, line ${i + 1} ${what}: ${here.trim()}`);
      }
    }
  }
  expect(unnoticed).toEqual([]);
});
