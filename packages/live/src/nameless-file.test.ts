import { fstatSync, mkdtempSync, readdirSync, readSync, rmdirSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { closeAll, openNameless, openUnlinked } from './nameless-file.js';

const folder = mkdtempSync(join(tmpdir(), 'pinhole-nameless-'));

test.each([
  ['in memory', () => openNameless('memory')],
  ['on a disk', () => openNameless('disk')],
  ['where every file has a name', () => openUnlinked(folder, 0)],
])('%s: it can be written and read, and is in no folder', (_, open) => {
  const fd = open();
  expect(fstatSync(fd).nlink).toBe(0);
  writeSync(fd, 'hello', 0);
  const back = Buffer.alloc(5);
  readSync(fd, back, 0, 5, 0);
  expect(back.toString()).toBe('hello');
  expect(readdirSync(folder)).toEqual([]);
  closeAll([fd, fd]);
  expect(() => fstatSync(fd)).toThrow();
});

test('nothing is left', () => rmdirSync(folder));
