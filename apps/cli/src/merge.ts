import { mergeSweeps, type NamedSweep, readSweepFile } from '@pinhole/machine';
import { InputError } from './exit.js';
import { checkWritable, readWhole, writeWhole } from './files.js';
import { svgFile } from './report/svg.js';
import { checkMetric, sweepChart } from './sweep-chart.js';
import { formatSweep, type SweepFormat } from './sweep-output.js';
import { terminalWidth } from './terminal.js';

/** Options of `pinhole merge`. */
export interface MergeOptions {
  readonly output?: string;
  readonly format: SweepFormat;
  readonly chart?: string;
  readonly metric?: string;
}

/** `pinhole merge FILE...`: the shards of a sweep as one. */
export async function merge(names: readonly string[], options: MergeOptions): Promise<void> {
  const { output, format, chart, metric } = options;
  checkMetric(metric);
  for (const path of [output, chart]) if (path !== undefined) checkWritable(path);
  if (format === 'parquet' && output === undefined) {
    throw new InputError('--format parquet: expected --output FILE, found none');
  }
  const merged = mergeSweeps(names.map(readShard));
  const data = await formatSweep(format, merged.header, merged.rows, terminalWidth());
  const text = format === 'ndjson' ? merged.text : data;
  if (output === undefined) process.stdout.write(text);
  else {
    writeWhole(output, text);
    process.stderr.write(`wrote ${output}\n`);
  }
  if (chart === undefined) return;
  writeWhole(chart, svgFile(sweepChart(merged.header, merged.rows, metric)));
  process.stderr.write(`wrote ${chart}\n`);
}

function readShard(name: string): NamedSweep {
  return { name, ...readSweepFile(readWhole(name, 'a file of a sweep'), name) };
}
