/**
 * A real x86-64 machine without an IOMMU, whose processor does nothing: its PCI registers are reached by
 * qtest. Its disk is served by the model's data plane.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ByteMemory, type MemoryRegion } from '@pinhole/memory';
import type { MmioRegion, PciFunction } from '@pinhole/virtio';
import { diskContents } from '../../../../src/conform-virtio/contents.js';
import { waitUntil } from '../../../../src/wait.js';
import { Backend } from './sides.js';

export const X86_QEMU = 'qemu-system-x86_64';
export const hasX86: boolean = spawnSync(X86_QEMU, ['--version']).status === 0;

const MEMORY = 2 ** 28;
const ANSWER_MS = 20_000;
/** The instruction. */
const HLT = 0xf4;
/** Configuration space by ports. [PCI 3.0 §3.2.2.3.2 "Software Generation of Configuration Transactions"] */
const CONFIG_ADDRESS = 0xcf8;
const CONFIG_DATA = 0xcfc;
const SLOT = 4;
/** Where the modern BAR is put: above all memory. */
const MODERN_BAR = 4;
const BAR_OFFSET = 0x10 + 4 * MODERN_BAR;
const BAR_ADDRESS = 0xe000_0000;
const BAR_SIZE = 0x4000;
const COMMAND = 4;
const COMMAND_MEMORY = 2;

class FileMemory extends ByteMemory {
  readonly regions: readonly MemoryRegion[] = [{ base: 0, size: MEMORY }];
  readonly #fd: number;

  constructor(fd: number) {
    super();
    this.#fd = fd;
  }

  override isBacked(gpa: number, length: number): boolean {
    return gpa >= 0 && gpa + length <= MEMORY;
  }

  override read(gpa: number, into: Uint8Array): void {
    readSync(this.#fd, into, 0, into.length, gpa);
  }

  override write(gpa: number, from: Uint8Array): void {
    writeSync(this.#fd, from, 0, from.length, gpa);
  }
}

export class X86Machine implements PciFunction {
  readonly name = '0000:00:04.0';
  readonly memory: FileMemory;
  readonly backend: Backend;
  readonly #folder: string;
  readonly #fds: number[];
  readonly #qemu: ChildProcess;
  readonly #out: number;
  #heard = 0;

  constructor(iommuPlatform: boolean) {
    this.#folder = mkdtempSync(join(tmpdir(), 'pinhole-vhost-'));
    const path = (name: string): string => join(this.#folder, name);
    writeFileSync(path('disk.img'), diskContents());
    this.backend = new Backend(this.#folder, path('disk.img'), 1);
    this.#out = openSync(path('qtest'), 'a+');
    const ram = openSync(path('ram'), 'w+');
    ftruncateSync(ram, MEMORY);
    this.#fds = [this.#out, ram];
    this.memory = new FileMemory(ram);
    // Its processor halts at the first instruction, interrupts disabled.
    writeFileSync(path('halt.bin'), new Uint8Array(0x1_0000).fill(HLT));
    const onOff = iommuPlatform ? 'on' : 'off';
    const args = [
      ...['-machine', 'q35,accel=tcg,memory-backend=ram0', '-m', '256M', '-bios', path('halt.bin')],
      '-object',
      `memory-backend-file,id=ram0,size=256M,mem-path=${path('ram')},share=on`,
      ...['-nodefaults', '-display', 'none', '-qtest', 'stdio', '-qtest-log', 'none'],
      ...['-chardev', `socket,id=vu0,path=${this.backend.socket}`],
      '-device',
      `vhost-user-blk-pci,chardev=vu0,num-queues=1,disable-legacy=on,addr=${SLOT},iommu_platform=${onOff}`,
    ];
    // Whatever becomes of us, it ends.
    this.#qemu = spawn('timeout', ['120', X86_QEMU, ...args], {
      stdio: ['pipe', this.#out, 'ignore'],
    });
    for (const source of [this.#qemu, this.#qemu.stdin]) source?.on('error', () => {});
    this.#qemu.unref();
    this.configWrite(BAR_OFFSET, 4, BAR_ADDRESS);
    this.configWrite(BAR_OFFSET + 4, 4, 0);
    this.configWrite(COMMAND, 2, this.configRead(COMMAND, 2) | COMMAND_MEMORY);
  }

  configRead(offset: number, width: 1 | 2 | 4): number {
    this.#select(offset);
    return this.#ask(`in${letter(width, 'bwl')} ${CONFIG_DATA + (offset & 3)}`);
  }

  configWrite(offset: number, width: 1 | 2 | 4, value: number): void {
    this.#select(offset);
    this.#ask(`out${letter(width, 'bwl')} ${CONFIG_DATA + (offset & 3)} ${value >>> 0}`);
  }

  bar(index: number): MmioRegion | undefined {
    if (index !== MODERN_BAR) return undefined;
    return {
      size: BAR_SIZE,
      read: (offset, width) => this.#ask(`read${letter(width, 'bwl')} ${BAR_ADDRESS + offset}`),
      write: (offset, width, value) => {
        this.#ask(`write${letter(width, 'bwl')} ${BAR_ADDRESS + offset} ${value >>> 0}`);
      },
    };
  }

  close(): void {
    try {
      this.#qemu.kill('SIGTERM');
      this.backend.close();
    } finally {
      for (const fd of this.#fds) closeSync(fd);
      rmSync(this.#folder, { recursive: true, force: true });
    }
  }

  #select(offset: number): void {
    this.#ask(`outl ${CONFIG_ADDRESS} ${(0x8000_0000 | (SLOT << 11) | (offset & ~3)) >>> 0}`);
  }

  /** One command of qtest, and the number in its answer. [qemu v7.2 softmmu/qtest.c] */
  #ask(command: string): number {
    this.#qemu.stdin?.write(`${command}\n`);
    const bytes = Buffer.alloc(256);
    let line = '';
    const isAnswered = (): boolean => {
      const length = readSync(this.#out, bytes, 0, bytes.length, this.#heard);
      line = bytes.toString('latin1', 0, length);
      return line.endsWith('\n');
    };
    if (!waitUntil(isAnswered, ANSWER_MS)) throw new Error(`QEMU does not answer ${command}`);
    this.#heard += line.length;
    if (!line.startsWith('OK')) throw new Error(`${command}: ${line}`);
    return Number(line.slice(3));
  }
}

const letter = (width: number, letters: string): string => letters[Math.log2(width)] ?? '';
