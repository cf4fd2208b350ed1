/** QEMU's virtio-iommu: the guest's requests, and where they take its devices. */
import type { TraceEvent } from '@pinhole/base';
import { IommuReplay } from './iommu-replay.js';
import type { Compared } from './mismatch-log.js';

interface Mapping {
  readonly start: bigint;
  /** The last byte. */
  readonly end: bigint;
  readonly gpa: bigint;
  /** [virtio v1.2 §5.13.6.5 "MAP request"] VIRTIO_IOMMU_MAP_F_READ is 1, VIRTIO_IOMMU_MAP_F_WRITE 2. */
  readonly flags: number;
}

interface Access {
  readonly line: number;
  readonly sid: number;
  readonly iova: bigint;
  readonly flag: number;
  /** Undefined: it goes past the mappings, or nothing maps it. */
  readonly mapping: Mapping | undefined;
}

const PAGE = 4096n;
/** Bytes that the device writes of most requests. [virtio v1.2 §5.13.6 "Device operations"] */
const TAIL = 4;
/** [virtio v1.2 §5.13.6.7.1 "Property RESV_MEM"] VIRTIO_IOMMU_RESV_MEM_T_MSI is the largest. */
const MAX_SUBTYPE = 1;
/** [qemu hw/virtio/virtio-iommu.c virtio_iommu_translate] IOMMU_RO or IOMMU_WO. */
const MAX_FLAG = 2;
/** Mappings and requesters that are followed at one time. */
const MAX_FOLLOWED = 2 ** 20;
/** Read, write, and MMIO, which is for what is no memory. [virtio v1.2 §5.13.6.5 "MAP request"] */
const MAX_FLAGS = 7;

/**
 * Keeps each domain's mappings, and checks every translation and every unmapping of a QEMU log.
 * [qemu hw/virtio/virtio-iommu.c virtio_iommu_map, virtio_iommu_unmap, virtio_iommu_translate]
 */
export class ViommuReplay extends IommuReplay {
  /** By domain: its mappings, in the order of their addresses. */
  readonly #domains = new Map<number, Mapping[]>();
  /** By endpoint: its domain. */
  readonly #attached = new Map<number, number>();
  /** By endpoint: addresses that are never mapped. */
  readonly #reserved = new Map<number, { readonly start: bigint; readonly end: bigint }[]>();
  /** By requester: the name of its region. */
  readonly #regions = new Map<number, string>();
  /** The first endpoint that said so: all of one device say the same. */
  #first: number | undefined;
  #access: Access | undefined;
  /** The request that is answered next. */
  #answering: string | undefined;
  /** What an UNMAP has still to report. */
  #going:
    | { readonly line: number; readonly domain: number; readonly mappings: Mapping[] }
    | undefined;

  event({ name, args }: TraceEvent, line: number): void {
    if (name === 'virtqueue_fill') this.#answer(args, line);
    if (!name.startsWith('virtio_iommu_')) return;
    if (name === 'virtio_iommu_translate_out') this.#translated(args, line);
    else if (name === 'virtio_iommu_report_fault') this.#fault(args, line);
    else {
      this.#endAccess();
      if (name === 'virtio_iommu_translate') this.#translate(args, line);
      else if (name === 'virtio_iommu_unmap_done') this.#gone(args, line);
      else this.#request(name, args, line);
    }
  }

  end(): void {
    this.#endAccess();
    this.#endUnmap();
  }

  #answer({ len }: TraceEvent['args'], line: number): void {
    const request = this.#answering;
    this.#answering = undefined;
    if (request === undefined || request === 'virtio_iommu_fill_resv_property') return;
    this.invalidationMismatches.compare(line, 'virtqueue_fill', [['len', Number(len), TAIL]]);
  }

  #request(name: string, args: TraceEvent['args'], line: number): void {
    this.#endUnmap();
    const [domain, endpoint] = [Number(args.domain), Number(args.endpoint)];
    this.#answering = name === 'virtio_iommu_device_reset' ? undefined : name;
    if (name === 'virtio_iommu_fill_resv_property') {
      this.#reserve(endpoint, args, line);
      return;
    }
    this.invalidations += 1;
    if (name === 'virtio_iommu_map') this.#map(domain, args, line);
    else if (name === 'virtio_iommu_unmap') this.#unmap(domain, args, line);
    else if (name === 'virtio_iommu_attach') {
      const isProbed = this.#reserved.size === 0 || this.#reserved.has(endpoint);
      this.invalidationMismatches.compare(line, name, [
        ['endpoint', endpoint, isProbed ? endpoint : undefined],
      ]);
      if (!this.#domains.has(domain)) this.#domains.set(domain, []);
      if (this.#attached.size < MAX_FOLLOWED) this.#attached.set(endpoint, domain);
    } else if (name === 'virtio_iommu_detach') {
      this.invalidationMismatches.compare(line, name, [
        ['domain', domain, this.#attached.get(endpoint)],
      ]);
      this.#attached.delete(endpoint);
      // A domain without endpoints is forgotten. [qemu hw/virtio/virtio-iommu.c virtio_iommu_detach]
      if (![...this.#attached.values()].includes(domain)) this.#domains.delete(domain);
    } else if (name === 'virtio_iommu_device_reset') {
      this.#domains.clear();
      this.#attached.clear();
      this.#reserved.clear();
      this.#first = undefined;
    }
  }

  #reserve(endpoint: number, args: TraceEvent['args'], line: number): void {
    const [start, end, subtype] = [args.start as bigint, args.end as bigint, Number(args.subtype)];
    const known = this.#reserved.get(endpoint) ?? [];
    this.#first ??= endpoint;
    const model =
      endpoint === this.#first ? { start, end } : this.#reserved.get(this.#first)?.[known.length];
    this.invalidationMismatches.compare(line, 'virtio_iommu_fill_resv_property', [
      ['type', subtype, subtype <= MAX_SUBTYPE ? subtype : undefined],
      ['start', start, model?.start],
      ['end', end, model?.end],
    ]);
    if (known.length >= 64 || this.#reserved.size >= MAX_FOLLOWED) return;
    this.#reserved.set(endpoint, [...known, { start, end }]);
  }

  #map(domain: number, args: TraceEvent['args'], line: number): void {
    const [start, end] = [args.virt_start as bigint, args.virt_end as bigint];
    const [gpa, flags] = [args.phys_start as bigint, Number(args.flags)];
    const mappings = this.#domains.get(domain);
    const at = mappings === undefined ? 0 : indexOf(mappings, start);
    const next = mappings?.[at];
    const isFree = next === undefined || next.start > end;
    this.invalidationMismatches.compare(line, 'virtio_iommu_map', [
      ['domain', domain, mappings === undefined ? undefined : domain],
      ['virt_start', start % PAGE, 0n],
      ['virt_end', end, end >= start && (end + 1n) % PAGE === 0n ? end : undefined],
      ['virt_start', start, isFree ? start : undefined],
      ['phys_start', gpa % PAGE, 0n],
      ['flags', flags, flags > 0 && flags <= MAX_FLAGS ? flags : undefined],
    ]);
    if (mappings === undefined || !isFree || end < start) return;
    if (mappings.length < MAX_FOLLOWED) mappings.splice(at, 0, { start, end, gpa, flags });
    this.listener.told?.({ kind: 'map', line, iova: start, size: end - start + 1n, gpa });
  }

  // All that lies in the range goes; QEMU logs each one.
  #unmap(domain: number, args: TraceEvent['args'], line: number): void {
    const [start, end] = [args.virt_start as bigint, args.virt_end as bigint];
    const mappings = this.#domains.get(domain) ?? [];
    const from = indexOf(mappings, start);
    let to = from;
    while (to < mappings.length && (mappings[to] as Mapping).end <= end) to += 1;
    const going = mappings.slice(from, to);
    const [first, last] = [going[0], going.at(-1)];
    // Linux asks for what it mapped, no more. [linux drivers/iommu/virtio-iommu.c viommu_del_mappings]
    this.invalidationMismatches.compare(line, 'virtio_iommu_unmap', [
      ['domain', domain, this.#domains.has(domain) ? domain : undefined],
      ['virt_start', start, first?.start],
      ['virt_end', end, last?.end],
    ]);
    this.#going = { line, domain, mappings: going };
    this.listener.told?.({
      kind: 'unmap',
      line,
      iova: start,
      size: end - start + 1n,
      gpa: undefined,
    });
  }

  #gone(args: TraceEvent['args'], line: number): void {
    const going = this.#going;
    const mapping = going?.mappings.shift();
    this.invalidationMismatches.compare(line, 'virtio_iommu_unmap_done', [
      ['domain', Number(args.domain), going?.domain],
      ['virt_start', args.virt_start, mapping?.start],
      ['virt_end', args.virt_end, mapping?.end],
    ]);
    if (going === undefined || mapping === undefined) return;
    const mappings = this.#domains.get(going.domain) ?? [];
    const at = mappings.indexOf(mapping);
    if (at >= 0) mappings.splice(at, 1);
  }

  #endUnmap(): void {
    const going = this.#going;
    this.#going = undefined;
    if (going === undefined || going.mappings.length === 0) return;
    this.invalidationMismatches.compare(going.line, 'virtio_iommu_unmap_done', [
      ['event', 'missing', 'what was mapped there'],
    ]);
  }

  #translate(args: TraceEvent['args'], line: number): void {
    this.#endUnmap();
    this.translations += 1;
    const [sid, iova, flag] = [Number(args.rid), args.addr as bigint, Number(args.flag)];
    const mr = String(args.mr);
    const region = this.#regions.get(sid) ?? mr;
    if (this.#regions.size < MAX_FOLLOWED) this.#regions.set(sid, region);
    this.translationMismatches.compare(line, 'virtio_iommu_translate', [
      ['mr', mr, region],
      ['mr', mr.endsWith(`-${sid & 0xff}`), true],
      ['flag', flag, flag > 0 && flag <= MAX_FLAG ? flag : undefined],
    ]);
    const domain = this.#attached.get(sid);
    const mappings = domain === undefined ? undefined : this.#domains.get(domain);
    if (mappings === undefined || this.#isReserved(sid, iova)) return;
    const found = mappings[indexOf(mappings, iova)];
    const mapping = found !== undefined && found.start <= iova ? found : undefined;
    this.#access = { line, sid, iova, flag, mapping };
  }

  #translated(args: TraceEvent['args'], line: number): void {
    const access = this.#access;
    this.#access = undefined;
    const { mapping, iova = 0n, sid, flag = 0 } = access ?? {};
    const gpa = mapping === undefined ? undefined : mapping.gpa + (iova - mapping.start);
    const rows: Compared[] = [
      ['sid', Number(args.sid), sid],
      ['virt_addr', args.virt_addr, access?.iova],
      ['phys_addr', args.phys_addr, gpa],
      ['flag', flag, mapping === undefined ? undefined : flag & mapping.flags],
    ];
    this.translationMismatches.compare(line, 'virtio_iommu_translate_out', rows);
    if (sid === undefined || gpa === undefined || mapping === undefined) return;
    const entry = (gpa & -PAGE) | BigInt(mapping.flags);
    this.listener.accessed?.({ line, sid, iova, entry, isHit: false });
  }

  #fault(args: TraceEvent['args'], line: number): void {
    const sid = this.#access?.sid ?? Number(args.endpoint);
    this.#access = undefined;
    this.listener.denied?.(sid, args.addr as bigint, line);
  }

  // An access to what is mapped, and it was neither translated nor denied.
  #endAccess(): void {
    const access = this.#access;
    this.#access = undefined;
    if (access === undefined) return;
    this.translationMismatches.compare(access.line, 'virtio_iommu_translate_out', [
      ['event', 'missing', 'the translation, or a fault'],
    ]);
  }

  #isReserved(endpoint: number, iova: bigint): boolean {
    const ranges = this.#reserved.get(endpoint) ?? [];
    return ranges.some(({ start, end }) => iova >= start && iova <= end);
  }
}

// The first mapping that ends at this address or behind it.
function indexOf(mappings: readonly Mapping[], address: bigint): number {
  let [low, high] = [0, mappings.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((mappings[middle] as Mapping).end < address) low = middle + 1;
    else high = middle;
  }
  return low;
}
