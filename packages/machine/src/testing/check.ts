/** What every architecture must keep, each as the sentence that a failing check breaks. */
export const RULES = {
  declares: 'its variants are named after it, each once, and are machines that scenarios can name',
  impossible: 'a machine that cannot exist is refused by a ModelError with details.path',
  answers: 'what goes wrong in a run is in its report, never an exception',
  works: 'an ordinary guest works with a device, or refuses one without ACCESS_PLATFORM',
  data: 'data is right, or the report shows what was lost',
  stray: 'a device that works touches nothing that it was not given',
  balance: 'what a request maps is unmapped when it is done',
  private: 'private bytes of a secure guest are never seen in clear',
  coherent: 'the device reaches coherent memory, which is zeroed',
  physical: 'without the flag a bus address is a guest-physical address',
  space: 'any bus address is answered with memory that is there, or with a fault',
  counters: 'counters are whole numbers that never fall',
  reach: 'a device reaches no more than there is',
  repeats: 'the same seed gives the same trace',
} as const;

/** Which rule a check is of. */
export type Rule = keyof typeof RULES;

/** One rule, held against one machine. */
export interface Check {
  readonly rule: Rule;
  /** The variant and the rule's sentence; for the name of a test. */
  readonly name: string;
  readonly ok: boolean;
  /** What broke it first; or what was looked at. */
  readonly detail: string;
}

/** Collects what breaks the rules, and what was looked at. */
export class Findings {
  readonly #broken = new Map<Rule, string>();
  readonly #looks = new Map<Rule, number>();

  /** Holds `isKept` against a rule; only the first that breaks it is kept. */
  hold(rule: Rule, isKept: boolean, detail: () => string): void {
    this.#looks.set(rule, (this.#looks.get(rule) ?? 0) + 1);
    if (!isKept && !this.#broken.has(rule)) this.#broken.set(rule, detail());
  }

  /** A rule at which nothing was looked has not been kept. */
  check(rule: Rule, of: string): Check {
    const broken = this.#broken.get(rule);
    const looks = this.#looks.get(rule) ?? 0;
    const detail =
      broken ?? (looks === 0 ? 'there was nothing to look at' : `looked ${looks} times`);
    return {
      rule,
      name: `${of}: ${RULES[rule]}`,
      ok: broken === undefined && looks > 0,
      detail,
    };
  }
}
