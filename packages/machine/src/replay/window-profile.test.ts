import { describe, expect, test } from 'vitest';
import { Occupancy, WindowProfile, windowWithPools } from './window-profile.js';

describe('Occupancy', () => {
  test('keeps a bounded number of points, and the most within each', () => {
    const occupancy = new Occupancy();
    for (let line = 1; line <= 100_000; line += 1) {
      occupancy.note(line, line === 77_777 ? 900 : 5, 0);
    }
    occupancy.until(1_000_000);
    expect(occupancy.live.length).toBeLessThanOrEqual(512);
    expect(Math.max(...occupancy.live)).toBe(900);
    expect(occupancy.live.at(-1)).toBe(5);
    expect(occupancy.live.length * occupancy.step).toBeGreaterThan(1_000_000);
  });
});

describe('WindowProfile', () => {
  const create = (): WindowProfile<string> =>
    new WindowProfile(windowWithPools({ liobn: 1, busOffset: 0n, size: 0x4_0000 }));

  test('the picture is of when it was fullest', () => {
    const window = create();
    window.map(1, 3, 10, 'a');
    window.map(0x3_0000, 200, 11, 'b');
    expect([...window.unmap(1, 3, 12)].map(({ of }) => of)).toEqual(['a']);
    window.map(64, 1, 13, 'c');
    const { line, live, mapped, entriesPerCell } = window.picture();
    expect({ line, live, entriesPerCell }).toEqual({ line: 11, live: 203, entriesPerCell: 128 });
    expect(mapped).toHaveLength(2048);
    expect([mapped[0], mapped[1536], mapped[1537]]).toEqual([3, 128, 72]);
    expect(window.live).toBe(201);
  });

  test('entries that were given up are told apart until they are mapped again', () => {
    const window = create();
    window.map(8, 4, 1, 'a');
    window.giveUp(8, 4, 2);
    expect(window.leaked).toBe(4);
    expect(window.picture().given[0]).toBe(4);
    window.map(12, 1, 3, 'b');
    expect(window.picture().given[0]).toBe(4);
    window.map(8, 4, 4, 'c');
    expect([window.leaked, window.live]).toEqual([0, 5]);
  });

  test('what does not fit the window is passed over', () => {
    const window = create();
    expect(window.map(0x4_0000, 1, 1, 'a')).toBeUndefined();
    expect(window.map(-1, 1, 1, 'a')).toBeUndefined();
    expect(window.unmap(0, 0x4_0000, 2).size).toBe(0);
  });
});
