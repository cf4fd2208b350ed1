import { hex } from '@pinhole/base';
import { FdtError, type FdtErrorInfo } from './errors.js';
import { MAX_NAME_LENGTH, SPEC_NAME_LENGTH } from './params.js';

/** dtc refuses any other. [dtc v1.6.1 checks.c node_name_chars, node_name_format] */
const NODE_NAME = /^[0-9a-zA-Z,._+-]*(?:@[0-9a-zA-Z,._+-]*)?$/;
/** [dtc v1.6.1 checks.c property_name_chars] */
const PROPERTY_NAME = /^[0-9a-zA-Z,._+*#?-]*$/;

/** [Devicetree v0.4 §2.2.1 "Node Names"] */
const STRICT_NODE_NAME = /^[a-zA-Z][0-9a-zA-Z,._+-]*(?:@[0-9a-zA-Z,._+-]+)?$/;
/** [Devicetree v0.4 §2.2.4 "Properties"] */
const STRICT_PROPERTY_NAME = /^[0-9a-zA-Z,._+?#-]*$/;

/** Where a name stands, for the error; asked for only when there is one. */
export type Where = () => Pick<FdtErrorInfo, 'offset' | 'path'>;

/** @throws FdtError `E_FDT_NAME` */
export function checkNodeName(name: string, isRoot: boolean, strict: boolean, where: Where): void {
  const fail = (expected: string): never => failName('node name', name, expected, where);
  if (isRoot) {
    // [Devicetree v0.4 §2.2.1]: the root has neither a name nor a unit address.
    if (name !== '') fail('none for the root');
    return;
  }
  if (name === '') fail('1 or more characters');
  if (name.length > MAX_NAME_LENGTH) fail(`at most ${MAX_NAME_LENGTH} characters`);
  if (!NODE_NAME.test(name)) fail('name@unit-address of 0-9 a-z A-Z , . _ + -');
  if (!strict) return;
  if (!STRICT_NODE_NAME.test(name)) fail('a letter first, and a unit address after @');
  if (baseName(name).length > SPEC_NAME_LENGTH) fail(`at most ${SPEC_NAME_LENGTH} before the @`);
}

/** @throws FdtError `E_FDT_NAME` */
export function checkPropertyName(name: string, strict: boolean, where: Where): void {
  const fail = (expected: string): never => failName('property name', name, expected, where);
  if (name === '') fail('1 or more characters');
  if (name.length > MAX_NAME_LENGTH) fail(`at most ${MAX_NAME_LENGTH} characters`);
  if (!PROPERTY_NAME.test(name)) fail('characters of 0-9 a-z A-Z , . _ + * # ? -');
  if (!strict) return;
  if (!STRICT_PROPERTY_NAME.test(name)) fail('characters of 0-9 a-z A-Z , . _ + ? # -');
  if (name.length > SPEC_NAME_LENGTH) fail(`at most ${SPEC_NAME_LENGTH} characters`);
}

/** The name without its unit address. */
export function baseName(name: string): string {
  const at = name.indexOf('@');
  return at < 0 ? name : name.slice(0, at);
}

/** For a message: printable, short. */
export function quote(name: string): string {
  const shown = name.length > 40 ? `${name.slice(0, 37)}...` : name;
  const printable = shown.replace(/[^ -~]/g, (c) => `\\x${hex(c.charCodeAt(0)).slice(2)}`);
  return `'${printable}'`;
}

function failName(what: string, name: string, expected: string, where: Where): never {
  const length = name.length > MAX_NAME_LENGTH ? ` (${name.length} characters or more)` : '';
  throw new FdtError('E_FDT_NAME', {
    what,
    expected,
    found: `${quote(name)}${length}`,
    ...where(),
  });
}
