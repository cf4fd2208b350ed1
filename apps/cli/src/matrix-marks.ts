import type { CellOutcome } from '@pinhole/machine';
import type { Mark } from './report/marks.js';

/** Outcomes of cells, as tables and pages show them. */
export const CELL_MARKS: Readonly<Record<CellOutcome, Mark>> = {
  'isolation-broken': { symbol: '!', word: 'isolation broken', tone: 'bad' },
  'silently-wrong': { symbol: '≠', word: 'silently wrong', tone: 'bad' },
  'contract-broken': { symbol: '⇄', word: 'contract broken', tone: 'bad' },
  hangs: { symbol: '∞', word: 'hangs', tone: 'bad' },
  'io-fails': { symbol: '✗', word: 'I/O fails', tone: 'bad' },
  leaks: { symbol: '↑', word: 'leaks', tone: 'warn' },
  refused: { symbol: '⊘', word: 'refused at probe', tone: 'info' },
  'works-slow': { symbol: '≈', word: 'works, but slow', tone: 'warn' },
  works: { symbol: '✓', word: 'works', tone: 'good' },
  'no-machine': { symbol: '-', word: 'not modelled', tone: 'none' },
};

/** What each outcome means, in a line. */
export const CELL_MEANINGS: Readonly<Record<CellOutcome, string>> = {
  'isolation-broken':
    'the hypervisor side saw private pages of a secure guest, or was sent to them',
  'silently-wrong': 'requests succeeded, and data is wrong',
  'contract-broken': "one side misread the other's addresses",
  hangs: 'a request never completed',
  'io-fails': 'requests failed, and the guest knows',
  leaks: "mappings stay for ever, or vhost's copies of them: the device keeps its access",
  refused: 'the guest found no usable device, and said so',
  'works-slow': 'every byte correct, and something is paid for every request',
  works: 'every byte correct',
  'no-machine': 'there is no such machine, or the model has none',
};
