import { expect, test } from 'vitest';
import { findCostPreset, MachineError, parseCosts } from '../../src/index.js';

const base = findCostPreset('power9-kvm');

function problems(text: string): string {
  try {
    parseCosts(text, { file: 'costs.yaml', base });
  } catch (error) {
    if (error instanceof MachineError) return `${error.code}: ${error.message}`;
    throw error;
  }
  return 'read';
}

test('a number is exact, a range is a range, and the rest stays', () => {
  const text = `
title: my machine
constants:
  kick: 1200
  hcallInQemu: { low: 3000, mid: 5000, high: 9000, status: measured, source: perf trace }
  bounce: { low: 5e9, mid: 5e9, high: 6e9 }
`;
  const preset = parseCosts(text, { file: 'costs.yaml', base });
  expect(preset.id).toBe('power9-kvm + costs.yaml');
  expect(preset.title).toBe('my machine');
  expect(preset.constants.kick).toEqual({
    low: 1200,
    mid: 1200,
    high: 1200,
    unit: 'ns',
    status: 'assumed',
    source: 'costs file',
  });
  expect(preset.constants.hcallInQemu).toMatchObject({ low: 3000, status: 'measured' });
  expect(preset.constants.bounce?.unit).toBe('bytes/s');
  expect(preset.constants.interrupt).toBe(base.constants.interrupt);
});

test('JSON is read, too, and without a preset there is only what the file has', () => {
  const preset = parseCosts('{"constants":{"request":1000}}');
  expect(Object.keys(preset.constants)).toEqual(['request']);
});

test.each([
  [
    'constants:\n  hcallInQuemu: 1\n',
    'costs.yaml:2:3: constants.hcallInQuemu: expected request, transfer, .*; found an unknown name; did you mean hcallInQemu\\?',
  ],
  [
    'constants:\n  kick: { low: 1, mid: 2, hihg: 3 }\n',
    'constants.kick.hihg: expected low, mid, high, status, source; found an unknown name; did you mean high\\?',
  ],
  ['constants:\n  kick: -1\n', 'costs.yaml:2:9: constants.kick: expected nanoseconds.*found -1'],
  ['constants:\n  bounce: 0\n', 'costs.yaml:2:11: constants.bounce: expected bytes a second'],
  ['constants:\n  transfer: 1e-300\n', 'constants.transfer: expected bytes a second.*from 1 to'],
  ['constants:\n  kick: .nan\n', 'constants.kick: expected nanoseconds'],
  ['constants:\n  kick: .inf\n', 'constants.kick: expected nanoseconds'],
  ['constants:\n  kick: 1e300\n', 'constants.kick: expected nanoseconds'],
  ['constants:\n  kick: fast\n', 'costs.yaml:2:9: constants.kick: expected a number, or .*"fast"'],
  ['constants:\n  kick: [1, 2, 3]\n', 'constants.kick: expected a number, or '],
  [
    'constants:\n  kick: { low: 3, mid: 2, high: 4 }\n',
    'costs.yaml:2:9: constants.kick: expected low <= mid <= high',
  ],
  [
    'constants:\n  kick: { low: 1, mid: 2 }\n',
    'costs.yaml:2:9: constants.kick.high: expected nanoseconds.*found nothing',
  ],
  [
    'constants:\n  kick: { low: 1, mid: 2, high: 3, status: known }\n',
    'constants.kick.status: expected "measured" or "cited" or "assumed", found "known"',
  ],
  ['constants: 7\n', 'costs.yaml:1:12: constants: expected {NAME'],
  ['titel: x\nconstants: {}\n', 'titel: expected title, constants; .*did you mean title\\?'],
  ['', 'expected {title'],
  ['[', 'costs.yaml:1:'],
  ['constants: { __proto__: 1 }\n', '__proto__'],
  [`a: ${'x'.repeat(2 ** 20)}`, 'expected at most 1048576 characters'],
  [
    `a: &a [1,1,1,1]\n${'b: &b [*a,*a,*a,*a,*a,*a,*a,*a]\n'.repeat(1)}c: [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]`,
    'E_COSTS',
  ],
])('what is none is refused with its place: %j', (text, expected) => {
  expect(problems(text)).toMatch(new RegExp(expected.replace('{', '\\{')));
});

test('a preset that is not there is refused, with the one that was meant', () => {
  expect(() => findCostPreset('power9kvm')).toThrow(
    'costs: expected power9-kvm, power9-tcg, x86-kvm, arm64-kvm, s390x-kvm, xen; found "power9kvm"; did you mean power9-kvm?',
  );
});
