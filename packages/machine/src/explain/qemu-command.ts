/** A QEMU command line, option by option. */
import { ExplainError } from './errors.js';
import type { NotUnderstood } from './facts.js';
import { QEMU_OPTIONS } from './qemu-option-table.js';
import { lastValue, parseQemuOpts, type QemuOpt } from './qemu-opts.js';
import { type ShellWord, splitShellWords } from './shell-words.js';

/** One `-device`, or another option that makes one. */
export interface CommandDevice {
  readonly opts: readonly QemuOpt[];
  /** As written: `-device virtio-blk-pci,drive=d0`. */
  readonly text: string;
}

/** `-global driver.property=value`. */
export interface CommandGlobal {
  readonly driver: string;
  readonly property: string;
  readonly value: string;
  isUsed: boolean;
}

/** What a command line says, in its own terms. */
export interface QemuCommand {
  /** The program without its folder. */
  readonly program: string;
  /** Options of `-M`, the last of each wins. */
  readonly machine: readonly QemuOpt[];
  /** Options of `-m`. */
  readonly memory: readonly QemuOpt[];
  readonly smp: readonly QemuOpt[];
  readonly accels: readonly string[];
  readonly globals: readonly CommandGlobal[];
  readonly devices: readonly CommandDevice[];
  readonly objects: readonly (readonly QemuOpt[])[];
  readonly netdevs: readonly (readonly QemuOpt[])[];
  /** The last `-append`. */
  readonly append: string;
  readonly hasKernel: boolean;
  readonly hasDefaults: boolean;
  readonly vga: string | undefined;
  /** `-nic` or `-net` says that there is a network card, or that there is none. */
  readonly hasNicOption: boolean;
  readonly notUnderstood: readonly NotUnderstood[];
  readonly notes: readonly string[];
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] extends readonly (infer U)[] ? U[] : T[K] };

const PROGRAM = /^(qemu-system-[\w-]+|qemu-kvm|kvm|qemu)$/;

/**
 * Reads a QEMU command line, with what came before QEMU in it (`sudo`, `VAR=x`).
 * @throws ExplainError `E_COMMAND_LINE`
 */
export function parseQemuCommand(text: string): QemuCommand {
  if (/^\s*<(\?xml|domain)/.test(text)) {
    throw new ExplainError(
      'E_COMMAND_LINE',
      'expected a QEMU command line, found XML: libvirt XML is not read; give the command line that libvirt logs (/var/log/libvirt/qemu/NAME.log)',
    );
  }
  const { words, notes } = splitShellWords(text);
  if (words.length === 0) {
    throw new ExplainError(
      'E_COMMAND_LINE',
      'expected a QEMU command line such as "qemu-system-ppc64 -M pseries ...", found nothing',
    );
  }
  const start = words.findIndex(({ text: word }) => PROGRAM.test(baseName(word)));
  if (start < 0) {
    throw new ExplainError(
      'E_COMMAND_LINE',
      `expected a QEMU command line such as "qemu-system-ppc64 -M pseries ...", found none of qemu-system-*, qemu-kvm, kvm in it; it starts with "${shorten(text.trim())}"`,
    );
  }
  return new Reader(words.slice(start), notes).read();
}

class Reader {
  readonly #words: readonly ShellWord[];
  readonly #command: Mutable<QemuCommand>;
  #at = 1;
  #hasAppend = false;

  constructor(words: readonly ShellWord[], notes: readonly string[]) {
    this.#words = words;
    this.#command = {
      program: baseName(words[0]?.text ?? ''),
      machine: [],
      memory: [],
      smp: [],
      accels: [],
      globals: [],
      devices: [],
      objects: [],
      netdevs: [],
      append: '',
      hasKernel: false,
      hasDefaults: true,
      vga: undefined,
      hasNicOption: false,
      notUnderstood: [],
      notes: [...notes],
    };
  }

  read(): QemuCommand {
    for (; this.#at < this.#words.length; this.#at += 1) this.#word();
    return this.#command;
  }

  #word(): void {
    const word = this.#words[this.#at] as ShellWord;
    if (!word.text.startsWith('-') || word.text === '-') {
      this.#disk(word);
      return;
    }
    const name = word.text.replace(/^--?/, '');
    const option = QEMU_OPTIONS.get(name);
    const next = this.#words[this.#at + 1]?.text;
    if (option === undefined) {
      // Whether it has a value is not known; one that looks like an option is none.
      const hasValue = next !== undefined && !next.startsWith('-');
      if (hasValue) this.#at += 1;
      this.#strange(
        hasValue ? `${word.text} ${next}` : word.text,
        'may-matter',
        'no option of QEMU that is known here',
      );
      return;
    }
    if (!option.hasValue) {
      this.#flag(name);
      return;
    }
    if (next === undefined) {
      throw new ExplainError(
        'E_COMMAND_LINE',
        `line ${word.line}, column ${word.column}: expected a value after ${word.text}, found the end of the command line`,
        { details: { line: word.line, column: word.column } },
      );
    }
    this.#at += 1;
    if (option.effect === 'read') this.#option(name, next);
    else if (option.effect === 'may-matter') {
      this.#strange(`${word.text} ${next}`, 'may-matter', 'brings in what is written elsewhere');
    }
  }

  // A word that is no option is a disk image.
  #disk(word: ShellWord): void {
    const looksLikeParameter = this.#hasAppend && !/\.(qcow2|img|raw|iso|vmdk)$/.test(word.text);
    this.#strange(
      word.text,
      looksLikeParameter ? 'may-matter' : 'none',
      looksLikeParameter
        ? 'belongs to no option: the value of -append needs quotes; taken as a kernel parameter'
        : "a disk image, on the machine's own disk controller",
    );
    if (looksLikeParameter) this.#command.append += ` ${word.text}`;
  }

  #flag(name: string): void {
    if (name === 'nodefaults') this.#command.hasDefaults = false;
    else if (name === 'enable-kvm') this.#command.accels.push('kvm');
  }

  #option(name: string, value: string): void {
    const command = this.#command;
    const opts = (impliedKey?: string): QemuOpt[] => parseQemuOpts(value, impliedKey);
    if (name === 'M' || name === 'machine') command.machine.push(...opts('type'));
    else if (name === 'm') command.memory.push(...opts('size'));
    else if (name === 'smp') command.smp.push(...opts('cpus'));
    else if (name === 'accel') command.accels.push(lastValue(opts('accel'), 'accel') ?? '');
    else if (name === 'global') this.#global(value);
    else if (name === 'device') this.#device(`-device ${value}`, opts('driver'));
    else if (name === 'object') command.objects.push(opts('qom-type'));
    else if (name === 'netdev') command.netdevs.push(opts('type'));
    else if (name === 'append') {
      command.append = value;
      this.#hasAppend = true;
    } else if (name === 'kernel') command.hasKernel = true;
    else if (name === 'vga') command.vga = value;
    else if (name === 'drive') this.#drive(value, opts());
    else if (name === 'nic' || name === 'net') this.#nic(name, value, opts('type'));
    else if (name === 'virtfs') {
      this.#device(`-virtfs ${value}`, parseQemuOpts('virtio-9p', 'driver'));
    } else if (name === 'set') {
      this.#strange(`-set ${value}`, 'may-matter', 'changes an option elsewhere on the line');
    } else if (/^hd[a-d]$|^cdrom$/.test(name)) this.#drive(`if=default,file=${value}`, []);
    // -cpu, -blockdev, -chardev: read, and nothing of theirs is needed.
  }

  // `driver.property=value`, or in three parts. [qemu v7.2 softmmu/qdev-monitor.c qemu_global_option]
  #global(value: string): void {
    const dotted = /^([^.=,]+)\.([^=]+)=(.*)$/s.exec(value);
    const opts = dotted === null ? parseQemuOpts(value) : [];
    const driver = dotted?.[1] ?? lastValue(opts, 'driver');
    const property = dotted?.[2] ?? lastValue(opts, 'property');
    const given = dotted?.[3] ?? lastValue(opts, 'value');
    if (driver === undefined || property === undefined || given === undefined) {
      this.#strange(
        `-global ${value}`,
        'may-matter',
        'expected driver.property=value, found something else: QEMU does not start with it',
      );
      return;
    }
    this.#command.globals.push({ driver, property, value: given, isUsed: false });
  }

  #device(text: string, opts: readonly QemuOpt[]): void {
    this.#command.devices.push({ text, opts });
  }

  // Makes a device only with if=virtio, or where the machine's disks are virtio.
  #drive(value: string, opts: readonly QemuOpt[]): void {
    const kind = lastValue(opts, 'if');
    if (kind === 'virtio') {
      this.#device(`-drive ${value}`, parseQemuOpts('virtio-blk', 'driver'));
    } else if (kind === undefined || kind === 'default') {
      this.#device(`-drive ${value}`, parseQemuOpts('default-disk', 'driver'));
    }
  }

  #nic(name: string, value: string, opts: readonly QemuOpt[]): void {
    this.#command.hasNicOption = true;
    const type = lastValue(opts, 'type');
    if (name === 'net' && type !== 'nic') return;
    if (type === 'none') return;
    const model = lastValue(opts, 'model');
    const vhost = lastValue(opts, 'vhost');
    const driver = model === undefined ? 'default-nic' : model === 'virtio' ? 'virtio-net' : model;
    const extra = [
      ...(vhost === undefined ? [] : [{ key: 'vhost', value: vhost, isShort: false }]),
      ...(type === 'vhost-user' ? [{ key: 'vhost-user', value: 'on', isShort: false }] : []),
    ];
    this.#device(`-${name} ${value}`, [...parseQemuOpts(driver, 'driver'), ...extra]);
  }

  #strange(text: string, effect: NotUnderstood['effect'], why: string): void {
    this.#command.notUnderstood.push({ text: shorten(text), effect, why });
  }
}

function baseName(path: string): string {
  return path.replace(/^.*\//, '');
}

function shorten(text: string): string {
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
