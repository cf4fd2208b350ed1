import { editDistance } from '@pinhole/base';
import { TraceError } from './errors.js';
import { eventCatalogue } from './events.js';
import type { EventSpec } from './types.js';

const BY_NAME: ReadonlyMap<string, EventSpec> = new Map(
  eventCatalogue.map((event) => [event.name, event]),
);
const MAX_SUGGESTIONS = 3;

/** The catalogue's row for a name; `undefined` when there is no such event. */
export function findEvent(name: string): EventSpec | undefined {
  return BY_NAME.get(name);
}

/**
 * The names that a pattern selects: names with `*` (any text) and `?` (one character), separated by
 * commas, as in `spapr_iommu_*,virtqueue_pop`.
 * @throws TraceError `E_TRACE_PATTERN` when a part of the pattern matches no event.
 */
export function matchEvents(pattern: string): ReadonlySet<string> {
  const selected = new Set<string>();
  for (const part of pattern.split(',').map((text) => text.trim())) {
    const matches = eventCatalogue.filter((event) => matchesGlob(event.name, part));
    if (matches.length === 0) throw noMatch(part);
    for (const event of matches) selected.add(event.name);
  }
  return selected;
}

/** Linear in the text for each `*`; a regular expression made of user text could be exponential. */
function matchesGlob(text: string, glob: string): boolean {
  let t = 0;
  let g = 0;
  let star = -1;
  let retry = 0;
  while (t < text.length) {
    if (glob[g] === '*') {
      star = g;
      g += 1;
      retry = t;
    } else if (g < glob.length && (glob[g] === '?' || glob[g] === text[t])) {
      g += 1;
      t += 1;
    } else if (star >= 0) {
      retry += 1;
      t = retry;
      g = star + 1;
    } else {
      return false;
    }
  }
  while (glob[g] === '*') g += 1;
  return g === glob.length;
}

function noMatch(part: string): TraceError {
  const shown = part.length > 80 ? `${part.slice(0, 80)}...` : part;
  const suggestions = suggest(part);
  const hint =
    suggestions.length > 0
      ? `did you mean ${suggestions.join(', ')}?`
      : 'the names are in the event catalogue; * matches any text';
  return new TraceError('E_TRACE_PATTERN', `no event matches "${shown}"; ${hint}`, {
    pattern: shown,
    suggestions,
  });
}

/** The names nearest to a mistyped one; for a pattern, to its text without the stars. */
function suggest(part: string): string[] {
  const bare = part.replaceAll(/[*?]/g, '').slice(0, 80);
  if (bare.length < 3) return [];
  return eventCatalogue
    .map(({ name }) => {
      const near = part.includes('*') ? name.slice(0, bare.length) : name;
      return { name, distance: editDistance(bare, near) };
    })
    .filter(({ distance }) => distance <= Math.max(2, Math.floor(bare.length / 4)))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, MAX_SUGGESTIONS)
    .map(({ name }) => name);
}
