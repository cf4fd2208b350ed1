import { describe, expect, test } from 'vitest';
import { createNode, findNode, findProperty } from './index.js';
import { pathOf } from './path.js';

const aliases = createNode('aliases', {
  disk: '/soc/disk@1',
  bus: '/soc',
  loop: 'loop',
  other: 'disk',
  relative: 'soc',
  gone: '/nothing',
  odd: 1,
});
const soc = createNode('soc', {}, [
  createNode('disk@0'),
  createNode('disk@1', {}, [createNode('part')]),
  createNode('net@0'),
  createNode('cpu@0'),
  createNode('cpu'),
]);
const root = createNode('', { model: 'm' }, [aliases, soc]);
const nameAt = (path: string) => findNode(root, path)?.name;
const unclear: unknown = expect.objectContaining({ code: 'E_FDT_PATH' });

describe('findNode', () => {
  test.each([
    ['/', ''],
    ['/soc', 'soc'],
    ['/soc/disk@1', 'disk@1'],
    ['//soc///disk@1/', 'disk@1'],
    ['/soc/net', 'net@0'],
    // The one without a unit address, although another one comes first.
    ['/soc/cpu', 'cpu'],
    ['/soc/disk@1/part', 'part'],
    // Aliases.
    ['disk', 'disk@1'],
    ['disk/part', 'part'],
    ['bus/net', 'net@0'],
  ])('%s', (path, name) => {
    expect(nameAt(path)).toBe(name);
  });

  test.each([
    '/disk@1',
    '/soc/disk@2',
    '/soc/disk@',
    '/soc/dis',
    '/soc/net@0/x',
    'nothing',
    'gone',
  ])('%s leads nowhere', (path) => {
    expect(findNode(root, path)).toBeUndefined();
  });

  test.each(['loop', 'other', 'odd', 'other/part', 'relative', 'relative/net'])(
    'an alias that is no full path leads nowhere: %s',
    (path) => {
      expect(findNode(root, path)).toBeUndefined();
    },
  );

  test('a unit address is needed where two nodes fit', () => {
    expect(() => nameAt('/soc/disk')).toThrow(unclear);
    expect(() => nameAt('/soc/disk/part')).toThrow(/'disk@0' and 'disk@1'/);
  });

  test('no path is none', () => {
    expect(() => nameAt('')).toThrow(unclear);
  });

  test('no aliases', () => {
    expect(findNode(createNode(''), 'disk')).toBeUndefined();
  });
});

test('findProperty', () => {
  expect(findProperty(root, 'model')?.value).toEqual(Uint8Array.of(0x6d, 0));
  expect(findProperty(root, 'mode')).toBeUndefined();
});

test('pathOf: the middle of a long path is left out', () => {
  expect(pathOf([''])).toBe('/');
  expect(pathOf(['', 'a', 'b@1'])).toBe('/a/b@1');
  const long = pathOf(['', ...Array(1000).fill('abc'), 'end']);
  expect(long).toMatch(/^\/abc\/abc.*\.\.\..*\/abc\/end$/);
  expect(long).toHaveLength(244);
});
