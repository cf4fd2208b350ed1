/** Something that can be typed. */
export interface Suggestion {
  readonly value: string;
  readonly description: string;
}

type Source = (typed: string) => readonly Suggestion[] | Promise<readonly Suggestion[]>;

/**
 * What can stand for a value, by the name that the command line has for it in its brackets; or by its
 * option, where the name says less.
 */
const SOURCES: Readonly<Record<string, Source>> = {
  scenario: scenarios,
  id: kernels,
  patterns: events,
  accident: accidents,
  part: devices,
  preset: presets,
  column: metrics,
  'path=value': settings,
  'path=values': settings,
  '--arch': machines,
  '--policy': policies,
  '--ring': rings,
  '--cell': cells,
};

/** Values that are files: the shell completes them. */
const FILES: readonly string[] = ['file', 'path', 'scenario'];

/** Values that nobody can guess. */
const FREE: readonly string[] = ['number', 'size', 'command line', 'i/n'];

/** Whether anything is known of a value with this name, of this option. */
export const isKnownValue = (name: string, option = ''): boolean =>
  option in SOURCES || name in SOURCES || FILES.includes(name) || FREE.includes(name);

/** What could be typed for a value; those that do not fit `typed` may be among it. */
export async function suggestValues(
  name: string,
  choices: readonly string[] | undefined,
  typed: string,
  option = '',
): Promise<{ suggestions: readonly Suggestion[]; orFiles: boolean }> {
  const suggestions =
    choices?.map(named) ?? (await (SOURCES[option] ?? SOURCES[name])?.(typed)) ?? [];
  return { suggestions, orFiles: choices === undefined && FILES.includes(name) };
}

const named = (value: string): Suggestion => ({ value, description: '' });

async function scenarios(): Promise<Suggestion[]> {
  const { builtInScenarios, loadScenario } = await import('./scenarios.js');
  return builtInScenarios().map(({ id }) => ({
    value: id,
    description: loadScenario(id, []).scenario.title,
  }));
}

async function kernels(): Promise<Suggestion[]> {
  const { KERNEL_PROFILES } = await import('@pinhole/guest');
  return KERNEL_PROFILES.map(({ id }) => named(id));
}

async function accidents(): Promise<Suggestion[]> {
  const { ACCIDENTS, PACKED_ERROR } = await import('@pinhole/live');
  return [...ACCIDENTS, PACKED_ERROR].map(({ name, what }) => ({ value: name, description: what }));
}

async function devices(): Promise<Suggestion[]> {
  const { shapeName, VIRTIO_SHAPES } = await import('@pinhole/live');
  return VIRTIO_SHAPES.map((shape) => named(shapeName(shape)));
}

async function presets(): Promise<Suggestion[]> {
  const { COST_PRESETS } = await import('@pinhole/machine');
  return COST_PRESETS.map(({ id, title }) => ({ value: id, description: title }));
}

async function metrics(): Promise<Suggestion[]> {
  const { chartMetrics } = await import('./sweep-chart.js');
  return chartMetrics().map(named);
}

async function machines(typed: string): Promise<Suggestion[]> {
  const { architectures, matrixPlatforms } = await import('@pinhole/machine');
  const all = [...architectures, ...matrixPlatforms()];
  return lastOfList(
    all.map(({ id, title }) => ({ value: id, description: title })),
    typed,
  );
}

async function policies(typed: string): Promise<Suggestion[]> {
  const { MATRIX_POLICIES, policyTitle } = await import('@pinhole/machine');
  const all = MATRIX_POLICIES.map((id) => ({ value: id, description: policyTitle(id) }));
  return lastOfList(all, typed);
}

async function rings(typed: string): Promise<Suggestion[]> {
  const { MATRIX_RINGS } = await import('@pinhole/machine');
  return lastOfList(MATRIX_RINGS.map(named), typed);
}

async function cells(): Promise<Suggestion[]> {
  const { matrixCells } = await import('@pinhole/machine');
  return matrixCells().map(({ id }) => named(id));
}

async function events(typed: string): Promise<Suggestion[]> {
  const { eventCatalogue } = await import('@pinhole/trace');
  const all = eventCatalogue.map(({ name, summary }) => ({ value: name, description: summary }));
  const help = { value: 'help', description: 'lists all events' };
  return lastOfList(typed.includes(',') ? all : [...all, help], typed);
}

// Of a,b,c the last is completed.
function lastOfList(all: readonly Suggestion[], typed: string): Suggestion[] {
  const before = typed.slice(0, typed.lastIndexOf(',') + 1);
  return all.map(({ value, description }) => ({ value: `${before}${value}`, description }));
}

interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
  readonly description?: string;
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
}

// Keys of a scenario from its JSON Schema; after the =, values.
async function settings(typed: string): Promise<Suggestion[]> {
  const { scenarioJsonSchema } = await import('@pinhole/machine');
  const leaves = leavesOf(scenarioJsonSchema() as Schema, '');
  const [path] = typed.split('=', 1);
  if (!typed.includes('=')) {
    return leaves.map(({ path, schema }) => ({
      value: `${path}=`,
      description: schema.description ?? '',
    }));
  }
  const schema = leaves.find((leaf) => leaf.path === path?.replace(/[.[]\d+\]?/g, '.0'))?.schema;
  return schema === undefined ? [] : valuesOf(schema).map((value) => named(`${path}=${value}`));
}

// The first element stands for a list: devices.0.packed.
function leavesOf(schema: Schema, path: string): { path: string; schema: Schema }[] {
  const below = (key: string): string => (path === '' ? key : `${path}.${key}`);
  const inside = [
    ...Object.entries(schema.properties ?? {}).flatMap(([key, value]) =>
      leavesOf(value, below(key)),
    ),
    ...(schema.items === undefined ? [] : leavesOf(schema.items, below('0'))),
    ...(schema.anyOf ?? []).flatMap((one) =>
      leavesOf(one, path).filter((leaf) => leaf.path !== path),
    ),
  ];
  return inside.length > 0 ? inside : [{ path, schema }];
}

function valuesOf({ enum: choices, const: only, type, anyOf }: Schema): string[] {
  if (choices !== undefined) return choices.map(String);
  if (only !== undefined) return [String(only)];
  if (type === 'boolean') return ['true', 'false'];
  return (anyOf ?? []).flatMap(valuesOf);
}
