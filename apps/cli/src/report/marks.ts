/**
 * Outcomes and severities as everything shows them, pages and terminals: a symbol, a word, and a
 * tone. The tone's colour never stands alone.
 */
import type { Outcome } from '@pinhole/machine';

/** What a colour says. */
export type Tone = 'good' | 'warn' | 'bad' | 'info' | 'none';

/** How something was judged. */
export interface Mark {
  /** One column wide. */
  readonly symbol: string;
  readonly word: string;
  readonly tone: Tone;
}

/** Outcomes of runs. */
export const OUTCOME_MARKS: Readonly<Record<Outcome, Mark>> = {
  works: { symbol: '✓', word: 'works', tone: 'good' },
  'works-slow': { symbol: '≈', word: 'works-slow', tone: 'warn' },
  refused: { symbol: '⊘', word: 'refused', tone: 'bad' },
  fails: { symbol: '✗', word: 'fails', tone: 'bad' },
  'wrong-data': { symbol: '≠', word: 'wrong-data', tone: 'bad' },
};

/** Severities of findings and risks. */
export const SEVERITY_MARKS: Readonly<Record<'error' | 'warning' | 'note' | 'info', Mark>> = {
  error: { symbol: '✗', word: 'error', tone: 'bad' },
  warning: { symbol: '!', word: 'warning', tone: 'warn' },
  note: { symbol: 'i', word: 'note', tone: 'info' },
  info: { symbol: 'i', word: 'info', tone: 'info' },
};
