import type { Rng } from '@pinhole/base';
import {
  H_GET_TCE,
  H_PUT_TCE,
  H_PUT_TCE_INDIRECT,
  H_STUFF_TCE,
  RTAS_TOKENS,
  type SpaprMachine,
} from '@pinhole/hcall';
import type { SpaprPhb, TceTable } from '@pinhole/tce';
import { isLeftOut } from './accidents.js';
import { type HcallOp, MEMORY_SIZE, OBSERVED_TOP, type Op, type RtasOp } from './ops.js';
import { LIST_PAGES, LISTS, SCRATCH } from './sides.js';

const U64 = 2n ** 64n - 1n;
const NO_CELL = 0xffff_ffff;

/** Entries of a window that are looked at, of those that are not zero. */
const LOOKS = 100;
/** Windows of so many entries are looked at as a whole. */
const SMALL = 256;

/**
 * Opcodes that no QEMU implements: below the table's end, between its entries, beyond it, and
 * 64-bit values whose low half is a call.
 */
const UNKNOWN_OPCODES = [
  0n,
  0x10n,
  0x14n,
  0x30n,
  0x34n,
  0x38n,
  0x5cn,
  0x60n,
  0x78n,
  0x7cn,
  0x1n,
  0x1dn,
  0x21n,
  0x22n,
  0x23n,
  0x139n,
  0x13dn,
  0x1_0000n,
  0xffff_fffcn,
  0x1_0000_0020n,
  0x1_0000_001cn,
  2n ** 63n,
  U64 - 3n,
];

/** RTAS tokens that no QEMU implements. 0xa is not among them: QEMU takes it for a call of old. */
const UNKNOWN_TOKENS = [0, 1, 0x1fff, 0x2100, 0xffff_ffff, 0x8000_2026];

/**
 * Makes operations up, each from what the windows are now: at their borders, across them, and
 * nowhere near. Determined by the generator of numbers and the model's state.
 */
export class OpGenerator {
  readonly #rng: Rng;
  readonly #machine: SpaprMachine;
  readonly #included: readonly string[];
  readonly #tables: readonly TceTable[];

  constructor(rng: Rng, machine: SpaprMachine, included: readonly string[]) {
    this.#rng = rng;
    this.#machine = machine;
    this.#included = included;
    this.#tables = [
      ...machine.iommu.phbs.flatMap(({ tables }) => tables),
      ...machine.iommu.vio.flatMap(({ table }) => (table === undefined ? [] : [table])),
    ];
  }

  /** The next operation. */
  next(): Op {
    // What makes QEMU rebuild its address spaces takes it half a millisecond, a reset many.
    const kind = this.#rng.below(100_000);
    if (kind < 1) return { kind: 'reset' };
    if (kind < 400) return this.#write();
    for (;;) {
      const op = kind < 1600 ? this.#rtas() : this.#hcall();
      if (!isLeftOut(op, this.#included)) return op;
    }
  }

  /**
   * H_GET_TCE of small windows as a whole; of larger ones what is not zero, some of it, and entries
   * anywhere. Then lists and the like.
   */
  *checkpoint(): Generator<Op> {
    for (const table of this.#tables) {
      if (!table.isEnabled) continue;
      if (table.nbTable <= SMALL) {
        for (let index = 0; index < table.nbTable; index += 1) yield this.#get(table, index);
        continue;
      }
      const indices: number[] = [];
      const from = this.#one(2) ? 0 : this.#rng.below(table.nbTable);
      table.forEachEntry((index) => indices.push(index) < LOOKS * 4, from);
      for (let i = 0; i < LOOKS && i < indices.length; i += 1) {
        yield this.#get(table, this.#pick(indices));
      }
      for (let i = 0; i < LOOKS / 2; i += 1) yield this.#get(table, this.#index(table));
    }
    yield { kind: 'read', gpa: LISTS, length: LIST_PAGES * 4096 };
    yield { kind: 'read', gpa: SCRATCH, length: 4096 };
    yield { kind: 'read', gpa: MEMORY_SIZE - OBSERVED_TOP, length: OBSERVED_TOP };
  }

  #get(table: TceTable, index: number): HcallOp {
    const ioba = table.busOffset + (BigInt(index) << BigInt(table.pageShift));
    const args = [BigInt(table.liobn), BigInt.asUintN(64, ioba)];
    return { kind: 'hcall', opcode: BigInt(H_GET_TCE), args };
  }

  #hcall(): HcallOp {
    let table = this.#pick(this.#tables);
    // Closed windows answer all alike: not too often.
    if (!table.isEnabled && !this.#one(6)) table = this.#pick(this.#tables);
    const liobn = this.#liobn(table);
    const ioba = this.#ioba(table);
    const call = this.#rng.below(100);
    const of = (opcode: number, ...args: bigint[]): HcallOp => ({
      kind: 'hcall',
      opcode: BigInt(opcode),
      args: args.map((arg) => BigInt.asUintN(64, arg)),
    });
    if (call < 36) return of(H_PUT_TCE, liobn, ioba, this.#tce());
    if (call < 56) return of(H_GET_TCE, liobn, ioba);
    if (call < 76) return of(H_STUFF_TCE, liobn, ioba, this.#tce(), this.#npages(table));
    if (call < 96) return of(H_PUT_TCE_INDIRECT, liobn, ioba, this.#list(), this.#npages(table));
    const args = [liobn, ioba, this.#tce(), this.#npages(table)];
    return { kind: 'hcall', opcode: this.#pick(UNKNOWN_OPCODES), args: args.map((a) => a & U64) };
  }

  #rtas(): RtasOp {
    const phb = this.#pick(this.#machine.iommu.phbs);
    const buid = this.#buid(phb);
    const address = this.#one(4) ? this.#rng.nextU32() : 0;
    const call = this.#rng.below(100);
    const of = (token: number, args: number[], nret: number): RtasOp =>
      this.#bend({ kind: 'rtas', token, nargs: args.length, nret, args });
    if (call < 22) {
      const nret = this.#pick([5, 6]);
      return of(RTAS_TOKENS['ibm,query-pe-dma-window'], [address, ...buid], nret);
    }
    if (call < 55) {
      const shifts = this.#shifts(phb);
      return of(RTAS_TOKENS['ibm,create-pe-dma-window'], [address, ...buid, ...shifts], 4);
    }
    if (call < 80) {
      const liobn = Number(this.#liobn(this.#pick(this.#tables)) & 0xffff_ffffn);
      return of(RTAS_TOKENS['ibm,remove-pe-dma-window'], [liobn], 1);
    }
    if (call < 85) return of(RTAS_TOKENS['ibm,reset-pe-dma-window'], [address, ...buid], 1);
    if (call < 95) {
      const units = [0x2000, 0x3000, 0x7100_0000, 0, 0x2001, this.#rng.nextU32()];
      const enable = this.#pick([0, 1, 2, NO_CELL]);
      return of(RTAS_TOKENS['ibm,set-tce-bypass'], [this.#pick(units), enable], 1);
    }
    return of(this.#pick(UNKNOWN_TOKENS), [address, ...buid], this.#rng.below(7));
  }

  // Now and then the counts are wrong, or the buffer lies where it should not.
  #bend(op: RtasOp): RtasOp {
    const bent = this.#rng.below(40);
    if (bent === 0) return { ...op, nret: this.#pick([0, 1, 4, 5, 6, 7, NO_CELL]) };
    // So many arguments that the answers' place wraps in 32 bits, or lies beyond memory.
    const wrapped = [0x4000_0000 + op.nargs, 0x3000_0000, NO_CELL - 3];
    if (bent === 1) {
      return { ...op, nargs: this.#pick([0, 1, 2, 3, 4, 5, 6, ...wrapped]), at: BigInt(SCRATCH) };
    }
    if (bent > 3) return op;
    const end = BigInt(MEMORY_SIZE);
    const places = [
      ...[BigInt(SCRATCH) + 1n, BigInt(SCRATCH) + 6n],
      ...[4n, 12n, 16n, 20n, 24n, 28n, 32n, 36n].map((back) => end - back),
      ...[end, end - 14n, 0xf000_0000_0000_0000n + BigInt(SCRATCH), 2n ** 40n, 2n ** 59n],
    ];
    return { ...op, at: this.#pick(places) };
  }

  #write(): Op {
    const bytes = new Uint8Array(4096);
    const view = new DataView(bytes.buffer);
    const style = this.#rng.below(3);
    const start = this.#tce();
    for (let i = 0; i < 512; i += 1) {
      const next = style === 0 ? this.#tce() : start + BigInt(style === 1 ? i * 4096 : 0);
      view.setBigUint64(i * 8, next & U64);
    }
    const end = MEMORY_SIZE;
    const isEnd = this.#one(8);
    const gpa = isEnd ? end - 4096 : LISTS + this.#rng.below(LIST_PAGES) * 4096;
    return { kind: 'write', gpa, bytes };
  }

  #liobn(table: TceTable): bigint {
    const liobn = BigInt(table.liobn);
    if (!this.#one(12)) return liobn;
    const bent = this.#rng.below(6);
    if (bent === 0) return this.#u64();
    if (bent === 1) return liobn | (1n << BigInt(32 + this.#rng.below(32)));
    if (bent === 2) return liobn ^ (1n << BigInt(this.#rng.below(32)));
    if (bent === 3) return BigInt(this.#rng.nextU32());
    if (bent === 4) return 0x7100_0000n;
    return this.#pick([0n, 0x8000_0000n, 0x8000_1f00n, U64]);
  }

  #buid(phb: SpaprPhb): [hi: number, lo: number] {
    const buid = this.#one(15) ? phb.buid ^ (1n << BigInt(this.#rng.below(64))) : phb.buid;
    return [Number(buid >> 32n), Number(buid & 0xffff_ffffn)];
  }

  #shifts(phb: SpaprPhb): [page: number, window: number] {
    const allowed = [12, 16, 21, 24, 25, 26, 27, 28, 34].filter(
      (shift) => (phb.pageSizeMask >> BigInt(shift)) & 1n,
    );
    if (this.#one(12)) {
      const wild = [this.#rng.below(64), 63, 64, 64 + this.#pick(allowed), NO_CELL];
      return [this.#pick(wild), this.#pick([...wild, this.#rng.below(64)])];
    }
    const page = this.#pick(allowed);
    // Tables that QEMU can allocate: 8 bytes an entry, all at once.
    const entries = this.#pick([
      0,
      1,
      2,
      3,
      4,
      8,
      9,
      10,
      12,
      16,
      this.#one(20) ? 22 : 6,
      -1,
      -page,
    ]);
    const huge = this.#one(60) ? this.#pick([32, 40, 51, 64, 64 - page]) : entries;
    return [page, Math.max(0, page + huge)];
  }

  // An entry's number, mostly one at a border.
  #index(table: TceTable): number {
    const { nbTable } = table;
    const near = this.#pick([0, 1, 2, 7, 255, 511, 512, 4095, 4096, nbTable - 1, nbTable - 2]);
    const index = this.#one(2) ? near : this.#rng.below(Math.min(nbTable, 2 ** 31) || 1);
    return Math.min(Math.max(0, index), Math.max(0, nbTable - 1));
  }

  #ioba(table: TceTable): bigint {
    const shift = BigInt(table.pageShift === 0 ? this.#pick([12, 16, 24]) : table.pageShift);
    const page = 1n << shift;
    const at = table.busOffset + (BigInt(this.#index(table)) << shift);
    const size = BigInt(table.nbTable) << shift;
    const place = this.#rng.below(24);
    if (place < 13) return at;
    if (place < 17) return at + this.#pick([1n, 0xfffn, 0x1000n, page - 1n, page >> 1n, 7n]);
    if (place === 17) return table.busOffset + size;
    if (place === 18) return table.busOffset + size - 1n;
    if (place === 19) return table.busOffset - this.#pick([1n, page, 0x1000n]);
    if (place === 20) return this.#pick([0n, 2n ** 59n, 2n ** 32n, U64, U64 - 0xfffn, 2n ** 63n]);
    if (place === 21) return at + (1n << BigInt(this.#rng.below(64)));
    return this.#u64();
  }

  #tce(): bigint {
    const kind = this.#rng.below(8);
    if (kind === 0) return 0n;
    if (kind === 1) return BigInt(this.#rng.below(4));
    if (kind === 2) return this.#u64();
    if (kind === 3) return U64;
    const gpa = BigInt(this.#rng.below(MEMORY_SIZE)) & ~0xfffn;
    return gpa | BigInt(this.#rng.below(4));
  }

  #npages(table: TceTable): bigint {
    const kind = this.#rng.below(32);
    if (kind < 20) return BigInt(this.#rng.below(18));
    if (kind < 24) return this.#pick([0n, 1n, 511n, 512n, 513n]);
    if (kind < 26) return BigInt(this.#rng.below(513));
    if (kind === 26) {
      // A whole window of a million entries takes milliseconds on the real thing.
      const n = BigInt(table.nbTable);
      const isLarge = n > 4096n && !this.#one(60);
      return isLarge ? n + 1n : n + this.#pick([-1n, 0n, 1n]);
    }
    if (kind === 27) return this.#pick([2n ** 31n, 2n ** 32n, 2n ** 32n + 1n, 2n ** 63n, U64]);
    if (kind === 28) return this.#u64();
    return BigInt(this.#rng.below(40));
  }

  #list(): bigint {
    const kind = this.#rng.below(20);
    const list = BigInt(LISTS + this.#rng.below(LIST_PAGES) * 4096);
    if (kind < 15) return list;
    if (kind === 15) return list + this.#pick([1n, 8n, 0x800n, 0xff8n, 0xfffn]);
    const end = BigInt(MEMORY_SIZE);
    if (kind === 16) return end - 4096n;
    if (kind === 17) return end;
    if (kind === 18) return this.#pick([end - 8n, end - 1n, 2n ** 40n, 2n ** 60n, 2n ** 63n]);
    return this.#pick([U64 - 0xfffn, U64, 0xf000_0000_0100_0000n, end + 4096n]);
  }

  #u64(): bigint {
    return (BigInt(this.#rng.nextU32()) << 32n) | BigInt(this.#rng.nextU32());
  }

  #one(outOf: number): boolean {
    return this.#rng.below(outOf) === 0;
  }

  #pick<T>(items: readonly T[]): T {
    return items[this.#rng.below(items.length)] as T;
  }
}
