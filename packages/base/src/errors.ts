/**
 * What every Pinhole error is: a stable `code`, a message that says what was expected and what was
 * found, and machine-readable `details`.
 *
 * A `ModelError` is a mistake of the caller (a bad option, a malformed input). What a guest or a
 * device can cause is never thrown: it is a value (a return code, a status, a fault).
 */
export class ModelError<C extends string = string> extends Error {
  readonly code: C;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(
    code: C,
    message: string,
    options: { details?: Record<string, unknown>; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'ModelError';
    this.code = code;
    this.details = options.details ?? {};
  }

  /** A plain object for a log or a JSON answer; 64-bit values become `0x...` strings. */
  toJSON(): { name: string; code: C; message: string; details: Record<string, unknown> } {
    const details: Record<string, unknown> = {};
    for (const [key, value] of Object.entries(this.details)) {
      details[key] = typeof value === 'bigint' ? `0x${value.toString(16)}` : value;
    }
    return { name: this.name, code: this.code, message: this.message, details };
  }
}

/** A broken promise of our own code. Seeing one is a bug in Pinhole, never in the input. */
export class InternalError extends Error {
  constructor(message: string) {
    super(`${message} (this is a bug in Pinhole: please report it)`);
    this.name = 'InternalError';
  }
}

/** The real thing has this feature and the model does not (yet). */
export class NotModelled extends ModelError<'E_NOT_MODELLED'> {
  constructor(what: string, details?: Record<string, unknown>) {
    super('E_NOT_MODELLED', `${what} is not modelled`, details === undefined ? {} : { details });
    this.name = 'NotModelled';
  }
}

/**
 * Asserts what the code itself guarantees.
 * @throws InternalError when `condition` is false.
 */
export function invariant(condition: boolean, message: string): asserts condition {
  if (!condition) throw new InternalError(message);
}
