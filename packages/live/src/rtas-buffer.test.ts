import { createGuestMemory } from '@pinhole/memory';
import { expect, test } from 'vitest';
import { RESERVED_MEMORY, RTAS_BUFFER } from './layout.js';
import { RtasBuffer } from './rtas-buffer.js';

const memory = createGuestMemory({ regions: [RESERVED_MEMORY] });
const buffer = new RtasBuffer(memory);

test('cells are big-endian: token, nargs, nret, arguments', () => {
  buffer.write(0x2026, [1, 0xffff_ffff], 1);
  const cells = [0, 1, 2, 3, 4].map((i) => memory.readU32Be(RTAS_BUFFER + 4 * i));
  expect(cells).toEqual([0x2026, 2, 1, 1, 0xffff_ffff]);
});

test('what comes back ends with the last cell that was written', () => {
  buffer.write(0x2026, [7], 4);
  expect(buffer.returns(1, 4)).toEqual([]);
  memory.writeU32Be(RTAS_BUFFER + 16, 0xffff_fffd);
  expect(buffer.returns(1, 4)).toEqual([-3]);
  memory.writeU32Be(RTAS_BUFFER + 20, 0xffff_fffd);
  expect(buffer.returns(1, 4)).toEqual([-3, 0xffff_fffd]);
});

test('61 arguments and answers, and no more', () => {
  buffer.write(0x2026, new Array(31).fill(0), 30);
  expect(() => buffer.write(0x2026, new Array(31).fill(0), 31)).toThrow(
    'at most 61 RTAS arguments and answers, found 31 and 31',
  );
});
