import { stripVTControlCharacters } from 'node:util';
import { formatSize } from '@pinhole/base';
import { beforeAll, describe, expect, test } from 'vitest';
import type { ComparedPath } from '../src/compare-path.js';
import { renderCompareTable } from '../src/compare-table.js';
import { OUTCOME_MARKS } from '../src/report/marks.js';
import { markText } from '../src/terminal-style.js';
import { plain, wrap } from '../src/terminal-text.js';
import { HOSTILE, hostilePath, realPaths, refusedPath } from './compare-samples.js';

const WIDTHS = [40, 60, 71, 72, 80, 99, 100, 120, 149, 150, 160, 200];
let paths: ComparedPath[] = [];
let path: (number: number) => ComparedPath;

beforeAll(() => {
  paths = realPaths();
  path = (number) => paths[number - 1] as ComparedPath;
});

const render = (of: readonly ComparedPath[], width: number, color = false): string =>
  renderCompareTable(of, { width, color, imageName: 'disk.img' });

// The rows of the box, by the number in their first cell.
const cells = (text: string, number: number): string[] => {
  const row = text.split('\n').find((line) => line.startsWith(`│ ${number} │`)) ?? '';
  return row.split('│').map((cell) => cell.trim());
};

// The lines about one path, without their line breaks.
const story = (text: string, number: number): string => {
  const lines = text.split('\n');
  const start = lines.findIndex((line) => line.startsWith(`${number}  `));
  const end = lines.indexOf('', start);
  return lines.slice(start, end).join(' ').replace(/ +/g, ' ');
};

describe.each(WIDTHS)('at %i columns', (width) => {
  test.each([false, true])('no line is longer, colour %s', (color) => {
    for (const of of [paths, [path(4)], [refusedPath(path(1))], [hostilePath(path(8))], []]) {
      for (const line of render(of, width, color).split('\n')) {
        expect(stripVTControlCharacters(line).length).toBeLessThanOrEqual(width);
      }
    }
  });

  test('each path has its title, outcome, verdict, reason and figures', () => {
    const text = render(paths, width);
    const all = text.replace(/\s+/g, '');
    for (const { number, report } of paths) {
      const told = story(text, number);
      const figures = [...cells(text, number), ...told.split(/[ ,]+/)];
      const outcome = markText(OUTCOME_MARKS[report.verdict.outcome]);
      expect(told.startsWith(`${number} ${report.title}: ${outcome}`)).toBe(true);
      for (const said of [
        report.verdict.text,
        report.decision.because,
        report.decision.device,
        ...report.warnings,
        ...report.deviceErrors,
      ]) {
        expect(all).toContain(said.replace(/\s+/g, ''));
      }
      for (const value of Object.values(report.counters.hcallsPerRequest)) {
        expect(figures).toContain(value.toFixed(2));
      }
      const { tcesLive, tcesPeak, translationsPerRequest, workload } = report.counters;
      expect(figures).toContain(`${tcesLive}/${tcesPeak}`);
      if (translationsPerRequest > 0) expect(figures).toContain(translationsPerRequest.toFixed(2));
      for (const size of [
        workload.bytesBounced,
        report.reach.addressable,
        report.reach.plaintext,
      ]) {
        expect([cells(text, number).join(' '), told].join(' ')).toContain(formatSize(size));
      }
    }
  });
});

describe('figures', () => {
  test('a wide row has the counters of its report, each in its column', () => {
    const figure = (value = 0): string => (value === 0 ? '0' : value.toFixed(2));
    for (const { number, report } of paths) {
      const { counters, reach } = report;
      // Before them: number, name, flag, DMA ops.
      expect(cells(render(paths, 200), number).slice(5, -1)).toEqual([
        markText(OUTCOME_MARKS[report.verdict.outcome]),
        figure(counters.hcallsPerRequest.H_PUT_TCE),
        figure(counters.hcallsPerRequest.H_PUT_TCE_INDIRECT),
        figure(counters.hcallsPerRequest.H_STUFF_TCE),
        figure(counters.hcallsPerRequestTotal),
        `${counters.tcesLive}/${counters.tcesPeak}`,
        figure(counters.translationsPerRequest),
        formatSize(counters.workload.bytesBounced),
        formatSize(reach.addressable),
        formatSize(reach.plaintext),
      ]);
    }
  });

  test('below the width of a table they stand in lines, in one right-aligned column', () => {
    const { reach } = path(5).report;
    const text = render([path(5)], 60);
    expect(text).toMatch(new RegExp(`device reaches +${formatSize(reach.addressable)}$`, 'm'));
    expect(text).toMatch(new RegExp(`of it in clear +${formatSize(reach.plaintext)}$`, 'm'));
    const ends = text.match(/^ {3}(TCEs live|bounced|device reaches|of it).*$/gm) ?? [];
    expect(ends).toHaveLength(4);
    expect(new Set(ends.map((line) => line.length)).size).toBe(1);
  });

  test('path 2 pays 2·(segments + 3·requests) hypercalls', () => {
    const { counters, data } = path(2).report;
    const total = (2 * (counters.dataSegments + 3 * data.requests)) / data.requests;
    expect(cells(render(paths, 160), 2)).toContain(total.toFixed(2));
    expect(story(render(paths, 40), 2)).toContain(`hypercalls a request ${total.toFixed(2)}`);
  });

  test('the flag is the one that was negotiated', () => {
    const text = render(paths, 160);
    for (const { number, report } of paths) {
      expect(cells(text, number)[3]).toBe(report.machine.flag ? 'yes' : 'no');
    }
  });

  test('numbers end in one column, words start in one', () => {
    const rows = render(paths, 200)
      .split('\n')
      .filter((line) => /^│ +\d /.test(line));
    expect(rows).toHaveLength(paths.length);
    const column = (row: string, at: number): string => row.split('│')[at] ?? '';
    for (const row of rows) {
      expect(column(row, 2)).toMatch(/^ \S/);
      for (let at = 6; at <= 14; at += 1) expect(column(row, at)).toMatch(/\S $/);
    }
  });

  test('a hypercall of another kind gets a column', () => {
    const { report, ...rest } = path(2);
    const hcallsPerRequest = { ...report.counters.hcallsPerRequest, H_OTHER: 7.25 };
    const other = {
      ...rest,
      report: { ...report, counters: { ...report.counters, hcallsPerRequest } },
    };
    expect(render([other], 40)).toMatch(/H_OTHER +7\.25/);
    expect(cells(render([other], 200), 2)).toContain('7.25');
  });

  test('set-up hypercalls are told apart', () => {
    for (const [name, count] of Object.entries(path(3).report.counters.setup.hcalls)) {
      expect(story(render(paths, 160), 3)).toContain(`${count} ${name}`);
    }
  });
});

describe('data', () => {
  test('correct: how much was read and written', () => {
    const { bytesRead, bytesWritten } = path(1).report.data;
    expect(story(render(paths, 160), 1)).toContain(
      `read ${formatSize(bytesRead)}, wrote ${formatSize(bytesWritten)}: every byte correct`,
    );
  });

  test('wrong: how much of it', () => {
    const { bytesReadWrong, imageBytesWrong } = path(8).report.data;
    const told = story(render(paths, 160), 8);
    expect(told).toContain(`(${formatSize(bytesReadWrong)} of it wrong)`);
    expect(told).toContain(`(${formatSize(imageBytesWrong)} of it wrong)`);
    expect(told).not.toContain('every byte correct');
  });

  test('hung: how many requests', () => {
    const { hung, requests } = path(5).report.data;
    expect(story(render(paths, 160), 5)).toContain(`${hung} of ${requests} requests hung`);
  });

  test('refused: why, and no I/O', () => {
    const refused = refusedPath(path(1));
    const text = render([refused], 160);
    expect(cells(text, 1)).toContain('⊘ refused');
    expect(story(text, 1)).toContain(`refused: ${refused.report.refusal}`);
    expect(story(text, 1)).toContain('no device, no I/O');
  });

  test('features that are off are named', () => {
    const { report, ...rest } = path(1);
    const negotiated = { features: '0x1', names: ['VIRTIO_RING_F_INDIRECT_DESC'] };
    const text = render([{ ...rest, report: { ...report, negotiated } }], 160);
    expect(story(text, 1)).toContain('no ACCESS_PLATFORM, no EVENT_IDX, features 0x1');
    expect(story(text, 1)).not.toContain('no INDIRECT_DESC');
  });
});

describe('the summary', () => {
  test('puts every path into one group, by its outcome', () => {
    const lines = render(paths, 160).trimEnd().split('\n');
    const groups = lines.slice(lines.lastIndexOf('') + 1);
    const numbers = groups.flatMap((line) => line.match(/\d+/g) ?? []).map(Number);
    expect(numbers.sort((a, b) => a - b)).toEqual(paths.map(({ number }) => number));
    for (const { number, report } of paths) {
      const group = groups.find((line) => new RegExp(`\\b${number}\\b`).test(line)) ?? '';
      const words = {
        works: /^Correct without/,
        'works-slow': /hypercalls:/,
        fails: /^I\/O fails/,
      };
      expect(group).toMatch(
        { ...words, 'wrong-data': /wrong/, refused: /No/ }[report.verdict.outcome],
      );
      expect(group.includes('bounced')).toBe(report.counters.workload.bytesBounced > 0);
    }
  });

  test('says so where nothing was run', () => {
    expect(render([], 80)).toContain('No path was run.');
  });
});

describe('text', () => {
  test('colour changes nothing but colour', () => {
    for (const width of [40, 80, 160]) {
      const colored = render(paths, width, true);
      expect(colored).toContain('\u001b[');
      expect(stripVTControlCharacters(colored)).toBe(render(paths, width));
    }
  });

  test('no report and no file name reaches the terminal as an escape sequence', () => {
    const text = renderCompareTable([hostilePath(path(1))], {
      width: 80,
      color: false,
      imageName: `${HOSTILE}\n\u009b2J`,
    });
    expect(text.replaceAll('\n', '')).not.toMatch(/\p{Cc}/u);
    expect(plain('a\r\nb\tc\u2028d')).toBe('a  b c d');
  });

  test('wrapping keeps every word, cuts only what is longer than a line', () => {
    expect(wrap('one two three', 7)).toEqual(['one two', 'three']);
    expect(wrap('one two', 9, '    ', 'key ')).toEqual(['key one', '    two']);
    expect(wrap('abcdefghij k', 6, '  ')).toEqual(['abcdef', '  ghij', '  k']);
    expect(wrap('', 10)).toEqual(['']);
  });
});
