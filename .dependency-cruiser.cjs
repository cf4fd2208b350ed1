/**
 * The folders are the architecture: a package imports only from lower layers, only by package name.
 * A package missing from this table may import nothing and be imported by nothing.
 */
const LAYERS = [
  ['base'],
  ['memory', 'tce', 'virtio', 'fdt'],
  ['hcall', 'trace'],
  ['guest', 'qemu'],
  ['machine', 'live'],
];
/** Within a layer nothing is imported sideways, but for this. */
const SIDEWAYS = { tce: ['memory'], virtio: ['memory'] };
/** Data: it imports nothing, and only tests and apps import it. */
const RECORDINGS = 'recordings';
/** Packages that talk to the outside world. */
const IMPURE = ['live'];

const TESTS = String.raw`(\.test\.ts$|^packages/[^/]+/(test|examples)/)`;

/** A module of these packages, whether by resolved file or, before a build, by name. */
const modulesOf = (names) => `^(packages/|@pinhole/)(${names.join('|') || '(?!)'})(/|$)`;
const ANY_OF_OURS = '^(packages/|apps/|@pinhole/|pinhole(/|$))';

const mayImport = (name) => {
  const layer = LAYERS.findIndex((names) => names.includes(name));
  return [...LAYERS.slice(0, Math.max(layer, 0)).flat(), ...(SIDEWAYS[name] ?? [])];
};

const layerRules = [...LAYERS.flat(), RECORDINGS].map((name) => ({
  name: `layer-${name}`,
  comment: `${name} imports only from: ${mayImport(name).join(', ') || 'nothing'}.`,
  severity: 'error',
  from: { path: `^packages/${name}/` },
  to: {
    path: ANY_OF_OURS,
    // Recordings are the business of the rule below.
    pathNot: modulesOf([name, ...mayImport(name), RECORDINGS]),
  },
}));

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    ...layerRules,
    {
      name: 'unknown-package',
      comment: 'A new package needs a row in the table of layers.',
      severity: 'error',
      from: { path: '^packages/', pathNot: modulesOf([...LAYERS.flat(), RECORDINGS]) },
      to: { path: ANY_OF_OURS },
    },
    {
      name: 'recordings-are-for-tests',
      comment: 'Recordings are data: only tests and apps read them.',
      severity: 'error',
      from: { path: '^packages/', pathNot: [TESTS, `^packages/${RECORDINGS}/`] },
      to: { path: modulesOf([RECORDINGS]) },
    },
    {
      name: 'by-name',
      comment: 'Another package is imported by its name, never by a relative path.',
      severity: 'error',
      from: { path: '^(packages|apps)/([^/]+)/' },
      to: { path: '^(packages|apps)/', pathNot: '^$1/$2/', dependencyTypes: ['local'] },
    },
    {
      name: 'no-deep-import',
      comment: 'Only what a package exports: never its files.',
      severity: 'error',
      from: {},
      to: { path: '^@pinhole/[^/]+/(src|dist|test)(/|$)' },
    },
    {
      name: 'no-cycles',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'packages-are-pure',
      comment: 'What is below apps/ does no I/O: no Node modules. Tests may.',
      severity: 'error',
      from: {
        path: '^packages/',
        pathNot: [TESTS, `^packages/(${IMPURE.join('|')})/`],
      },
      to: { dependencyTypes: ['core'] },
    },
    {
      name: 'sources-do-not-import-tests',
      severity: 'error',
      from: { path: '^(packages|apps)/[^/]+/src/', pathNot: TESTS },
      to: { path: ['^(packages|apps)/[^/]+/test/', String.raw`\.test\.ts$`] },
    },
    {
      name: 'resolvable',
      comment: 'Names of our own packages resolve once they are built; all else must resolve now.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true, pathNot: '^@pinhole/' },
    },
  ],
  options: {
    doNotFollow: { path: ['node_modules', '^(packages|apps)/[^/]+/dist/'] },
    // Type imports are imports.
    tsPreCompilationDeps: true,
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['types', 'import', 'default'],
      extensions: ['.ts', '.mjs', '.js', '.json', '.d.ts'],
    },
  },
};
