import { scenarioJsonSchema } from '@pinhole/machine';
import { Command, InvalidArgumentError, Option } from 'commander';
import { compare } from './compare.js';
import { list } from './list.js';
import { replay } from './replay.js';
import { run } from './run.js';
import { VERSION } from './version.js';

const collect = (value: string, previous: readonly string[]): string[] => [...previous, value];

const parseSeed = (value: string): number => {
  const seed = Number(value);
  if (/^\d+$/.test(value) && Number.isSafeInteger(seed)) return seed;
  throw new InvalidArgumentError('Expected a whole number from 0 to 2^53-1.');
};

const formatOption = (): Option =>
  new Option('--format <format>', 'how to print the result')
    .choices(['table', 'json'])
    .default('table');
const setOption = (): Option =>
  new Option(
    '--set <path=value>',
    'override a scenario key, such as machine.memory=4GiB; repeatable',
  )
    .argParser(collect)
    .default([], 'none');
const seedOption = (): Option =>
  new Option('--seed <number>', 'override the seed').argParser(parseSeed);

/** The command line. */
export function createProgram(): Command {
  const program = new Command('pinhole')
    .description(
      'An executable, exact model of how virtio devices reach guest memory: TCE windows, hypercalls, bounce buffers, DMA ops.',
    )
    .version(VERSION)
    .showSuggestionAfterError()
    .showHelpAfterError('(see pinhole --help)')
    .exitOverride()
    .addHelpText(
      'after',
      '\nExit codes: 0 ok, 1 an expectation failed, 2 bad usage or input, 70 a bug in pinhole, 130 interrupted.',
    );
  program
    .command('compare')
    .description('the same I/O over every DMA path of the 2018 debate, every byte checked')
    .option('--image <file>', 'a raw disk image; only read (default: a made 16 MiB disk)')
    .addOption(formatOption())
    .option('--html <file>', 'write the result as one self-contained page, too')
    .addOption(seedOption())
    .addOption(setOption())
    .action(compare);
  program
    .command('run')
    .description('one scenario: verdict, counters, trace')
    .argument('<scenario>', 'a scenario file, or a built-in one (see pinhole list)')
    .option('--image <file>', "a raw disk image instead of the scenario's; only read")
    .addOption(formatOption())
    .addOption(seedOption())
    .addOption(setOption())
    .option('--trace <patterns>', "events to trace, such as 'spapr_iommu_*,blk_*'; help lists them")
    .option('--trace-file <file>', 'where the trace goes (default: stderr)')
    .addOption(
      new Option('--trace-format <format>', 'as QEMU prints it, JSON lines, or for ui.perfetto.dev')
        .choices(['qemu', 'ndjson', 'chrome'])
        .default('qemu'),
    )
    .action(run);
  program
    .command('list')
    .description('the scenarios that come with pinhole, and where they are')
    .addOption(formatOption())
    .action(list);
  program
    .command('replay')
    .description("check a QEMU log's TCE hypercalls and translations against the model")
    .requiredOption('--qemu-trace <file>', "a log of -trace 'spapr_iommu_*'; may be gzipped")
    .addOption(formatOption())
    .addOption(setOption())
    .action(replay);
  const config = program.command('config').description('about scenario files');
  config
    .command('schema')
    .description('the JSON Schema of scenario files, for editors')
    .action(() => {
      process.stdout.write(`${JSON.stringify(scenarioJsonSchema(), null, 2)}\n`);
    });
  return program;
}
