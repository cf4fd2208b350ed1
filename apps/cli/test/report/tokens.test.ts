/** The colours of reports, by the formulas of WCAG 2.1 ("relative luminance", "contrast ratio"). */
import { describe, expect, test } from 'vitest';
import { PAGE_STYLE } from '../../src/report/style.js';
import { CHART_COLORS, DARK, LIGHT, resolved, type Token } from '../../src/report/tokens.js';

function luminance(color: string): number {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const part = Number.parseInt(color.slice(at, at + 2), 16) / 255;
    return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(one: string, other: string): number {
  const [dark = 0, light = 0] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

test('the formula', () => {
  expect(contrast('#000000', '#ffffff')).toBeCloseTo(21);
  expect(contrast('#777777', '#ffffff')).toBeCloseTo(4.48, 2);
});

describe.each([
  ['light', LIGHT],
  ['dark', DARK],
] as const)('%s', (_, theme) => {
  const texts: Token[] = ['fg', 'dim', 'good', 'warn', 'bad', 'info'];
  test.each(texts)('text in %s can be read on each ground', (token) => {
    for (const ground of [theme.bg, theme.soft]) {
      expect(contrast(theme[token], ground)).toBeGreaterThanOrEqual(4.5);
    }
  });

  test('parts of charts stand out from the ground, and neighbours from one another', () => {
    const colors = Array.from({ length: CHART_COLORS }, (_unused, at) => theme[`c${at}` as Token]);
    for (const color of colors) expect(contrast(color, theme.bg)).toBeGreaterThanOrEqual(3);
    expect(new Set(colors).size).toBe(CHART_COLORS);
  });
});

test('style sheets use no colour besides the tokens, and no token that is not there', () => {
  const rules = PAGE_STYLE.replace(/--[a-z0-9]+: #[0-9a-f]{6};/g, '');
  expect(rules).not.toMatch(/#[0-9a-f]{3,8}\b|rgb|hsl/i);
  expect(resolved(PAGE_STYLE, LIGHT)).not.toMatch(/undefined|var\(/);
});
