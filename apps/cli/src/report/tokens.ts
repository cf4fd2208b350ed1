/** The colours of a report, by theme. A test holds each pair of text and ground to its contrast. */

/** Names of the colours, as style sheets write them: `var(--name)`. */
export type Token =
  | 'bg'
  | 'soft'
  | 'fg'
  | 'dim'
  | 'line'
  | 'good'
  | 'warn'
  | 'bad'
  | 'info'
  | 'c0'
  | 'c1'
  | 'c2'
  | 'c3'
  | 'c4'
  | 'c5';

export type Theme = Readonly<Record<Token, string>>;

/** Colours of a chart's parts: `c0`, `c1`, ... */
export const CHART_COLORS = 6;

export const LIGHT: Theme = {
  bg: '#ffffff',
  soft: '#f4f6f8',
  fg: '#1b1f24',
  dim: '#57606a',
  line: '#d0d7de',
  good: '#176f31',
  warn: '#7d5200',
  bad: '#b3191f',
  info: '#0759b5',
  // Told apart with each kind of colour blindness as well.
  c0: '#0072b2',
  c1: '#d55e00',
  c2: '#00896a',
  c3: '#aa4499',
  c4: '#8a6d00',
  c5: '#66707b',
};

export const DARK: Theme = {
  bg: '#0f1318',
  soft: '#181e26',
  fg: '#e6edf3',
  dim: '#9aa3ad',
  line: '#3a424c',
  good: '#4cc15f',
  warn: '#dfa32e',
  bad: '#ff8078',
  info: '#6cb2ff',
  c0: '#56b4e9',
  c1: '#f08a3c',
  c2: '#2dc399',
  c3: '#dd7fc4',
  c4: '#d8bf3c',
  c5: '#9aa4af',
};

/** As custom properties. */
export function declarations(theme: Theme): string {
  return Object.entries(theme)
    .map(([name, color]) => `--${name}: ${color};`)
    .join(' ');
}

/** A style sheet with each `var(--name)` replaced by its colour, for readers that know none. */
export function resolved(css: string, theme: Theme): string {
  return css.replace(/var\(--([a-z0-9]+)\)/g, (_, name: Token) => theme[name]);
}
