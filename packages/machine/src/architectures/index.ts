import type { Architecture } from '../architecture.js';
import { arm64 } from './arm64.js';
import { pseries } from './pseries.js';
import { s390x } from './s390x.js';
import { x8664 } from './x86-64.js';
import { xen } from './xen.js';

/** The architectures that scenarios can name. */
export const architectures: readonly Architecture[] = [pseries, x8664, arm64, s390x, xen];

/** For errors: `"pseries" or "arm64"`. */
export function architectureNames(known: readonly Architecture[]): string {
  return known.map(({ id }) => JSON.stringify(id)).join(' or ');
}
