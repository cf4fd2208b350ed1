import { ExplainError } from './errors.js';

/** One `key=value` of an option. */
export interface QemuOpt {
  readonly key: string;
  readonly value: string;
  /** Written without a value: `iommu_platform` for `iommu_platform=on`. */
  readonly isShort: boolean;
}

/**
 * Reads `value,key=value,flag,noflag`: a comma in a value is written twice, the first value needs no
 * key where `impliedKey` is given. Braces make it JSON. [qemu v7.2 util/qemu-option.c opts_do_parse]
 * @param impliedKey - the key of a first value without one: `driver` for `-device`
 * @throws ExplainError `E_COMMAND_LINE` for JSON that is none.
 */
export function parseQemuOpts(text: string, impliedKey?: string): QemuOpt[] {
  if (text.startsWith('{')) return parseJson(text);
  const opts: QemuOpt[] = [];
  for (const part of splitAtCommas(text)) {
    const match = /^([^=,]*)=(.*)$/s.exec(part);
    if (match !== null) {
      opts.push({ key: match[1] as string, value: match[2] as string, isShort: false });
    } else if (opts.length === 0 && impliedKey !== undefined) {
      opts.push({ key: impliedKey, value: part, isShort: false });
    } else if (part !== '') {
      const isOff = part.startsWith('no') && part.length > 2;
      opts.push({ key: isOff ? part.slice(2) : part, value: isOff ? 'off' : 'on', isShort: true });
    }
  }
  return opts;
}

/** The last value of a key: later ones win. */
export function lastValue(opts: readonly QemuOpt[], key: string): string | undefined {
  return opts.findLast((opt) => opt.key === key)?.value;
}

/** `on`, `yes`, `true`, `y` and their opposites. [qemu v7.2 qapi/qapi-util.c qapi_bool_parse] */
export function parseOnOff(value: string): boolean | undefined {
  if (/^(on|yes|true|y)$/.test(value)) return true;
  return /^(off|no|false|n)$/.test(value) ? false : undefined;
}

// Single commas separate; double ones are one comma of the value.
function splitAtCommas(text: string): string[] {
  const parts: string[] = [''];
  for (let at = 0; at < text.length; at += 1) {
    const char = text[at] as string;
    if (char !== ',') parts[parts.length - 1] += char;
    else if (text[at + 1] === ',') {
      parts[parts.length - 1] += ',';
      at += 1;
    } else parts.push('');
  }
  return parts;
}

function parseJson(text: string): QemuOpt[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ExplainError(
      'E_COMMAND_LINE',
      `expected an option in JSON, found text that is not: ${text.slice(0, 60)} (${error instanceof Error ? error.message : String(error)})`,
    );
  }
  return flatten(value, '');
}

// Nested keys get dots, as in the other form. [qemu v7.2 util/keyval.c]
function flatten(value: unknown, prefix: string): QemuOpt[] {
  if (typeof value === 'object' && value !== null) {
    return Object.entries(value).flatMap(([key, item]) =>
      flatten(item, prefix === '' ? key : `${prefix}.${key}`),
    );
  }
  const text = typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value);
  return [{ key: prefix, value: text, isShort: false }];
}
