import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import * as asm from './assembler.js';
import { mailboxFirmware } from './firmware.js';
import { ENTRY_POINT } from './layout.js';

const lines = (name: string): string[] =>
  readFileSync(new URL(`../test/vectors/${name}`, import.meta.url), 'utf8')
    .trim()
    .split('\n');
const hex = (word: number): string => word.toString(16).padStart(8, '0');

type Encoder = (...operands: number[]) => number;
const encoders: Record<string, Encoder> = {
  ...(asm as unknown as Record<string, Encoder>),
  sc: () => asm.sc1(),
};

describe('an instruction is encoded as GNU as does it', () => {
  test.each(lines('instructions.txt').map((line) => [line.slice(9), line.slice(0, 8)]))(
    '%s',
    (text, expected) => {
      const [mnemonic = '', operands = ''] = text.split(' ');
      // `8(31)` is two operands.
      const numbers = operands.split(/[,(]/).map((operand) => Number.parseInt(operand, 10));
      expect(hex((encoders[mnemonic] as Encoder)(...numbers))).toBe(expected);
    },
  );
});

test('the firmware, its branches too, is what GNU as makes of the same program', () => {
  const image = mailboxFirmware();
  const view = new DataView(image.buffer);
  const words: string[] = [];
  for (let at = ENTRY_POINT; at < image.length; at += 4) words.push(hex(view.getUint32(at)));
  expect(words).toEqual(lines('firmware.txt'));
});

test('a branch to nowhere is refused', () => {
  expect(() => asm.assemble([asm.b('nowhere')])).toThrow('no label nowhere');
});
