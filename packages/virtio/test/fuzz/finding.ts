/** What a fuzzer looks for: a rule that did not hold. */
export class Finding extends Error {
  override name = 'Finding';
}

/** @throws Finding if the rule does not hold. */
export function check(holds: boolean, rule: string): asserts holds {
  if (!holds) throw new Finding(rule);
}
