import type { Answer } from '@pinhole/machine';
import type { Mark } from './report/marks.js';

/** How the path of a device is judged, by what becomes of I/O over it, and by its risks. */
export function answerMark({ path, risks }: Answer): Mark {
  const word = path.name;
  const has = (severity: string): boolean => risks.some((risk) => risk.severity === severity);
  switch (path.id) {
    case 'refused':
    case 'qemu-refuses':
      return { symbol: '⊘', word, tone: 'bad' };
    case 'unknown':
      return { symbol: '?', word, tone: 'bad' };
    case 'unreachable':
    case 'mismatched':
      return { symbol: '✗', word, tone: 'bad' };
    default:
  }
  if (has('error')) return { symbol: '✗', word, tone: 'bad' };
  return has('warning') ? { symbol: '!', word, tone: 'warn' } : { symbol: '✓', word, tone: 'good' };
}
