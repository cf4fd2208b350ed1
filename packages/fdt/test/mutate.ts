/** Blobs that are nearly right. */
import { createRng, type Rng } from '@pinhole/base';
import { parseFdt, writeFdt } from '../src/index.js';
import { begin, end, endNode, nop, prop, rawBlob, rootWith } from './raw-blob.js';
import { loadVector, VECTORS } from './vectors.js';

/** Small ones are hit in every part; the real ones are less their free space. */
const SEEDS: Uint8Array[] = [
  rawBlob({
    structure: rootWith(
      prop(0, [1, 2, 3, 4]),
      nop,
      begin('cpus'),
      prop(2, [5]),
      begin('cpu@0'),
      endNode,
      endNode,
      begin('b'),
      endNode,
    ),
    strings: 'reg\0name2\0',
    reservations: [0, 0x1000, 0, 0x1000, 0, 0, 0, 0],
  }),
  rawBlob({
    structure: rootWith(begin('a'), prop(0), endNode, begin('b'), prop(1), endNode, end.slice(4)),
  }),
  ...VECTORS.map((name) => writeFdt(parseFdt(loadVector(name)))),
];

const WORDS = [
  0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 40, 0x7fff_ffff, 0x8000_0000, 0xffff_fffc, 0xffff_ffff,
];

/** Words stay below `maxWord`: dtc does not stand very large lengths. */
export function mutant(seed: number, maxWord = 0xffff_ffff): Uint8Array {
  const rng = createRng(seed);
  const pick = <T>(list: readonly T[]): T => list[rng.below(list.length)]!;
  let blob: Buffer = Buffer.from(pick(SEEDS));
  // Half of them are changed once.
  for (let count = 1 + Math.max(0, rng.below(4) - 1); count > 0; count -= 1) {
    blob = pick(MUTATIONS)(blob, rng, maxWord);
  }
  return new Uint8Array(blob);
}

type Mutation = (blob: Buffer, rng: Rng, maxWord: number) => Buffer;

/** The offset of a word: of the header, or of anything behind it. */
function wordAt(blob: Buffer, rng: Rng): number {
  const words = Math.floor(blob.length / 4);
  return 4 * (rng.below(8) === 0 ? rng.below(Math.min(words, 14)) : rng.below(words));
}

function setWord(blob: Buffer, at: number, value: number, maxWord: number): Buffer {
  if (at + 4 <= blob.length) blob.writeUInt32BE(Math.min(value, maxWord), at);
  return blob;
}

/** Keeps the sizes in the header right, so that the change itself is looked at. */
function splice(blob: Buffer, at: number, remove: number, insert: Buffer): Buffer {
  const changed = Buffer.concat([blob.subarray(0, at), insert, blob.subarray(at + remove)]);
  const delta = changed.length - blob.length;
  if (at < 56 || changed.length < 40) return changed;
  for (const field of [0x04, 0x0c, 0x24]) {
    const value = changed.readUInt32BE(field) + delta;
    if (value >= 0 && value <= 0xffff_ffff) changed.writeUInt32BE(value, field);
  }
  return changed;
}

const MUTATIONS: Mutation[] = [
  // A bit, a byte, a word.
  (blob, rng) => {
    const at = rng.below(blob.length);
    blob[at]! ^= 1 << rng.below(8);
    return blob;
  },
  (blob, rng) => {
    blob[rng.below(blob.length)] = rng.below(256);
    return blob;
  },
  (blob, rng, max) => setWord(blob, wordAt(blob, rng), WORDS[rng.below(WORDS.length)]!, max),
  // A word a little larger or smaller: lengths, offsets, tokens.
  (blob, rng, max) => {
    const at = wordAt(blob, rng);
    if (at + 4 > blob.length) return blob;
    return setWord(blob, at, (blob.readUInt32BE(at) + rng.below(17) - 8) >>> 0, max);
  },
  // Cut short; words taken out, put in, doubled, exchanged.
  (blob, rng) => Buffer.from(blob.subarray(0, Math.max(1, rng.below(blob.length)))),
  (blob, rng) => splice(blob, wordAt(blob, rng), 4 * (1 + rng.below(4)), Buffer.alloc(0)),
  (blob, rng) => {
    const token = Buffer.alloc(4);
    token.writeUInt32BE(WORDS[rng.below(8)]!);
    return splice(blob, wordAt(blob, rng), 0, token);
  },
  (blob, rng) => {
    const from = wordAt(blob, rng);
    const piece = Buffer.from(blob.subarray(from, from + 4 * (1 + rng.below(8))));
    return piece.length % 4 === 0 ? splice(blob, wordAt(blob, rng), 0, piece) : blob;
  },
  (blob, rng, max) => {
    const [a, b] = [wordAt(blob, rng), wordAt(blob, rng)];
    if (Math.max(a, b) + 4 > blob.length) return blob;
    const [x, y] = [blob.readUInt32BE(a), blob.readUInt32BE(b)];
    return setWord(setWord(blob, a, y, max), b, x, max);
  },
];
