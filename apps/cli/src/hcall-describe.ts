import { formatSize } from '@pinhole/base';
import {
  H_FUNCTION,
  H_PARAMETER,
  H_SUCCESS,
  RTAS_DDW_PAGE_SIZES,
  RTAS_OUT_HW_ERROR,
  RTAS_OUT_PARAM_ERROR,
  RTAS_OUT_SUCCESS,
  RTAS_TOKENS,
  type SpaprMachine,
} from '@pinhole/hcall';
import type { HcallAnswer } from '@pinhole/machine';

const RETURNS: ReadonlyMap<number, string> = new Map([
  [H_SUCCESS, 'H_SUCCESS'],
  [H_FUNCTION, 'H_FUNCTION: there is no such call'],
  [H_PARAMETER, 'H_PARAMETER'],
]);

const STATUSES: ReadonlyMap<number, string> = new Map([
  [RTAS_OUT_SUCCESS, 'success'],
  [RTAS_OUT_HW_ERROR, 'hardware error'],
  [RTAS_OUT_PARAM_ERROR, 'parameter error'],
]);

const hexadecimal = (value: bigint): string => `0x${value.toString(16)}`;

function pageSizes(mask: bigint): string {
  const sizes = RTAS_DDW_PAGE_SIZES.filter(({ bit }) => (mask & BigInt(bit)) !== 0n)
    .map(({ shift }) => shift)
    .sort((a, b) => a - b)
    .map((shift) => formatSize(2 ** shift));
  return `${hexadecimal(mask)} (${sizes.join(', ') || 'none'})`;
}

/** What a cell, or two that are one value, mean. */
interface Field {
  readonly label: string;
  readonly cells: 1 | 2;
  readonly show: (value: bigint) => string;
}
const field = (label: string, cells: 1 | 2 = 1, show = hexadecimal): Field => ({
  label,
  cells,
  show,
});

const [LEFT, SIZES] = [field('windows left', 1, String), field('page sizes', 1, pageSizes)];
const MIGRATION = field('migration');
/** What follows the status, by name and nret. */
const FIELDS: Readonly<Record<string, readonly Field[]>> = {
  'ibm,query-pe-dma-window 5': [LEFT, field('most pages'), SIZES, MIGRATION],
  'ibm,query-pe-dma-window 6': [LEFT, field('most pages', 2), SIZES, MIGRATION],
  'ibm,create-pe-dma-window 4': [field('LIOBN'), field('bus address', 2)],
};

/** An answer that is no error, for a person who gave the request. */
export function describeAnswer(
  answer: HcallAnswer,
  request: Readonly<Record<string, unknown>>,
  width: number,
): string {
  if ('ret' in answer) {
    const { ret, out } = answer as { ret: number; out: readonly string[] };
    return `${ret} ${RETURNS.get(ret) ?? ''}${out.map((value, i) => `  r${i + 4} = ${value}`).join('')}`;
  }
  if ('rets' in answer) return describeCells(answer.rets as (number | null)[], request);
  if ('hex' in answer) {
    const { gpa } = request.read as { gpa: string | number };
    return describeBytes(answer.hex as string, Number(gpa), width < 80 ? 8 : 16);
  }
  return 'saved' in answer ? JSON.stringify({ restore: answer.saved }) : 'done';
}

function describeCells(
  [status, ...cells]: readonly (number | null)[],
  request: Readonly<Record<string, unknown>>,
): string {
  const text = `status ${status} ${STATUSES.get(status ?? 0) ?? ''}`.trimEnd();
  // What failed wrote no more than its status.
  if (cells.every((cell) => cell === null)) return text;
  const token = Number(request.rtas);
  const known = Object.entries(RTAS_TOKENS).find(([, number]) => number === token);
  const fields = FIELDS[`${known?.[0] ?? request.rtas} ${Number(request.nret)}`] ?? [];
  const lines: string[] = [];
  for (let at = 0; at < cells.length; ) {
    const { label, cells: count, show } = fields[lines.length] ?? field(`cell ${at + 1}`);
    const value = cells
      .slice(at, at + count)
      .reduce<bigint>((high, low) => high * 2n ** 32n + BigInt(low ?? 0), 0n);
    lines.push(`  ${`${label}:`.padEnd(13)} ${cells[at] === null ? 'not written' : show(value)}`);
    at += count;
  }
  return [text, ...lines].join('\n');
}

function describeBytes(digits: string, gpa: number, perLine: number): string {
  const bytes = digits.match(/../g) ?? [];
  const lines: string[] = [];
  for (let i = 0; i < bytes.length; i += perLine) {
    const row = bytes.slice(i, i + perLine);
    lines.push(`0x${(gpa + i).toString(16)}  ${row.join(' ')}`);
  }
  return lines.join('\n') || 'no bytes';
}

/** The windows that are open, a line each. */
export function describeWindows({ phbs, vio }: SpaprMachine['iommu']): string {
  const tables = [
    ...phbs.flatMap(({ name, tables }) => tables.map((table) => ({ name, table, note: '' }))),
    ...vio.flatMap(({ name, table, isBypassed }) => {
      const note = isBypassed ? '; bypassed' : '';
      return table === undefined ? [] : [{ name, table, note }];
    }),
  ];
  const rows = tables
    .filter(({ table }) => table.isEnabled)
    .map(({ name, table, note }) => {
      const { liobn, busOffset, nbTable, pageSize, live } = table;
      const pages = `${nbTable} pages of ${formatSize(pageSize)}`;
      const from = `from 0x${busOffset.toString(16)}`;
      return `LIOBN 0x${liobn.toString(16)} (${name}): ${pages} ${from}, ${live} mapped${note}`;
    });
  return rows.join('\n') || 'no window is open';
}
