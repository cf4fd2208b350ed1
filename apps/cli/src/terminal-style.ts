/** How results look at a terminal: the colours and symbols of reports. */
import pc from 'picocolors';
import type { Mark, Tone } from './report/marks.js';

/** Where something is printed. */
export interface TerminalOptions {
  /** Columns. */
  readonly width: number;
  readonly color: boolean;
}

/** Colours, or none of them. */
export type Colors = ReturnType<typeof pc.createColors>;

/** All colours, or text as it is. */
export function colorsIf(isColored: boolean): Colors {
  return pc.createColors(isColored);
}

/** Text in the colour of its tone. */
export function paint(tone: Tone, text: string, colors: Colors): string {
  if (tone === 'good') return colors.green(text);
  if (tone === 'warn') return colors.yellow(text);
  if (tone === 'bad') return colors.red(text);
  return tone === 'info' ? colors.cyan(text) : text;
}

/** An outcome or a severity: `✓ works`. */
export function markText({ symbol, word }: Mark): string {
  return `${symbol} ${word}`;
}
