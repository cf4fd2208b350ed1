// Checks the package in the current folder as its users will get it: packs it once, then looks at
// the list of files, the source maps, the metadata (publint) and the types (attw).
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, posix } from 'node:path';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';

const manifest = JSON.parse(readFileSync('package.json', 'utf8'));
const problems = [];
const scratch = mkdtempSync(join(tmpdir(), 'pinhole-pack-'));
try {
  const [pack] = JSON.parse(
    execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', scratch], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    }),
  );
  const tarball = join(scratch, pack.filename);
  checkFiles(pack.files.map(({ path }) => path));
  await checkMetadata(tarball);
  if (manifest.exports?.['.']) checkTypes(tarball);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

for (const problem of problems) console.error(`${manifest.name}: ${problem}`);
process.exitCode = problems.length > 0 ? 1 : 0;

/** Only what is meant to be published, all of it, and every map leads somewhere. */
function checkFiles(paths) {
  const packed = new Set(paths);
  const extra = { '@pinhole/recordings': ['data'], pinhole: ['scenarios'] }[manifest.name] ?? [];
  const folders = ['dist', 'src', ...extra];
  const single = ['README.md', 'LICENSE', 'CHANGELOG.md', 'package.json'];
  for (const path of paths) {
    const known = single.includes(path) || folders.some((folder) => path.startsWith(`${folder}/`));
    if (!known)
      problems.push(`packs ${path}, which is none of ${[...single, ...folders].join(', ')}`);
    if (/\.test\.|\.tsbuildinfo$/.test(path)) problems.push(`packs ${path}, a test`);
  }
  for (const path of ['README.md', 'LICENSE', 'package.json', ...targets(manifest)]) {
    if (!packed.has(path)) problems.push(`does not pack ${path}`);
  }
  for (const path of paths.filter((path) => /^dist\/.*\.(js|d\.ts)$/.test(path))) {
    const map = `${path}.map`;
    if (!packed.has(map)) {
      problems.push(`packs ${path} without its map`);
      continue;
    }
    for (const source of JSON.parse(readFileSync(map, 'utf8')).sources) {
      const target = posix.join(posix.dirname(map), source);
      if (!packed.has(target)) {
        problems.push(`${map} leads to ${target}, which is not packed (stale? npm run clean)`);
      }
    }
  }
  const license = readFileSync(new URL('../LICENSE', import.meta.url), 'utf8');
  if (packed.has('LICENSE') && readFileSync('LICENSE', 'utf8') !== license) {
    problems.push('its LICENSE differs from the one of the repository');
  }
}

/** The files that `exports` and `bin` name. */
function targets({ exports = {}, bin = {} }) {
  const leaves = (value) =>
    typeof value === 'string' ? [value] : Object.values(value).flatMap(leaves);
  return [...leaves(exports), ...leaves(bin)].map((path) => posix.normalize(path));
}

async function checkMetadata(tarball) {
  const { buffer, byteOffset, byteLength } = readFileSync(tarball);
  const { messages } = await publint({
    strict: true,
    pack: { tarball: buffer.slice(byteOffset, byteOffset + byteLength) },
  });
  for (const message of messages) {
    problems.push(`publint: ${formatMessage(message, manifest, { color: false })}`);
  }
}

function checkTypes(tarball) {
  const require = createRequire(import.meta.url);
  const attw = require.resolve('@arethetypeswrong/cli/package.json');
  const bin = join(dirname(attw), require(attw).bin.attw);
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [bin, tarball, '--profile', 'esm-only', '--format', 'ascii', '--no-color', '--no-emoji'],
    { encoding: 'utf8' },
  );
  if (status !== 0) problems.push(`attw:\n${stdout}${stderr}`);
}
