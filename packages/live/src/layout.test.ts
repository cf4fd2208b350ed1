import { expect, test } from 'vitest';
import { mailboxFirmware } from './firmware.js';
import {
  DEVICE_TREE,
  MAILBOX,
  RECORD_BYTES,
  RECORDS,
  RECORDS_MAX,
  RESERVED_MEMORY,
  RTAS_BUFFER,
  RTAS_CELLS,
} from './layout.js';

test('the places in reserved memory follow each other and fit', () => {
  const places = [
    [0, mailboxFirmware().length],
    [MAILBOX, DEVICE_TREE + 8],
    [RTAS_BUFFER, RTAS_CELLS * 4],
    [RECORDS, RECORDS_MAX * RECORD_BYTES],
  ] as const;
  let end = 0;
  for (const [base, size] of places) {
    expect(base).toBeGreaterThanOrEqual(end);
    end = base + size;
  }
  expect(end).toBeLessThanOrEqual(RESERVED_MEMORY.base + RESERVED_MEMORY.size);
});
