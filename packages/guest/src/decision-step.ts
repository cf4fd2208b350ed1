/** One step of a decision, for people: what was done or asked, what decided it, and where. */
export interface DecisionStep {
  /** The kernel function and the question, or what it did. */
  readonly what: string;
  /** The fact that decided it, with its value. */
  readonly fact: string;
  /** `[linux v6.1 path function]` or such. */
  readonly source: string;
}

/** A step as one line. */
export function formatStep({ what, fact }: DecisionStep): string {
  return fact === '' ? what : `${what}: ${fact}`;
}
