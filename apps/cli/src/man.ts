import type { Argument, Command } from 'commander';
import { EXIT_MEANINGS } from './exit.js';

/** `pinhole man`: the manual page. */
export function man(program: Command): void {
  process.stdout.write(manualPage(program));
}

/**
 * The manual page of a command line, written from the command line itself.
 * [groff_man(7) "Description"]
 */
export function manualPage(program: Command): string {
  const commands = leavesOf(program);
  const lines = [
    `.TH PINHOLE 1 "" pinhole "User Commands"`,
    '.SH NAME',
    `pinhole \\- ${text(SUMMARY)}`,
    '.SH SYNOPSIS',
    ...commands.flatMap(([name, command], i) => [
      ...(i === 0 ? [] : ['.br']),
      `${bold(name)} ${text(command.usage())}`,
    ]),
    '.SH DESCRIPTION',
    ...[program.description(), ...DESCRIPTION].flatMap(paragraph).slice(1),
    '.SH COMMANDS',
    ...commands.flatMap(([name, command]) => commandSection(name, command)),
    '.SH EXIT STATUS',
    ...EXIT_MEANINGS.flatMap(([code, meaning]) => entry(String(code), meaning)),
    '.SH ENVIRONMENT',
    ...ENVIRONMENT.flatMap(([name, meaning]) => entry(name, meaning)),
    '.SH FILES',
    ...FILES.flatMap(([name, meaning]) => entry(name, meaning)),
    '.SH EXAMPLES',
    ...EXAMPLES.flatMap(([what, command]) => [
      ...paragraph(what),
      ...example(command.split('\n')),
    ]).slice(1),
    '.SH SEE ALSO',
    SEE_ALSO.map((page) =>
      page.replace(/^([^(]+)(.*)$/, (_, name, section) => `${bold(name)}${section}`),
    ).join(',\n'),
  ];
  return `${lines.join('\n')}\n`;
}

/** For NAME: what indexes of manual pages show. */
const SUMMARY = 'how virtio devices reach guest memory: an executable, exact model';

const DESCRIPTION = [
  "On IBM pseries a guest is never without an IOMMU: each device starts behind a small window at bus address 0, the pinhole, and each map or unmap is a hypercall. QEMU's virtio devices bypass it unless VIRTIO_F_ACCESS_PLATFORM is set. The program runs the model of all that: windows, hypercalls, rings, the choice of DMA ops in the Linux guest, bounce buffers, and the device.",
  'Data goes to standard output, everything else to standard error. The same scenario and seed give the same output, byte for byte.',
] as const;

const ENVIRONMENT = [
  [
    'NO_COLOR',
    'When it is set and not empty, there is no colour. There is none in pipes and files either.',
  ],
  ['TERM', 'With dumb there is no colour.'],
  ['COLUMNS', 'The width of output that goes to no terminal. Default: 160.'],
  ['PATH', 'Where QEMU is looked for, unless --qemu has a slash.'],
] as const;

const FILES = [
  [
    '*.yaml',
    'Scenarios. pinhole list says where those are that come with the program; pinhole config schema prints their JSON Schema.',
  ],
  ['*.img', 'Raw disk images. They are only read: what a guest writes goes to a copy in memory.'],
] as const;

const EXAMPLES = [
  [
    'The same requests over each path to memory, as a table and as a page:',
    'pinhole compare --html report.html',
  ],
  [
    "One path with its hypercalls and translations, in QEMU's words:",
    "pinhole run 2-pinhole --trace 'spapr_iommu_*'",
  ],
  ['The same machine with more memory:', 'pinhole run 2-pinhole --set machine.memory=64GiB'],
  [
    "How a machine's virtio devices reach memory:",
    "pinhole explain --qemu 'qemu-system-ppc64 -M pseries -m 2G \\\n    -drive if=none,id=d,file=disk.img \\\n    -device virtio-blk-pci,drive=d,disable-legacy=on,iommu_platform=on'",
  ],
  [
    'The logs of a real run against the model:',
    'pinhole replay --qemu-trace qemu.log.gz \\\n    --guest-trace guest.ftrace.gz --console console.log.gz',
  ],
  ['Is this installation complete?', 'pinhole doctor'],
] as const;

const SEE_ALSO = ['qemu(1)', 'dtc(1)', 'trace-cmd(1)'] as const;

/** Every command that does something, with its full name, in the order of the help. */
export function leavesOf(program: Command): [name: string, command: Command][] {
  const visit = (command: Command, name: string): [string, Command][] => {
    const subs = command
      .createHelp()
      .visibleCommands(command)
      .filter((sub) => sub.name() !== 'help');
    if (subs.length === 0) return [[name, command]];
    return subs.flatMap((sub) => visit(sub, `${name} ${sub.name()}`));
  };
  return visit(program, program.name());
}

function commandSection(name: string, command: Command): string[] {
  const help = command.createHelp();
  const after = helpAfter(command);
  return [
    `.SS ${text(name)} ${text(command.usage())}`,
    ...wrap(sentence(command.description())),
    ...help
      .visibleArguments(command)
      .flatMap((argument) => entry(argumentTerm(argument), help.argumentDescription(argument))),
    ...help
      .visibleOptions(command)
      .filter(({ long }) => long !== '--help')
      .flatMap((option) => entry(option.flags, help.optionDescription(option))),
    ...(after === '' ? [] : example(after.split('\n'))),
  ];
}

// What a command adds below its help can only be had by printing it.
function helpAfter(command: Command): string {
  let printed = '';
  const output = command.configureOutput();
  command.configureOutput({
    ...output,
    writeOut: (part) => {
      printed += part;
    },
  });
  command.outputHelp();
  command.configureOutput(output);
  return printed.slice(command.helpInformation().length).trim();
}

const argumentTerm = (argument: Argument): string =>
  argument.required ? `<${argument.name()}>` : `[${argument.name()}]`;
const entry = (term: string, meaning: string): string[] => [
  '.TP',
  bold(term),
  ...wrap(sentence(meaning)),
];
const paragraph = (words: string): string[] => ['.PP', ...wrap(words)];
const example = (lines: readonly string[]): string[] => [
  '.PP',
  '.RS 4',
  '.EX',
  ...lines.map(text),
  '.EE',
  '.RE',
];
const bold = (words: string): string => `\\fB${escapeText(words)}\\fR`;

/** Lines of input are kept short: they are filled when they are shown. */
function wrap(words: string): string[] {
  const lines = words.match(/\S.{0,68}(?=\s|$)/g) ?? [];
  return lines.map(text);
}

/** Text of a line: a dot or quote at its start would be a request. */
const text = (words: string): string => escapeText(words).replace(/^(?=[.'])/, '\\&');

// These would be typeset as other characters. [groff_man(7) "Portability"]
const escapeText = (words: string): string =>
  words
    .replace(/\\/g, '\\e')
    .replace(/-/g, '\\-')
    .replace(/'/g, '\\(aq')
    .replace(/`/g, '\\(ga')
    .replace(/\^/g, '\\(ha')
    .replace(/~/g, '\\(ti');

// Help starts small and has no full stop.
function sentence(words: string): string {
  const first = /^[a-z]+([ ,:]|$)/.test(words)
    ? words.charAt(0).toUpperCase() + words.slice(1)
    : words;
  return /[.?!)]$/.test(first) ? first : `${first}.`;
}
