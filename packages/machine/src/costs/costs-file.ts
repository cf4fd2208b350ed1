/** Constants of a user's own machine, over those of a preset. */
import { nearestName } from '@pinhole/base';
import { z } from 'zod';
import { readChecked } from '../checked-text.js';
import { COST_ITEMS, COST_NAMES, type CostName } from './constants.js';
import type { CostConstant, CostPreset } from './types.js';

/** Options of {@link parseCosts}. */
export interface ParseCostsOptions {
  /** Names the file in errors. */
  readonly file?: string;
  /** What the file leaves as it is. Without, there are only the file's constants. */
  readonly base?: CostPreset | undefined;
}

/** No figure is larger. */
const MAX = 1e15;
const STATUSES = ['measured', 'cited', 'assumed'] as const;

/**
 * Reads a costs file, YAML or JSON: `{title?, constants: {NAME: number | {low, mid, high, status?, source?}}}`.
 * @throws MachineError `E_COSTS` with every problem: where, what was expected, what was found.
 */
export function parseCosts(text: string, options: ParseCostsOptions = {}): CostPreset {
  const { base, file } = options;
  const { title, constants } = readChecked(text, {
    schema: costsSchema,
    code: 'E_COSTS',
    file,
    describeUnknownKey: describeUnknown,
  });
  const given: Partial<Record<CostName, CostConstant>> = {};
  for (const name of COST_NAMES) {
    const constant = constants[name];
    if (constant === undefined) continue;
    given[name] = { ...constant, unit: COST_ITEMS[name].unit };
  }
  const own = file ?? 'costs file';
  return {
    id: base === undefined ? own : `${base.id} + ${own}`,
    title: title ?? base?.title ?? own,
    architectures: base?.architectures ?? [],
    constants: { ...base?.constants, ...given },
  };
}

const unitText = { ns: 'nanoseconds', 'bytes/s': 'bytes a second' } as const;

function figure(unit: 'ns' | 'bytes/s') {
  const expected = `expected ${unitText[unit]}, a number from ${unit === 'ns' ? 0 : 1} to 1e15`;
  const number = z.number(expected).max(MAX, expected);
  return unit === 'ns' ? number.nonnegative(expected) : number.min(1, expected);
}

/** A number, or a range: which of the two decides what is said of one that is wrong. */
function constantSchema(name: CostName): z.ZodType<FileConstant | undefined> {
  const value = figure(COST_ITEMS[name].unit);
  const range = z
    .strictObject(
      {
        low: value,
        mid: value,
        high: value,
        status: z.enum(STATUSES).default('assumed'),
        source: z.string().max(1000, 'expected at most 1000 characters').default('costs file'),
      },
      'expected a number, or {low, mid, high, status?, source?}',
    )
    .refine(({ low, mid, high }) => low <= mid && mid <= high, 'expected low <= mid <= high');
  return z
    .unknown()
    .transform((input, context): FileConstant => {
      const number = typeof input === 'number' ? input : undefined;
      const result = number === undefined ? range.safeParse(input) : value.safeParse(number);
      if (!result.success) {
        const { issues } = result.error;
        context.issues.push(...issues.map((issue) => ({ ...issue, input }) as z.core.$ZodRawIssue));
        return z.NEVER;
      }
      if (typeof result.data !== 'number') return result.data;
      const [low, mid, high] = [result.data, result.data, result.data];
      return { low, mid, high, status: 'assumed', source: 'costs file' };
    })
    .optional();
}

type FileConstant = Omit<CostConstant, 'unit'>;

const costsSchema: z.ZodType<{
  readonly title?: string | undefined;
  readonly constants: Readonly<Partial<Record<CostName, FileConstant | undefined>>>;
}> = z.strictObject(
  {
    title: z.string().max(200, 'expected at most 200 characters').optional(),
    constants: z.strictObject(
      Object.fromEntries(COST_NAMES.map((name) => [name, constantSchema(name)])) as Record<
        CostName,
        ReturnType<typeof constantSchema>
      >,
      'expected {NAME: number or {low, mid, high, status?, source?}, ...}',
    ),
  },
  'expected {title?, constants}',
);

function describeUnknown(key: string, path: string): string {
  const names =
    path === ''
      ? ['title', 'constants']
      : path === 'constants'
        ? COST_NAMES
        : ['low', 'mid', 'high', 'status', 'source'];
  const near = nearestName(key, names);
  const hint = near === undefined ? '' : `; did you mean ${near}?`;
  return `expected ${names.join(', ')}; found an unknown name${hint}`;
}
