import { createRng } from '@pinhole/base';
import { expect, test } from 'vitest';
import { detectFormat } from '../src/index.js';

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

const PUT = 'spapr_iommu_pci_put liobn=0x80000000 ioba=0x1000 tce=0x3 ret=0';

test.each([
  ['empty', ''],
  ['empty', ' \r\n\t\n'],
  ['qemu-log', PUT],
  ['qemu-log', `qemu-system-ppc64: warning: x\nqemu-system-ppc64: warning: y\n${PUT}\n`],
  ['qemu-log', `Nov 24 12:00:00 host qemu[1]: ${PUT}\n`],
  ['qemu-log', `2026-11-24T12:00:00.123456Z ${PUT}\n`],
  ['qemu-log', 'kvm_vm_ioctl type 0xae03, arg 0x0\nvtd_reset\n'],
  ['ftrace', '# tracer: nop\n#\n# entries-in-buffer/entries-written: 0/0   #P:1\n'],
  ['ftrace', '  init-1  [000] .....  1.000000: sched_switch: a\n'],
  ['ftrace', '  init-1  [000] .....  1.000000: hcall_entry: opcode=32\n'],
  ['trace-cmd', 'cpus=2\n'],
  ['trace-cmd', '  init-1  [000]  1.000000: hcall_entry:          opcode=32\n'],
  ['trace-cmd', '  init-1  [000]  1.000000000: sched_switch: a\n'],
  ['trace-cmd', '  init-1     0d....  1.000000: sched_switch: a\n'],
  ['console', '[    0.000000] Linux version 6.1.0 (x) #1\n'],
  ['console', 'Nov 24 12:00:00 host kernel: Linux version 6.1.0 (x) #1\n'],
  ['console', 'SLOF **************\n'],
  ['console', 'Grüße aus der Konsole: 日本語\n'],
  ['binary', '\u0000\u0001\u0002\u0003'],
  ['binary', Buffer.from(PUT, 'utf16le').toString('latin1')],
] as const)('%s: %j', (format, text) => {
  expect(detectFormat(bytesOf(text))).toBe(format);
});

test('a compressed file, and noise', () => {
  expect(detectFormat(Uint8Array.of(0x1f, 0x8b, 8, 0x20))).toBe('binary');
  const rng = createRng(1);
  for (let round = 0; round < 20; round += 1) {
    expect(detectFormat(Uint8Array.from({ length: 4096 }, () => rng.below(256)))).toBe('binary');
  }
});
