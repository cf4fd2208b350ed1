import type { Rng } from '@pinhole/base';
import {
  VIRTIO_BLK_HEADER_SIZE,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
} from '@pinhole/virtio';
import type { Fault, RawRequest } from './rig.js';
import { DISK_SIZE, type VirtioShape } from './shapes.js';

/** A request, and what it is called in the table of what was done. */
export interface NamedRequest extends RawRequest {
  readonly name: string;
  /** Which device of a network; default: the first. */
  readonly member?: number;
}

const SECTOR = 512;
const PAGE = 4096;
const SECTORS = DISK_SIZE / SECTOR;
/** The most bytes of data in one request. */
const MAX_DATA = 32 * 1024;

/** Makes up requests for a device, by the seed of `rng`. */
export class RequestGenerator {
  readonly #rng: Rng;
  readonly #shape: VirtioShape;
  readonly #canBreak: boolean;

  /** @param canBreak - whether the device may be brought to an error that only a reset ends. */
  constructor(rng: Rng, shape: VirtioShape, canBreak: boolean) {
    this.#rng = rng;
    this.#shape = shape;
    this.#canBreak = canBreak;
  }

  /** What is in flight at once: one request mostly, then any faults show alone. */
  batch(): NamedRequest[] {
    if (this.#shape.type === 'rng') return [this.#entropy()];
    const count = this.#chance(0.2) ? 2 + this.#below(6) : 1;
    if (count === 1) return [this.#spoil(this.#block())];
    // Together: no two may touch the same sectors, since the order is the host's.
    const lane = Math.floor(SECTORS / count);
    return Array.from({ length: count }, (_, i) => this.#transfer(i * lane, lane));
  }

  #block(): NamedRequest {
    const kinds = [
      () => this.#transfer(0, SECTORS),
      () => this.#transfer(0, SECTORS),
      () => this.#transfer(0, SECTORS),
      () => this.#odd(),
      () => this.#ranges(),
      () => this.#simple('flush', VIRTIO_BLK_T_FLUSH, []),
      () => this.#simple('get id', VIRTIO_BLK_T_GET_ID, [this.#pick([20, 20, 7, 1, 64])]),
      () => this.#simple('unknown type', this.#pick([3, 5, 9, 10, 14, 0x7fff_ffff]), [512]),
    ];
    return this.#pick(kinds)();
  }

  /** A read or a write inside of a lane of sectors. */
  #transfer(first: number, lane: number): NamedRequest {
    const most = Math.min(lane, MAX_DATA / SECTOR);
    const sectors = 1 + this.#below(most);
    const sector = first + this.#below(lane - sectors + 1);
    return this.#readOrWrite(sector, sectors * SECTOR);
  }

  #readOrWrite(sector: number, bytes: number): NamedRequest {
    if (this.#chance(0.5)) {
      const out = this.#cutHeader(this.#header(VIRTIO_BLK_T_IN, sector), new Uint8Array(0));
      return { name: 'read', queue: 0, out, inn: this.#withStatus(this.#cut(bytes)) };
    }
    const data = new Uint8Array(bytes);
    for (let i = 0; i < bytes; i += 1) data[i] = this.#rng.nextU32();
    const out = this.#cutHeader(this.#header(VIRTIO_BLK_T_OUT, sector), data);
    return { name: 'write', queue: 0, out, inn: [1] };
  }

  /** Past the end, half sectors, no data, a header that is too short, nothing to write into. */
  #odd(): NamedRequest {
    const outside = [SECTORS, SECTORS - 1, 2 ** 31, 2 ** 53];
    const kinds: (() => NamedRequest)[] = [
      () => ({ ...this.#readOrWrite(this.#pick(outside), 1024), name: 'past the end' }),
      () => ({ ...this.#readOrWrite(this.#below(8), 512 + this.#below(511) + 1), name: 'askew' }),
      () => this.#simple('read of nothing', VIRTIO_BLK_T_IN, []),
      () => this.#simple('write of nothing', VIRTIO_BLK_T_OUT, []),
      () => ({
        name: 'short header',
        queue: 0,
        out: [this.#header(VIRTIO_BLK_T_IN, 0).subarray(0, 1 + this.#below(15))],
        inn: [512, 1],
      }),
      () => ({ name: 'no status', queue: 0, out: [this.#header(VIRTIO_BLK_T_OUT, 0)], inn: [] }),
      () => ({ name: 'no header', queue: 0, out: [], inn: [512, 1] }),
    ];
    // The last three break it.
    return this.#pick(this.#canBreak ? kinds : kinds.slice(0, -3))();
  }

  /** Discard and write-zeroes, with ranges that are good and bad. */
  #ranges(): NamedRequest {
    const isDiscard = this.#chance(0.5);
    const type = isDiscard ? VIRTIO_BLK_T_DISCARD : VIRTIO_BLK_T_WRITE_ZEROES;
    const sectors = this.#pick([1, 8, 64, 0, SECTORS, 2 ** 22, 2 ** 31]);
    const first = this.#pick([0, this.#below(SECTORS), SECTORS, 2 ** 40]);
    const flags = this.#pick([0, 0, 0, 1, 2, 3]);
    const range = new Uint8Array(16);
    const view = new DataView(range.buffer);
    const isLittleEndian = this.#shape.isLegacy !== true;
    view.setBigUint64(0, BigInt(first), isLittleEndian);
    view.setUint32(8, sectors, isLittleEndian);
    view.setUint32(12, flags, isLittleEndian);
    const length = this.#pick([16, 16, 16, 16, 32, 15, 4]);
    const data = new Uint8Array(length);
    data.set(range.subarray(0, Math.min(16, length)));
    if (length === 32) data.set(range, 16);
    const out = [this.#header(type, 0), data];
    return { name: isDiscard ? 'discard' : 'write zeroes', queue: 0, out, inn: [1] };
  }

  #simple(name: string, type: number, inn: readonly number[]): NamedRequest {
    return { name, queue: 0, out: [this.#header(type, 0)], inn: [...inn, 1] };
  }

  #entropy(): NamedRequest {
    const pieces = Array.from({ length: 1 + this.#below(4) }, () => 1 + this.#below(600));
    return { name: 'entropy', queue: 0, out: [], inn: pieces };
  }

  /** Now and then a mapping goes wrong: where there is one. */
  #spoil(request: NamedRequest): NamedRequest {
    const { iommuPlatform, bridge } = this.#shape;
    if (!iommuPlatform || !this.#chance(0.25)) return request;
    // More than a page without memory is an error: QEMU's bounce buffer has one.
    const lengths = [...request.out.map(({ length }) => length), ...request.inn];
    const pieces = lengths.flatMap((length, i) => (this.#canBreak || length <= PAGE ? [i] : []));
    if (pieces.length === 0) return request;
    const count = this.#canBreak && this.#chance(0.2) ? 2 : 1;
    const faults: Fault[] = [];
    for (let n = 0; n < count; n += 1) {
      // The direct window has no entries of one page: only the address can be wrong there.
      const how =
        bridge === 0 ? 'physical' : this.#pick(['unmapped', 'read-only', 'physical'] as const);
      faults.push({ piece: this.#pick(pieces), how });
    }
    return { ...request, name: `${request.name}, spoilt`, faults };
  }

  #withStatus(pieces: number[]): number[] {
    const last = pieces.at(-1) ?? 0;
    // The status byte may share the last piece.
    return this.#chance(0.2) ? [...pieces.slice(0, -1), last + 1] : [...pieces, 1];
  }

  /** Header and data: apart, in one piece, or the header itself in two. */
  #cutHeader(head: Uint8Array, data: Uint8Array): Uint8Array[] {
    const pieces = this.#cut(data.length);
    const parts: Uint8Array[] = [];
    let at = 0;
    for (const length of pieces) {
      parts.push(data.subarray(at, at + length));
      at += length;
    }
    const [first = new Uint8Array(0), ...rest] = parts;
    if (this.#chance(0.1)) {
      const joined = new Uint8Array(head.length + first.length);
      joined.set(head);
      joined.set(first, head.length);
      return [joined, ...rest];
    }
    if (this.#chance(0.1)) return [head.subarray(0, 8), head.subarray(8), ...parts];
    return [head, ...parts];
  }

  /** A length as one piece, or several of any size. */
  #cut(bytes: number): number[] {
    const pieces: number[] = [];
    let left = bytes;
    while (left > 0 && pieces.length < 6 && this.#chance(0.5)) {
      const piece = 1 + this.#below(left);
      pieces.push(piece);
      left -= piece;
    }
    return left > 0 ? [...pieces, left] : pieces;
  }

  // A legacy device takes the guest's byte order.
  #header(type: number, sector: number): Uint8Array {
    const bytes = new Uint8Array(VIRTIO_BLK_HEADER_SIZE);
    const view = new DataView(bytes.buffer);
    const isLittleEndian = this.#shape.isLegacy !== true;
    view.setUint32(0, type, isLittleEndian);
    view.setBigUint64(8, BigInt(sector), isLittleEndian);
    return bytes;
  }

  #below(n: number): number {
    return this.#rng.below(n);
  }

  #chance(p: number): boolean {
    return this.#rng.nextU32() < p * 2 ** 32;
  }

  #pick<T>(from: readonly T[]): T {
    return from[this.#below(from.length)] as T;
  }
}
