import { availableParallelism } from 'node:os';
import { Argument, Command, Help, InvalidArgumentError, Option } from 'commander';
import { EXIT_MEANINGS } from './exit.js';
import { terminalWidth } from './terminal.js';
import { wrap } from './terminal-text.js';
import { VERSION } from './version.js';

/** The shells that completions are written for. */
const SHELLS = ['bash', 'zsh', 'fish', 'powershell'] as const;

const collect = (value: string, previous: readonly string[]): string[] => [...previous, value];

const parseSeed = (value: string): number => {
  const seed = Number(value);
  if (/^\d+$/.test(value) && Number.isSafeInteger(seed)) return seed;
  throw new InvalidArgumentError('Expected a whole number from 0 to 2^53-1.');
};

const parseCount = (value: string): number => {
  const count = Number(value);
  if (/^\d+$/.test(value) && Number.isSafeInteger(count) && count > 0) return count;
  throw new InvalidArgumentError('Expected a whole number from 1 to 2^53-1.');
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

const costsOption = (): Option =>
  new Option(
    '--costs [preset]',
    "estimate times, with a machine's constants: power9-kvm, ... (default: the architecture's own)",
  );
const costsFileOption = (): Option =>
  new Option('--costs-file <file>', "your own machine's constants, over those of the preset");
const sweepFormatOption = (): Option =>
  new Option('--format <format>', 'how to write the rows')
    .choices(['table', 'ndjson', 'csv', 'parquet'])
    .default('table');
const chartOption = (): Option => new Option('--chart <file>', 'draw a chart, too, as SVG');
const metricOption = (): Option =>
  new Option(
    '--metric <column>',
    'what the chart shows, such as throughputMid or tcesPeak (default: nsMid, the time)',
  );

const traceFormatOption = (): Option =>
  new Option('--trace-format <format>', 'as QEMU prints it, JSON lines, or for ui.perfetto.dev')
    .choices(['qemu', 'ndjson', 'chrome'])
    .default('qemu');

const helpWidth = (): number => Math.min(terminalWidth(), 100);

// In a narrow terminal, what an option means stands below it.
function helpItem(term: string, termWidth: number, description: string, helper: Help): string {
  const width = helpWidth();
  if (description === '' || width - termWidth - 4 >= 40) {
    return Help.prototype.formatItem.call(helper, term, termWidth, description, helper);
  }
  return [`  ${term}`, ...wrap(description, width, '      ', '      ')].join('\n');
}

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
    .configureOutput({ getOutHelpWidth: helpWidth, getErrHelpWidth: helpWidth })
    .configureHelp({ formatItem: helpItem })
    .addHelpText('after', () => {
      const codes = EXIT_MEANINGS.map(([code, meaning]) => `${code} ${meaning}`).join(', ');
      return `\n${wrap(`Exit codes: ${codes}.`, helpWidth()).join('\n')}`;
    });
  program
    .command('compare')
    .description('the same I/O over every DMA path of the 2018 debate, every byte checked')
    .option('--image <file>', 'a raw disk image; only read (default: a made 16 MiB disk)')
    .addOption(formatOption())
    .option('--html <file>', 'write the result as one self-contained page, too')
    .addOption(seedOption())
    .addOption(setOption())
    .action(async (...args: Parameters<typeof import('./compare.js').compare>) =>
      (await import('./compare.js')).compare(...args),
    );
  program
    .command('run')
    .description('one scenario: verdict, counters, trace')
    .argument('<scenario>', 'a scenario file, or a built-in one (see pinhole list)')
    .option('--image <file>', "a raw disk image instead of the scenario's; only read")
    .addOption(formatOption())
    .addOption(seedOption())
    .addOption(setOption())
    .addOption(costsOption())
    .addOption(costsFileOption())
    .option('--trace <patterns>', "events to trace, such as 'spapr_iommu_*,blk_*'; help lists them")
    .option('--trace-file <file>', 'where the trace goes (default: stderr)')
    .addOption(traceFormatOption())
    .action(async (...args: Parameters<typeof import('./run.js').run>) =>
      (await import('./run.js')).run(...args),
    );
  const partOf = (option: string, what: string): Option =>
    new Option(option, what)
      .argParser((value: string, previous: readonly string[]) => [...previous, ...value.split(',')])
      .default([], 'all');
  const onOff = (option: string, what: string): Option =>
    new Option(`${option} <on|off>`, `${what} (default: both)`).choices(['on', 'off']);
  program
    .command('matrix')
    .description('every policy on every machine: works, breaks (why), costs; each cell is a run')
    .addOption(partOf('--arch <ids>', 'only these architectures or machines, such as pseries-ddw'))
    .addOption(partOf('--policy <ids>', 'only these kernels or proposals, such as linux-6.1'))
    .addOption(onOff('--flag', 'iommu_platform of the device'))
    .addOption(onOff('--secure', 'guests whose memory is private'))
    .addOption(onOff('--vhost', "the data plane in the host's kernel"))
    .addOption(partOf('--ring <ids>', 'only these rings: split, split-noindirect, packed'))
    .option('--cell <id>', 'run one cell alone: its decision steps and its report')
    .addOption(
      new Option('--jobs <number>', 'threads')
        .argParser(parseCount)
        .default(availableParallelism(), 'one for each processor'),
    )
    .addOption(
      new Option('--format <format>', 'how to print the result')
        .choices(['table', 'json', 'html'])
        .default('table'),
    )
    .option('--trace <patterns>', 'with --cell: events to trace; help lists them')
    .option('--trace-file <file>', 'where the trace goes (default: stderr)')
    .addOption(traceFormatOption())
    .action(async (...args: Parameters<typeof import('./matrix.js').matrix>) =>
      (await import('./matrix.js')).matrix(...args),
    );
  program
    .command('sweep')
    .description('one scenario many times, with some of its keys varied: a row for each')
    .argument('<scenario>', 'a scenario file, or a built-in one (see pinhole list)')
    .addOption(
      new Option(
        '--set <path=values>',
        'values to take in turn: a,b,c, or 2GiB..64GiB (doubling), 1..8, a..b:step; repeatable: all combinations',
      )
        .argParser(collect)
        .default([], 'none'),
    )
    .option('--image <file>', "a raw disk image instead of the scenario's; only read")
    .addOption(seedOption())
    .addOption(costsOption())
    .addOption(costsFileOption())
    .addOption(sweepFormatOption())
    .option('--output <file>', 'where the rows go; an ndjson file that was begun is gone on with')
    .addOption(chartOption())
    .addOption(metricOption())
    .option('--html <file>', 'write the rows and charts as one self-contained page, too')
    .option('--shard <i/n>', 'only every n-th point, from the i-th on; see pinhole merge')
    .action(async (...args: Parameters<typeof import('./sweep.js').sweep>) =>
      (await import('./sweep.js')).sweep(...args),
    );
  program
    .command('merge')
    .description('the shards of a sweep as one: complete, and as if it had not been divided')
    .argument('<file...>', 'ndjson files that pinhole sweep --shard wrote')
    .option('--output <file>', 'where the rows go (default: standard output)')
    .addOption(sweepFormatOption().default('ndjson'))
    .addOption(chartOption())
    .addOption(metricOption())
    .action(async (...args: Parameters<typeof import('./merge.js').merge>) =>
      (await import('./merge.js')).merge(...args),
    );
  program
    .command('list')
    .description('the scenarios that come with pinhole, and where they are')
    .addOption(formatOption())
    .action(async (...args: Parameters<typeof import('./list.js').list>) =>
      (await import('./list.js')).list(...args),
    );
  program
    .command('explain')
    .description('how each virtio device of a machine reaches memory: path, steps, cost, the fix')
    .argument('[scenario]', 'a scenario file, or a built-in one')
    .option('--qemu <command line>', 'a QEMU command line, in quotes')
    .option('--dtb <file>', 'a flattened device tree; may be gzipped')
    .option('--console <file>', "a guest's console log (dmesg); may be gzipped")
    .addOption(
      new Option('--kernel <id>', "the guest's kernel; twice compares")
        .argParser(collect)
        .default([], 'linux-6.12'),
    )
    .addOption(formatOption())
    .option('--html <file>', 'write the answer as one self-contained page, too')
    .addOption(setOption())
    .action(async (...args: Parameters<typeof import('./explain.js').explain>) =>
      (await import('./explain.js')).explain(...args),
    );
  program
    .command('replay')
    .description(
      'check the logs of a real run against the model, and say what is wrong with the run',
    )
    .requiredOption('--qemu-trace <file>', "a log of -trace 'spapr_iommu_*'; may be gzipped")
    .option(
      '--guest-trace <file>',
      "the guest's ftrace (dma:*, powerpc:hcall_*) or trace-cmd report -l; may be gzipped",
    )
    .option('--console <file>', "the guest's console or dmesg; may be gzipped")
    .option('--kernel <id>', "the guest's kernel, such as linux-6.12 (default: what the files say)")
    .addOption(formatOption())
    .option('--html <file>', 'write a report as one self-contained page, too')
    .option('--trace-file <file>', 'write what happened in both files as one timeline')
    .addOption(
      new Option(
        '--trace-format <format>',
        'of the timeline: for ui.perfetto.dev, or JSON lines (default: chrome)',
      ).choices(['chrome', 'ndjson']),
    )
    .addOption(setOption())
    .action(async (...args: Parameters<typeof import('./replay.js').replay>) =>
      (await import('./replay.js')).replay(...args),
    );
  program
    .command('hcall')
    .description("the model's hypercalls for other programs: JSON lines in, JSON lines out")
    .addOption(
      new Option('--handler <handler>', 'who answers TCE hypercalls')
        .choices(['qemu', 'kvm'])
        .default('qemu'),
    )
    .option('--memory <size>', 'guest memory', '256MiB')
    .addOption(setOption())
    .addHelpText(
      'after',
      `
One request a line, one answer a line (here: indented);
at a terminal there is a prompt (help helps).
  {"op":"H_PUT_TCE","args":["0x80000000","0x1000","0x5003"]}
      {"ret":0,"out":[]}
  {"rtas":"ibm,query-pe-dma-window","args":[0,134217728,536870912],"nret":5}
      {"rets":[0,1,...]}
  {"write":{"gpa":"0x10000","hex":"00ff"}}
      {}
  {"read":{"gpa":"0x10000","length":2}}
      {"hex":"00ff"}
  {"reset":true}  {"save":true}  {"restore":{...}}
      {}  {"saved":{...}}  {}
What cannot be carried out is answered by
      {"error":{"line":...,"code":...,"message":...}}`,
    )
    .action(async (...args: Parameters<typeof import('./hcall.js').hcall>) =>
      (await import('./hcall.js')).hcall(...args),
    );
  const conform = program
    .command('conform')
    .description('hold the model against a live QEMU (Linux; Debian: qemu-system-ppc)');
  conform
    .command('hcalls')
    .description('random hypercalls on the model and on a real QEMU, every answer compared')
    .option('--count <number>', 'how many hypercalls', parseCount, 300_000)
    .option('--seed <number>', 'determines the hypercalls', parseSeed, 1)
    .option('--qemu <path>', "QEMU's program", 'qemu-system-ppc64')
    .addOption(
      new Option(
        '--include <accident>',
        'provoke an accident of QEMU that is left out otherwise (see docs/CONFORMANCE.md); repeatable',
      )
        .argParser(collect)
        .default([], 'none'),
    )
    .addOption(formatOption())
    .action(async (...args: Parameters<typeof import('./conform-hcalls.js').conformHcalls>) =>
      (await import('./conform-hcalls.js')).conformHcalls(...args),
    );
  conform
    .command('virtio')
    .description(
      'random requests to virtio devices of the model and of a real QEMU, every byte compared',
    )
    .option('--count <number>', 'how many requests', parseCount, 3_000)
    .option('--seed <number>', 'determines the requests', parseSeed, 1)
    .option('--qemu <path>', "QEMU's program", 'qemu-system-ppc64')
    .addOption(
      new Option(
        '--device <part>',
        'only devices with this in their name, such as blk-packed or pinhole; repeatable',
      )
        .argParser(collect)
        .default([], 'all'),
    )
    .addOption(
      new Option('--include <accident>', 'provoke packed-ring-error (see docs/CONFORMANCE.md)')
        .argParser(collect)
        .default([], 'none'),
    )
    .addOption(formatOption())
    .action(async (...args: Parameters<typeof import('./conform-virtio.js').conformVirtio>) =>
      (await import('./conform-virtio.js')).conformVirtio(...args),
    );
  program
    .command('doctor')
    .description('is everything there, and does it work? looks at this computer only')
    .addOption(formatOption())
    .action(async (...args: Parameters<typeof import('./doctor.js').doctor>) =>
      (await import('./doctor.js')).doctor(...args),
    );
  program
    .command('completion')
    .description("a script that makes a shell's Tab key complete pinhole's words")
    .addArgument(new Argument('<shell>', 'which shell').choices(SHELLS))
    .addHelpText(
      'after',
      `
bash:        source <(pinhole completion bash)
zsh:         source <(pinhole completion zsh)
fish:        pinhole completion fish | source
PowerShell:  pinhole completion powershell | Out-String | Invoke-Expression
The line goes into the shell's start-up file
(~/.bashrc, ~/.zshrc after compinit, ...).`,
    )
    .action(async (shell: string) => (await import('./completion.js')).printScript(shell));
  program
    .command('complete', { hidden: true })
    .description('what the completion scripts ask: words after --')
    .argument('[words...]')
    .helpOption(false)
    .allowUnknownOption()
    .action(async () => {
      const start = process.argv.indexOf('--');
      const words = start < 0 ? [] : process.argv.slice(start + 1);
      await (await import('./completion.js')).answer(program, words);
    });
  program
    .command('man')
    .description('the manual page, for man -l -')
    .action(async () => (await import('./man.js')).man(program));
  const config = program.command('config').description('about scenario files');
  config
    .command('schema')
    .description('the JSON Schema of scenario files, for editors')
    .action(async () => {
      const { scenarioJsonSchema } = await import('@pinhole/machine');
      process.stdout.write(`${JSON.stringify(scenarioJsonSchema(), null, 2)}\n`);
    });
  return program;
}
