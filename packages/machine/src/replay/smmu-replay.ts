/** QEMU's emulated SMMUv3: which translations it caches, and what the guest invalidates. */
import type { TraceEvent } from '@pinhole/base';
import { IommuReplay } from './iommu-replay.js';
import type { Compared } from './mismatch-log.js';

interface Cached {
  readonly asid: number;
  /** Where it begins, on the bus and in memory. */
  readonly iova: bigint;
  readonly base: bigint;
  readonly bytes: bigint;
  readonly perm: bigint;
}

interface Lookup {
  readonly line: number;
  readonly asid: number;
  readonly addr: bigint;
  readonly cached: Cached | undefined;
  /** Its level, if it was read just now. */
  inserted: number | undefined;
}

/** Of one address space: lookups that the cache served, and others. */
interface Counts {
  hits: number;
  misses: number;
}

/** Entries of the IOTLB; when it is full, all go. [qemu hw/arm/smmu-common.c smmu_iotlb_insert] */
const IOTLB_SIZE = 256;
const PAGE = 4096n;
/** The granule of 4 KiB. [qemu hw/arm/smmu-common.c smmu_iotlb_inv_iova: tg * 2 + 10] */
const TG_4K = 1;
/** Bytes that an entry of each level is for: of the last one pages, of those above it blocks. */
const LEVEL_BYTES: Readonly<Record<number, bigint>> = { 1: 2n ** 30n, 2: 2n ** 21n, 3: PAGE };
const MAX_SPACES = 65_536;

/** What must come next, before anything else of the SMMU's. */
const CONSEQUENCES: Readonly<Record<string, string>> = {
  smmuv3_cmdq_tlbi_nh: 'smmu_iotlb_inv_all',
  smmuv3_cmdq_tlbi_nh_asid: 'smmu_iotlb_inv_asid',
};

/**
 * Predicts which accesses the IOTLB serves, and checks each translation and each invalidation of a
 * QEMU log. [qemu hw/arm/smmu-common.c smmu_iotlb_lookup, smmu_iotlb_insert, smmu_iotlb_inv_iova]
 */
export class SmmuReplay extends IommuReplay {
  /** By address space, level and address. */
  readonly #iotlb = new Map<string, Cached>();
  readonly #asids = new Set<number>();
  readonly #counts = new Map<number, Counts>();
  /** By stream: its address space, and the name of its region. */
  readonly #spaces = new Map<number, { readonly asid: number; readonly mr: string }>();
  #lookup: Lookup | undefined;
  /** A command of which the consequence is to come. */
  #command: { readonly name: string; readonly asid: unknown; readonly line: number } | undefined;
  /** Of range invalidations, what the guest's first one asked for besides. */
  #flags: { readonly vmid: unknown; readonly leaf: unknown } | undefined;

  event({ name, args }: TraceEvent, line: number): void {
    if (!name.startsWith('smmu')) return;
    if (this.#command !== undefined && name !== CONSEQUENCES[this.#command.name]) this.#settle();
    if (name === 'smmu_iotlb_lookup_hit') this.#look(name, args, line, true);
    else if (name === 'smmu_iotlb_lookup_miss') this.#look(name, args, line, false);
    else if (name === 'smmu_iotlb_insert') this.#insert(args, line);
    else if (name === 'smmuv3_translate_success') this.#translate(args, line);
    else if (name === 'smmuv3_record_event' || name === 'smmuv3_translate_abort') {
      this.#deny(args, line);
    } else if (name === 'smmu_iotlb_inv_all') this.#forgetAll(line);
    else if (name === 'smmu_iotlb_inv_asid') this.#forgetSpace(args, line);
    else if (name === 'smmuv3_s1_range_inval') this.#forgetRange(args, line);
    else if (name.startsWith('smmuv3_cmdq_')) this.#take(name, args, line);
  }

  end(): void {
    this.#settle();
    this.#endLookup();
  }

  #look(name: string, args: TraceEvent['args'], line: number, isHit: boolean): void {
    this.#endLookup();
    const [asid, addr] = [Number(args.asid), args.addr as bigint];
    const cached = this.#find(asid, addr);
    const counts = this.#counts.get(asid) ?? { hits: 0, misses: 0 };
    if (this.#counts.size < MAX_SPACES) this.#counts.set(asid, counts);
    this.#know(asid);
    if (isHit) counts.hits += 1;
    else counts.misses += 1;
    const { hits, misses } = counts;
    this.translationMismatches.compare(line, name, [
      ['event', isHit ? 'hit' : 'miss', cached === undefined ? 'miss' : 'hit'],
      ['addr', addr % PAGE, 0n],
      ['hit', Number(args.hit), hits],
      ['miss', Number(args.miss), misses],
      ['hit rate', Number(args.rate), Math.floor((100 * hits) / (hits + misses))],
    ]);
    // A log may begin later than the SMMU did.
    counts.hits = Number(args.hit);
    counts.misses = Number(args.miss);
    this.#lookup = { line, asid, addr, cached, inserted: undefined };
  }

  #insert(args: TraceEvent['args'], line: number): void {
    const lookup = this.#lookup;
    const level = Number(args.level);
    const bytes = LEVEL_BYTES[level];
    const model = lookup?.cached === undefined ? lookup : undefined;
    this.translationMismatches.compare(line, 'smmu_iotlb_insert', [
      ['asid', Number(args.asid), model?.asid],
      ['level', level, bytes === undefined ? undefined : level],
      ['tg', Number(args.tg), TG_4K],
      ['addr', args.addr, model === undefined ? undefined : model.addr & -(bytes ?? PAGE)],
      ['entries', this.#iotlb.size < IOTLB_SIZE ? 'room' : 'full', 'room'],
    ]);
    if (lookup !== undefined) lookup.inserted = level;
  }

  // Of every access that is allowed, the translation comes next.
  #translate(args: TraceEvent['args'], line: number): void {
    this.translations += 1;
    const lookup = this.#lookup;
    this.#lookup = undefined;
    const name = 'smmuv3_translate_success';
    const [sid, mr, perm] = [Number(args.sid), String(args.mr), BigInt(args.perm as number)];
    const [iova, translated] = [args.iova as bigint, args.translated as bigint];
    const entry = (translated & -PAGE) | perm;
    const space = this.#spaces.get(sid) ?? { asid: lookup?.asid ?? 0, mr };
    if (this.#spaces.size < MAX_SPACES) this.#spaces.set(sid, space);
    const rows: Compared[] = [
      ['iova', iova & -PAGE, lookup?.addr],
      ['asid', lookup?.asid, space.asid],
      ['mr', mr, space.mr],
      ['mr', mr.includes(`-${sid & 0xff}-`), true],
      ['translated', translated % PAGE, iova % PAGE],
      ['event', (lookup?.cached ?? lookup?.inserted) === undefined ? 'none' : name, name],
    ];
    const { inserted, asid, cached } = lookup ?? {};
    if (cached !== undefined) {
      const { base, perm: allowed } = cached;
      rows.push(['translated', translated, base + iova - cached.iova], ['perm', perm, allowed]);
    }
    this.translationMismatches.compare(line, name, rows);
    const bytes = LEVEL_BYTES[inserted ?? 0];
    if (inserted !== undefined && asid !== undefined && bytes !== undefined) {
      const offset = iova % bytes;
      this.#iotlb.set(key(asid, inserted, iova), {
        asid,
        iova: iova - offset,
        base: translated - offset,
        bytes,
        perm,
      });
    }
    this.listener.accessed?.({ line, sid, iova, entry, isHit: cached !== undefined });
  }

  #deny(args: TraceEvent['args'], line: number): void {
    const iova = (args.iova as bigint | undefined) ?? this.#lookup?.addr ?? 0n;
    this.#lookup = undefined;
    this.listener.denied?.(Number(args.sid), iova, line);
  }

  // An access that was looked up, and neither translated nor denied.
  #endLookup(): void {
    const lookup = this.#lookup;
    if (lookup === undefined) return;
    this.#lookup = undefined;
    this.translationMismatches.compare(lookup.line, 'smmuv3_translate_success', [
      ['event', 'missing', 'the translation'],
    ]);
  }

  #find(asid: number, addr: bigint): Cached | undefined {
    for (const level of Object.keys(LEVEL_BYTES)) {
      const cached = this.#iotlb.get(key(asid, Number(level), addr));
      if (cached !== undefined) return cached;
    }
    return undefined;
  }

  #know(asid: number): void {
    if (this.#asids.size < MAX_SPACES) this.#asids.add(asid);
  }

  // All go when the guest says so, and when there is no room for one more.
  #forgetAll(line: number): void {
    const isAsked = this.#command !== undefined;
    this.#command = undefined;
    if (!isAsked) {
      const isFull = this.#iotlb.size >= IOTLB_SIZE && this.#lookup !== undefined;
      this.translationMismatches.compare(line, 'smmu_iotlb_inv_all', [
        ['entries', isFull ? 'full' : this.#iotlb.size, 'full'],
      ]);
    } else this.listener.flushed?.(line);
    this.#iotlb.clear();
  }

  #forgetSpace({ asid }: TraceEvent['args'], line: number): void {
    const command = this.#command;
    this.#command = undefined;
    this.invalidationMismatches.compare(line, 'smmu_iotlb_inv_asid', [
      ['asid', Number(asid), command?.asid === undefined ? undefined : Number(command.asid)],
    ]);
    for (const [name, cached] of this.#iotlb) {
      if (cached.asid === asid) this.#iotlb.delete(name);
    }
    this.listener.flushed?.(line);
  }

  #forgetRange(args: TraceEvent['args'], line: number): void {
    this.#endLookup();
    this.invalidations += 1;
    const { vmid, leaf } = args;
    this.#flags ??= { vmid, leaf };
    const [asid, iova, count] = [Number(args.asid), args.addr as bigint, args.num_pages as bigint];
    const [tg, ttl] = [Number(args.tg), Number(args.ttl)];
    this.invalidationMismatches.compare(line, 'smmuv3_s1_range_inval', [
      ['vmid', Number(vmid), Number(this.#flags.vmid)],
      ['leaf', Number(leaf), Number(this.#flags.leaf)],
      ['asid', asid, this.#asids.has(asid) ? asid : undefined],
      ['tg', tg, TG_4K],
      ['ttl', ttl, ttl === 0 || iova % (LEVEL_BYTES[ttl] ?? iova + 1n) === 0n ? ttl : undefined],
      // QEMU cuts a range into aligned powers of two.
      ['num_pages', count, count & -count],
      ['addr', count === 0n ? 0n : iova % (count * PAGE), 0n],
    ]);
    const size = count * PAGE;
    for (const [name, cached] of this.#iotlb) {
      if (cached.asid !== asid) continue;
      if (cached.iova < iova + size && iova < cached.iova + cached.bytes) this.#iotlb.delete(name);
    }
    this.listener.told?.({ kind: 'unmap', line, iova, size, gpa: undefined });
  }

  #take(name: string, args: TraceEvent['args'], line: number): void {
    this.#endLookup();
    this.invalidations += 1;
    if (CONSEQUENCES[name] !== undefined) {
      this.#command = { name, asid: args.asid, line };
      if (args.asid !== undefined) this.#know(Number(args.asid));
      return;
    }
    // What was counted for a stream begins anew with its configuration.
    const { start, end } = args;
    const sid = Number(args.sid ?? args.streamid);
    for (const [stream, { asid }] of this.#spaces) {
      const isMeant =
        start === undefined ? stream === sid : stream >= Number(start) && stream <= Number(end);
      if (!isMeant) continue;
      this.#counts.delete(asid);
      this.#spaces.delete(stream);
    }
  }

  #settle(): void {
    const command = this.#command;
    if (command === undefined) return;
    this.#command = undefined;
    this.invalidationMismatches.compare(command.line, command.name, [
      ['event', 'missing', CONSEQUENCES[command.name]],
    ]);
  }
}

function key(asid: number, level: number, iova: bigint): string {
  return `${asid} ${level} ${iova / (LEVEL_BYTES[level] ?? PAGE)}`;
}
