import { describe, expect, test } from 'vitest';
import { countPoints, parseShard, parseSweepAxis, planSweep } from '../../src/index.js';

describe('values', () => {
  test.each([
    ['machine.memory=2GiB..64GiB', ['2GiB', '4GiB', '8GiB', '16GiB', '32GiB', '64GiB']],
    ['machine.memory=2GiB..24GiB', ['2GiB', '4GiB', '8GiB', '16GiB']],
    ['machine.memory=1GiB..4GiB:1GiB', ['1GiB', '2GiB', '3GiB', '4GiB']],
    ['machine.memory=2048MiB..4G', ['2GiB', '4GiB']],
    ['x=512..2KiB', ['512B', '1KiB', '2KiB']],
    ['x=1000B..3000B', ['1000B', '2000']],
    ['x=1..4', ['1', '2', '3', '4']],
    ['x=1..10:4', ['1', '5', '9']],
    ['x=5..5', ['5']],
    ['x=true,false', ['true', 'false']],
    ['x=on', ['on']],
    ['x=1,4..6,512KiB..1MiB', ['1', '4', '5', '6', '512KiB', '1MiB']],
    [
      'w={read: {offset: 0, length: 4KiB}},[1, 2],"a,b"',
      ['{read: {offset: 0, length: 4KiB}}', '[1, 2]', '"a,b"'],
    ],
    ['guest.cmdline=a=b', ['a=b']],
  ])('%s', (setting, values) => {
    expect(parseSweepAxis(setting).values).toEqual(values);
  });

  test.each([
    ['', 'expected path=values'],
    ['=1', 'expected path=values'],
    ['machine.memory', 'expected path=values'],
    ['x=', 'expected a value between commas, found nothing'],
    ['x=1,,2', 'expected a value between commas'],
    ['x=1,1', 'expected each value once, found 1 twice'],
    ['x=4..1', 'expected a range that rises, found 4..1'],
    ['x=1..4:0', 'expected a step above 0'],
    ['x=0KiB..4KiB', 'expected a range that doubles to begin above 0'],
    ['x=a..b', 'expected a range of whole numbers or sizes'],
    ['x=1..b', 'expected a range of whole numbers or sizes'],
    ['x=1.5..3', 'expected a range of whole numbers or sizes'],
    ['x=0..1000000000', 'expected at most 10000 values, found 1000000001'],
    ['x=1B..8PiB:1B', 'expected a range of whole numbers or sizes'],
    ['x=1B..8000TiB:1B', 'expected at most 10000 values'],
    ['x=1..99999999999999999999', 'expected a size such as'],
  ])('refused: %s', (setting, message) => {
    expect(() => parseSweepAxis(setting)).toThrow(message);
  });

  test('a long list is refused in no time', () => {
    const values = Array.from({ length: 200_000 }, (_, i) => i).join(',');
    expect(() => parseSweepAxis(`x=${values}`)).toThrow('at most 10000 values, found 200000');
  });
});

describe('points', () => {
  const axes = [parseSweepAxis('a=1..3'), parseSweepAxis('b=x,y')];

  test('are all combinations, the last axis fastest', () => {
    expect(planSweep(axes).map(({ values }) => values.join(''))).toEqual([
      ...['1x', '1y', '2x', '2y', '3x', '3y'],
    ]);
    expect(planSweep(axes)[3]).toEqual({ index: 3, values: ['2', 'y'], set: ['a=2', 'b=y'] });
  });

  test('shards take turns, and are all of it together', () => {
    const shards = [1, 2, 3, 4].map((index) => planSweep(axes, { index, of: 4 }));
    expect(shards.map((points) => points.map(({ index }) => index))).toEqual([
      [0, 4],
      [1, 5],
      [2],
      [3],
    ]);
  });

  test('too many, none, or a path twice is refused', () => {
    const long = parseSweepAxis('a=1..1000');
    const more = parseSweepAxis('b=1..11');
    expect(() => countPoints([long, more])).toThrow(
      '--set: expected at most 10000 points, found 1000 x 11 = 11000',
    );
    expect(() => countPoints([])).toThrow('expected a --set with several values');
    expect(() => countPoints([more, more])).toThrow('expected each path once, found b twice');
  });

  test('a shard is i/n', () => {
    expect(parseShard('2/5')).toEqual({ index: 2, of: 5 });
    for (const text of ['', '0/1', '3/2', '1', '1/0', 'a/b', '1/2/3', '-1/2', '1e1/20']) {
      expect(() => parseShard(text)).toThrow('--shard: expected i/n');
    }
  });
});
