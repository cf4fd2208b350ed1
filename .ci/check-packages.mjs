// Checks every package as its users will get it: packs all of them once, then looks at the list of
// files, the source maps, the metadata (publint) and the types (attw). One process for all, since
// most of the time of a check is its start.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, posix } from 'node:path';
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';

/** As attw's profile "esm-only": who resolves packages as CommonJS is not served. */
const IGNORED_RESOLUTIONS = ['node10', 'node16-cjs'];
const LICENSE = readFileSync('LICENSE', 'utf8');

const problems = [];
const scratch = mkdtempSync(join(tmpdir(), 'pinhole-pack-'));
let checked = 0;
try {
  const packs = JSON.parse(
    execFileSync(
      'npm',
      ['pack', '--json', '--ignore-scripts', '--workspaces', '--pack-destination', scratch],
      { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 2 ** 26 },
    ),
  );
  const folders = foldersByName();
  for (const { name, filename, files } of packs) {
    const folder = folders.get(name);
    const manifest = readJson(join(folder, 'package.json'));
    const report = (problem) => problems.push(`${name}: ${problem}`);
    const tarball = readFileSync(join(scratch, filename.replace('@', '').replace('/', '-')));
    checkFiles(
      folder,
      manifest,
      files.map(({ path }) => path),
      report,
    );
    await checkMetadata(tarball, manifest, report);
    if (manifest.exports?.['.']) await checkTypes(tarball, report);
    checked += 1;
  }
  if (checked !== folders.size) problems.push(`packed ${checked} of ${folders.size} packages`);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

for (const problem of problems) console.error(problem);
process.exitCode = problems.length > 0 ? 1 : 0;

function readJson(path) {
  return JSON.parse(readFileSync(path, 'utf8'));
}

function foldersByName() {
  const folders = ['packages', 'apps'].flatMap((parent) =>
    readdirSync(parent).map((name) => join(parent, name)),
  );
  return new Map(folders.map((folder) => [readJson(join(folder, 'package.json')).name, folder]));
}

/** Only what is meant to be published, all of it, and every map leads somewhere. */
function checkFiles(folder, manifest, paths, report) {
  const packed = new Set(paths);
  const extra =
    { '@pinhole/recordings': ['data'], pinhole: ['scenarios', 'man'] }[manifest.name] ?? [];
  const allowed = ['dist', 'src', ...extra];
  const single = ['README.md', 'LICENSE', 'CHANGELOG.md', 'package.json'];
  for (const path of paths) {
    const known = single.includes(path) || allowed.some((name) => path.startsWith(`${name}/`));
    if (!known) report(`packs ${path}, which is none of ${[...single, ...allowed].join(', ')}`);
    if (/\.test\.|\.tsbuildinfo$/.test(path)) report(`packs ${path}, a test`);
  }
  for (const path of ['README.md', 'LICENSE', 'package.json', ...targets(manifest)]) {
    if (!packed.has(path)) report(`does not pack ${path}`);
  }
  for (const path of paths.filter((path) => /^dist\/.*\.(js|d\.ts)$/.test(path))) {
    const map = `${path}.map`;
    if (!packed.has(map)) {
      report(`packs ${path} without its map`);
      continue;
    }
    for (const source of readJson(join(folder, map)).sources) {
      const target = posix.join(posix.dirname(map), source);
      if (!packed.has(target)) {
        report(`${map} leads to ${target}, which is not packed (stale? npm run clean)`);
      }
    }
  }
  if (packed.has('LICENSE') && readFileSync(join(folder, 'LICENSE'), 'utf8') !== LICENSE) {
    report('its LICENSE differs from the one of the repository');
  }
}

/** The files that `exports` and `bin` name. */
function targets({ exports = {}, bin = {} }) {
  const leaves = (value) =>
    typeof value === 'string' ? [value] : Object.values(value).flatMap(leaves);
  return [...leaves(exports), ...leaves(bin)].map((path) => posix.normalize(path));
}

async function checkMetadata({ buffer, byteOffset, byteLength }, manifest, report) {
  const { messages } = await publint({
    strict: true,
    pack: { tarball: buffer.slice(byteOffset, byteOffset + byteLength) },
  });
  for (const message of messages) {
    report(`publint: ${formatMessage(message, manifest, { color: false })}`);
  }
}

async function checkTypes(tarball, report) {
  const analysis = await checkPackage(createPackageFromTarballData(new Uint8Array(tarball)));
  if (!analysis.types) {
    report('attw: has no types');
    return;
  }
  for (const problem of analysis.problems) {
    if (IGNORED_RESOLUTIONS.includes(problem.resolutionKind)) continue;
    report(`attw: ${problem.kind} ${problem.entrypoint ?? ''} ${problem.resolutionKind ?? ''}`);
  }
}
