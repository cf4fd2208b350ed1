/** QEMU's emulated VT-d: which translations it caches, and what the guest invalidates. */
import type { TraceEvent } from '@pinhole/base';
import { IommuReplay } from './iommu-replay.js';

interface Cached {
  readonly entry: bigint;
  readonly domain: number;
}

interface Pending extends Cached {
  readonly line: number;
  readonly sid: number;
  readonly iova: bigint;
  readonly isHit: boolean;
}

interface Descriptor {
  readonly type: string;
  readonly hi: bigint;
  readonly lo: bigint;
  readonly line: number;
}

/** Entries of the IOTLB; when it is full, all go. [qemu v7.2 hw/i386/intel_iommu_internal.h VTD_IOTLB_MAX_SIZE] */
const IOTLB_SIZE = 1024;
/** Bits 12 to 51: the page. [Intel VT-d §9.8 "Second-Stage Paging Entries"] */
const ADDRESS = 0x000f_ffff_ffff_f000n;
/** The pages that one entry can be for. */
const PAGE_SHIFTS = [12n, 21n, 30n];
/** Statuses of the invalidation queue: one word for each of its entries. [linux v6.12 drivers/iommu/intel/iommu.h QI_LENGTH] */
const QUEUE_BYTES = 1024n;

const DETAIL: Readonly<Record<string, string>> = {
  vtd_inv_desc_cc_global: 'context-cache',
  vtd_inv_desc_iotlb_global: 'iotlb',
  vtd_inv_desc_iotlb_domain: 'iotlb',
  vtd_inv_desc_iotlb_pages: 'iotlb',
  vtd_inv_desc_iec: 'iec',
  vtd_inv_desc_wait_sw: 'wait',
};

/**
 * Predicts which accesses the IOTLB serves, and checks each translation and each invalidation of a
 * QEMU log. [qemu v7.2 hw/i386/intel_iommu.c vtd_lookup_iotlb, vtd_update_iotlb, vtd_process_inv_desc]
 */
export class VtdReplay extends IommuReplay {
  /** By requester, page size and page. */
  readonly #iotlb = new Map<string, Cached>();
  #pending: Pending | undefined;
  #descriptor: Descriptor | undefined;
  /** Descriptors since the last wait, and where the next wait's status goes. */
  #queued = 0n;
  #status: bigint | undefined;
  /** By requester, until the guest changes that. */
  readonly #domains = new Map<number, number>();
  /** Of each type of descriptor, what the guest's first one asked for besides. */
  readonly #flags = new Map<string, bigint>();

  /** Takes the next event of the log; others are passed over. */
  event({ name, args }: TraceEvent, line: number): void {
    if (!name.startsWith('vtd_')) return;
    if (name === 'vtd_iotlb_page_hit') this.#look(args, line, true);
    else if (name === 'vtd_iotlb_page_update') this.#look(args, line, false);
    else if (name === 'vtd_dmar_translate') this.#translate(args, line);
    else if (name === 'vtd_dmar_fault') this.#fault(args, line);
    else if (name === 'vtd_inv_desc') this.#queue(args, line);
    else if (DETAIL[name] !== undefined) this.#invalidate(name, args, line);
  }

  /** Says that the log is over. */
  end(): void {
    this.#settle();
    this.#settleDescriptor();
  }

  #look(args: TraceEvent['args'], line: number, isHit: boolean): void {
    this.#settle();
    const [sid, domain] = [Number(args.sid), Number(args.domain)];
    const [iova, entry] = [args.iova as bigint, args.slpte as bigint];
    const cached = this.#find(sid, iova);
    const name = `vtd_iotlb_page_${isHit ? 'hit' : 'update'}`;
    if (isHit) {
      this.translationMismatches.compare(line, name, [
        ['slpte', entry, cached?.entry],
        ['domain', domain, cached?.domain],
      ]);
    } else if (cached !== undefined) {
      this.translationMismatches.compare(line, name, [['event', 'update', 'hit']]);
    }
    const known = this.#domains.get(sid) ?? domain;
    this.translationMismatches.compare(line, name, [['domain', domain, known]]);
    if (this.#domains.size < MAX_REQUESTERS) this.#domains.set(sid, known);
    this.#pending = { line, sid, iova, entry, domain, isHit };
    this.listener.accessed?.({ line, sid, iova, entry, isHit });
  }

  // Of every access, the translation comes next.
  #translate(args: TraceEvent['args'], line: number): void {
    this.translations += 1;
    const pending = this.#pending;
    this.#pending = undefined;
    const mask = args.mask as bigint;
    const isPage = PAGE_SHIFTS.some((shift) => mask === (1n << shift) - 1n);
    if (pending === undefined) {
      this.translationMismatches.compare(line, 'vtd_dmar_translate', [
        ['iova', args.iova, undefined],
      ]);
      return;
    }
    const { sid, iova, entry, domain, isHit } = pending;
    const isRight = this.translationMismatches.compare(line, 'vtd_dmar_translate', [
      ['dev', args.dev, nameOf(sid)],
      ['mask', mask, isPage ? mask : 0xfffn],
      ['iova', args.iova, iova & ~mask],
      ['gpa', args.gpa, entry & ADDRESS & ~mask],
    ]);
    if (isHit) return;
    if (this.#iotlb.size >= IOTLB_SIZE) this.#iotlb.clear();
    const shift = isRight ? BigInt(mask.toString(2).length) : 12n;
    this.#iotlb.set(key(sid, shift, iova), { entry, domain });
  }

  #fault(args: TraceEvent['args'], line: number): void {
    this.#pending = undefined;
    this.listener.denied?.(Number(args.sid), args.addr as bigint, line);
  }

  // An access that was looked up, and neither translated nor denied.
  #settle(): void {
    const pending = this.#pending;
    if (pending === undefined) return;
    this.#pending = undefined;
    this.translationMismatches.compare(pending.line, 'vtd_dmar_translate', [
      ['event', 'missing', 'the translation'],
    ]);
  }

  #find(sid: number, iova: bigint): Cached | undefined {
    for (const shift of PAGE_SHIFTS) {
      const cached = this.#iotlb.get(key(sid, shift, iova));
      if (cached !== undefined) return cached;
    }
    return undefined;
  }

  #queue(args: TraceEvent['args'], line: number): void {
    this.#settle();
    this.#settleDescriptor();
    this.invalidations += 1;
    const [hi, lo] = [args.hi as bigint, args.lo as bigint];
    this.#descriptor = { type: String(args.type), hi, lo, line };
  }

  // QEMU logs what it made of a descriptor.
  #invalidate(name: string, args: TraceEvent['args'], line: number): void {
    const descriptor = this.#descriptor;
    this.#descriptor = undefined;
    if (descriptor !== undefined) {
      this.invalidationMismatches.compare(line, name, [
        ['type', descriptor.type, DETAIL[name]],
        ['event', name, nameOfDetail(descriptor)],
        ['type', descriptor.lo & 0xfn, TYPES[descriptor.type]],
        ['flags', ...this.#flagsOf(descriptor)],
        ['reserved', descriptor.lo & (RESERVED[descriptor.type] ?? 0n), 0n],
        ['high', highBits(descriptor, name), 0n],
        ...detailsOf(descriptor, args),
      ]);
    }
    if (name === 'vtd_inv_desc_wait_sw') this.#wait(args, line);
    else this.#queued += 1n;
    if (name === 'vtd_inv_desc_cc_global') this.#domains.clear();
    if (name === 'vtd_inv_desc_iotlb_global') this.#flush(() => true, line);
    else if (name === 'vtd_inv_desc_iotlb_domain') {
      this.#flush(({ domain }) => domain === args.domain, line);
    } else if (name === 'vtd_inv_desc_iotlb_pages') this.#flushPages(args);
    // A kernel begins with the interrupts' entries, all of them.
    else if (name === 'vtd_inv_desc_iec' && args.granularity === 0) {
      this.#status = undefined;
      this.#flags.clear();
    }
  }

  // Drains, fences and interrupts: a kernel asks for the same ones each time.
  #flagsOf({ type, lo }: Descriptor): [flags: bigint, known: bigint] {
    const flags = lo & (FLAGS[type] ?? 0n);
    const known = this.#flags.get(type) ?? flags;
    this.#flags.set(type, known);
    return [flags, known];
  }

  // Linux gives each entry of its queue a word of its own. [linux v6.12 drivers/iommu/intel/dmar.c qi_submit_sync]
  #wait(args: TraceEvent['args'], line: number): void {
    const address = args.addr as bigint;
    const last = this.#status;
    if (last !== undefined) {
      const base = last & ~(QUEUE_BYTES - 1n);
      const next = base + ((last - base + (this.#queued + 1n) * 4n) % QUEUE_BYTES);
      const name = 'vtd_inv_desc_wait_sw';
      this.invalidationMismatches.compare(line, name, [['addr', address, next]]);
      this.#status = next;
    } else this.#status = address;
    this.#queued = 0n;
  }

  #settleDescriptor(): void {
    const descriptor = this.#descriptor;
    if (descriptor === undefined) return;
    this.#descriptor = undefined;
    const name = nameOfDetail(descriptor);
    // Kinds that are not in the catalogue.
    if (name === undefined) return;
    this.invalidationMismatches.compare(descriptor.line, name, [['event', 'missing', name]]);
  }

  #flush(isGone: (cached: Cached) => boolean, line: number): void {
    for (const [name, cached] of this.#iotlb) if (isGone(cached)) this.#iotlb.delete(name);
    this.listener.flushed?.(line);
  }

  #flushPages({ domain, addr, mask }: TraceEvent['args']): void {
    const first = (addr as bigint) >> 12n;
    const last = first + (1n << BigInt(Math.min(Number(mask), 52)));
    for (const [name, cached] of this.#iotlb) {
      const [, shift = '12', page = '0'] = name.split(' ');
      const gfn = BigInt(page) << (BigInt(shift) - 12n);
      if (cached.domain === domain && gfn >= first && gfn < last) this.#iotlb.delete(name);
    }
  }
}

function key(sid: number, shift: bigint, iova: bigint): string {
  return `${sid} ${shift} ${iova >> shift}`;
}

/** Bits that must be 0, or QEMU does nothing. [qemu v7.2 hw/i386/intel_iommu_internal.h VTD_INV_DESC_IOTLB_RSVD_LO, VTD_INV_DESC_WAIT_RSVD_LO] */
const RESERVED: Readonly<Record<string, bigint>> = {
  iotlb: 0xffff_ffff_0000_ff00n,
  wait: 0xffff_ff80n,
  iec: 0xffff_0000_07ff_ffe0n,
  'context-cache': 0xffff_fffc_0000_ffc0n,
};

/** Bits 0 to 3 of a descriptor. [Intel VT-d §6.5.2 "Queued Invalidation Interface"] */
const TYPES: Readonly<Record<string, bigint>> = {
  'context-cache': 1n,
  iotlb: 2n,
  iec: 4n,
  wait: 5n,
};
const FLAGS: Readonly<Record<string, bigint>> = { iotlb: 0xc0n, wait: 0x50n };
const MAX_REQUESTERS = 65_536;

/** As QEMU prints a requester: `00:01.00`. */
function nameOf(sid: number): string {
  const hex = (value: number): string => value.toString(16).padStart(2, '0');
  return `${hex(sid >> 8)}:${hex((sid >> 3) & 31)}.${hex(sid & 7)}`;
}

// Bits 4 and 5: the granularity. [Intel VT-d §6.5.2 "Queued Invalidation Interface"]
function nameOfDetail({ type, lo }: Descriptor): string | undefined {
  const granularity = (lo >> 4n) & 3n;
  if (type === 'iec') return 'vtd_inv_desc_iec';
  if (type === 'wait') return (lo & 0x20n) === 0n ? undefined : 'vtd_inv_desc_wait_sw';
  if (type === 'context-cache') return granularity === 1n ? 'vtd_inv_desc_cc_global' : undefined;
  if (type !== 'iotlb') return undefined;
  const kinds = ['global', 'domain', 'pages'];
  const kind = kinds[Number(granularity) - 1];
  return kind === undefined ? undefined : `vtd_inv_desc_iotlb_${kind}`;
}

// Of the upper half, only an address range or a status address means something.
function highBits({ hi }: Descriptor, name: string): bigint {
  if (name === 'vtd_inv_desc_wait_sw') return hi & 3n;
  return name === 'vtd_inv_desc_iotlb_pages' ? hi & 0xf80n : hi;
}

function detailsOf(
  { type, hi, lo }: Descriptor,
  args: TraceEvent['args'],
): [string, TraceEvent['args'][string] | undefined, bigint | number][] {
  if (type === 'wait') {
    return [
      ['addr', args.addr, hi & ~3n],
      ['data', args.data, Number(lo >> 32n)],
    ];
  }
  if (type === 'iec') {
    return [
      ['granularity', args.granularity, Number((lo >> 4n) & 1n)],
      ['index', args.index, Number((lo >> 32n) & 0xffffn)],
      ['mask', args.mask, Number((lo >> 27n) & 0x1fn)],
    ];
  }
  if (type !== 'iotlb' || args.domain === undefined) return [];
  const domain = Number((lo >> 16n) & 0xffffn);
  if (args.addr === undefined) return [['domain', args.domain, domain]];
  return [
    ['domain', args.domain, domain],
    ['addr', args.addr, hi & ~0xfffn],
    ['mask', args.mask, Number(hi & 0x3fn)],
  ];
}
