import { setImmediate } from 'node:timers/promises';
import {
  createSeededDisk,
  type DiskSource,
  defaultCostPreset,
  estimateCosts,
  fitWorkload,
  runScenario,
  type Scenario,
} from '@pinhole/machine';
import { commandLine } from './command-line.js';
import { renderCompareHtml } from './compare-html.js';
import type { ComparedPath } from './compare-path.js';
import { renderCompareTable } from './compare-table.js';
import { EXIT, interrupt } from './exit.js';
import { checkWritable, openImage, writeWhole } from './files.js';
import { builtInScenarios, loadScenario } from './scenarios.js';
import { Progress, showsColor, terminalWidth } from './terminal.js';

/** Options of `pinhole compare`. */
export interface CompareOptions {
  readonly image?: string;
  readonly format: 'table' | 'json';
  readonly html?: string;
  readonly seed?: number;
  readonly set: readonly string[];
}

/** `pinhole compare`: the same I/O over every path. */
export async function compare(options: CompareOptions): Promise<void> {
  if (options.html !== undefined) checkWritable(options.html);
  const image = options.image === undefined ? undefined : openImage(options.image);
  try {
    const paths: ComparedPath[] = [];
    const progress = new Progress();
    let hasFailed = false;
    let made: DiskSource | undefined;
    const entries = builtInScenarios();
    for (const { id, number } of entries) {
      // Lets Ctrl-C in between two paths.
      await setImmediate();
      if (interrupt.isRequested) break;
      progress.show(`path ${number} of ${entries.length}: ${id}`);
      const { scenario } = loadScenario(id, settings(options));
      made ??= image === undefined ? createSeededDisk(scenario.seed) : undefined;
      const disk = image?.disk ?? (made as DiskSource);
      const report = runScenario(fitted(scenario, disk), { disk });
      hasFailed ||= scenario.expect !== undefined && scenario.expect !== report.verdict.outcome;
      const preset = defaultCostPreset(scenario.machine.arch);
      const costs = preset === undefined ? undefined : estimateCosts(report, preset);
      paths.push({ number, id, report, costs: costs ?? null });
    }
    progress.clear();
    const imageName = image?.name ?? 'a made disk (16 MiB, from the seed)';
    show(paths, imageName, options);
    if (interrupt.isRequested) {
      process.stderr.write(
        `pinhole: interrupted after ${paths.length} of ${entries.length} paths\n`,
      );
    }
    if (hasFailed) {
      process.stderr.write('pinhole: a path did not end as its scenario expects\n');
      process.exitCode = EXIT.FAILED;
    }
  } finally {
    image?.close();
  }
}

function show(paths: readonly ComparedPath[], imageName: string, options: CompareOptions): void {
  if (options.format === 'json') {
    process.stdout.write(
      `${JSON.stringify({ schemaVersion: 1, image: imageName, paths }, null, 2)}\n`,
    );
  } else {
    const table = { width: terminalWidth(), color: showsColor(), imageName };
    process.stdout.write(`${renderCompareTable(paths, table).trimEnd()}\n`);
  }
  if (options.html === undefined) return;
  writeWhole(options.html, renderCompareHtml(paths, { imageName, command: commandLine() }));
  process.stderr.write(`wrote ${options.html}\n`);
}

function settings({ seed, set }: CompareOptions): string[] {
  return [...set, ...(seed === undefined ? [] : [`seed=${seed}`])];
}

// A disk of another size than the scenarios were written for runs what fits on it.
function fitted(scenario: Scenario, disk: DiskSource): Scenario {
  return { ...scenario, workload: fitWorkload(scenario.workload, disk.size) };
}
