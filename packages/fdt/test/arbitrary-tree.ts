/** Random trees for fast-check. */
import fc from 'fast-check';
import type { Fdt, FdtNode, FdtProperty } from '../src/index.js';

// A small alphabet makes names that share endings.
const word = fc.string({ unit: fc.constantFrom(...'abc-,#'), minLength: 1, maxLength: 6 });
/** dtc looks into these, or gives them a meaning. */
const RESERVED = new Set(['name', 'phandle', 'linux,phandle']);
const propertyName = fc
  .oneof(
    word,
    fc.string({ unit: fc.constantFrom(...'xyz019AZ,._+*#?-'), minLength: 1, maxLength: 40 }),
  )
  .filter((name) => !RESERVED.has(name));
const nodeName = fc
  .tuple(
    fc.string({ unit: fc.constantFrom(...'abcXYZ019,._+-'), minLength: 1, maxLength: 40 }),
    fc.option(fc.stringMatching(/^[0-9a-f,]{1,8}$/)),
  )
  .map(([name, unit]) => (unit === null ? name : `${name}@${unit}`));

const value = fc.oneof(
  fc.uint8Array({ maxLength: 24 }),
  fc.constantFrom(new Uint8Array(), Uint8Array.of(0), Uint8Array.of(0, 0, 0, 9)),
);
const property: fc.Arbitrary<FdtProperty> = fc.record({ name: propertyName, value });
const properties = fc.uniqueArray(property, { selector: ({ name }) => name, maxLength: 6 });

const { node } = fc.letrec<{ node: FdtNode }>((tie) => ({
  node: fc.record({
    name: nodeName,
    properties,
    children: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      fc.constant<FdtNode[]>([]),
      fc.uniqueArray(tie('node'), { selector: ({ name }) => name, maxLength: 4 }),
    ),
  }),
}));

const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const reservation = fc
  .tuple(u64, u64)
  .map(([a, b]) => (a < b ? { address: a, size: b - a } : { address: b, size: a - b || 1n }));

export const trees: fc.Arbitrary<Fdt> = fc.record({
  root: fc
    .tuple(properties, fc.uniqueArray(node, { selector: ({ name }) => name, maxLength: 5 }))
    .map(([properties, children]) => ({ name: '', properties, children })),
  reservations: fc.array(reservation, { maxLength: 3 }),
  // dtc -b takes 0xffffffff for "guess".
  bootCpuid: fc.nat({ max: 0xffff_fffe }),
});
