/** Longer texts are cut before they are compared. */
const MAX_LENGTH = 80;

/** Levenshtein's distance. */
export function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

/** The name that a mistyped one was meant to be, where one is near enough. */
export function nearestName(mistyped: string, names: readonly string[]): string | undefined {
  const bare = mistyped.slice(0, MAX_LENGTH).toLowerCase();
  const [nearest] = names
    .map((name) => ({ name, distance: editDistance(bare, name.toLowerCase()) }))
    .filter(({ distance }) => distance <= Math.max(2, Math.floor(bare.length / 4)))
    .sort((a, b) => a.distance - b.distance);
  return nearest?.name;
}
