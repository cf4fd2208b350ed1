/** A replay as a timeline: what the guest, the hypervisor and the device did, and what led to what. */
import type { TraceEvent, TraceValue } from '@pinhole/base';
import { BusAddresses, type GuestOperation, type RunObserver } from '@pinhole/machine';
import type { FlowPoint } from '@pinhole/trace';

/** Where a timeline goes. */
export type EmitEvent = (event: TraceEvent, flows?: readonly FlowPoint[]) => void;

type Flow = (phase: FlowPoint['phase']) => FlowPoint[];

/** A buffer that the driver mapped and holds. */
interface Mapping {
  readonly id: number;
  readonly operation: GuestOperation;
  readonly flow: Flow;
  isAccessed: boolean;
}

/** An operation between its first hypercall and its last. */
interface Open {
  readonly operation: GuestOperation;
  readonly mapping: Mapping | undefined;
  pagesLeft: number;
}

const DIRECTIONS = ['both ways', 'to the device', 'from the device'];
/** Device accesses through an IOMMU, and the argument that is their address. */
const ACCESSES: ReadonlyMap<string, string> = new Map([
  ['vtd_iotlb_page_hit', 'iova'],
  ['vtd_iotlb_page_update', 'iova'],
  ['smmuv3_translate_success', 'iova'],
  ['virtio_iommu_translate', 'addr'],
]);
/** What QEMU logs of such an access besides. */
const OF_ACCESS =
  /^(vtd_dmar_translate|smmu_iotlb_(lookup_hit|lookup_miss|insert)|virtio_iommu_translate_out)$/;
/** What the guest has its IOMMU do. */
const OF_IOMMU = /^(vtd_inv_|smmu_iotlb_inv_|smmuv3_cmdq_|smmuv3_s1_range_inval|virtio_iommu_)/;
/** Accesses that wait for the mappings they need; a request has fewer. */
const MAX_WAITING = 16_384;
/** Within one line of QEMU's log: the guest begins before it and ends after it. */
const BEFORE = 0.6;
const SPAN = 0.3;
const AFTER = 0.5;

/**
 * Emits a span for each operation of the guest and each hypercall, a point for what the device does;
 * one flow for each mapping, from there by its hypercalls and its first access to its unmap. Time is
 * QEMU's line number. Keeps the mappings that are held, nothing else.
 */
export class ReplayTimeline implements RunObserver {
  readonly #emit: EmitEvent;
  readonly #isSmp: boolean;
  readonly #addresses = new BusAddresses();
  readonly #held = new Map<bigint, Mapping[]>();
  /** By CPU: an interrupt's operation lies within another. */
  readonly #open = new Map<number, Open[]>();
  /** An IOMMU's log has a request's accesses before the request that the mappings are known by. */
  readonly #waiting: { readonly event: TraceEvent; readonly line: number }[] = [];
  #mappings = 0;
  #now = 0;

  constructor(emit: EmitEvent, cpus: number) {
    this.#emit = emit;
    this.#isSmp = cpus > 1;
  }

  qemuEvent(...[event, line, call]: Parameters<Required<RunObserver>['qemuEvent']>): void {
    const { name } = event;
    const isAccess = ACCESSES.has(name) || OF_ACCESS.test(name);
    if (isAccess || (name === 'virtqueue_alloc_element' && this.#waiting.length > 0)) {
      this.#waiting.push({ event, line });
      if (this.#waiting.length > MAX_WAITING) this.end();
      return;
    }
    this.end();
    this.#now = line;
    if (call !== undefined) this.#call(event, call.operation, call.call.npages);
    else this.#other(event);
  }

  /** Emits what still waits: after the replay. */
  end(): void {
    for (const { event, line } of this.#waiting) {
      this.#now = line;
      this.#other(event);
    }
    this.#waiting.length = 0;
  }

  operation(...[operation, entries]: Parameters<Required<RunObserver>['operation']>): void {
    const [first] = this.#waiting;
    if (first !== undefined) this.#now = first.line - 1;
    const open = this.#begin(operation);
    // Without hypercalls there is nothing to wait for.
    if (entries === undefined) this.#end(open, BEFORE);
    else open.pagesLeft = entries.npages;
  }

  givenUp(...[operation, { npages }]: Parameters<Required<RunObserver>['givenUp']>): void {
    const actor = this.#guest(operation);
    this.#at(BEFORE, actor, 'unmap_left_tces', { tces: npages, guest_line: operation.line });
    this.#close(operation.cpu, operation.level);
  }

  failed(...[operation, npages]: Parameters<Required<RunObserver>['failed']>): void {
    const actor = this.#guest(operation);
    this.#at(BEFORE, actor, 'map_found_no_room', { tces: npages, guest_line: operation.line });
  }

  #begin(operation: GuestOperation): Open {
    const { kind, cpu, level, dmaAddr } = operation;
    this.#close(cpu, level);
    let mapping: Mapping | undefined;
    let flows: FlowPoint[] = [];
    if (kind === 'map' && dmaAddr !== 2n ** 64n - 1n) {
      mapping = this.#hold(operation);
      flows = mapping.flow('start');
    } else if (kind === 'unmap') {
      mapping = this.#release(operation);
      flows = mapping?.flow('end') ?? [];
    }
    const args = {
      ...describe(operation),
      ...(mapping === undefined ? {} : { mapping: mapping.id }),
    };
    this.#at(BEFORE, this.#guest(operation), `dma_${kind}`, args, 'begin', flows);
    const open = { operation, mapping, pagesLeft: 0 };
    const others = this.#open.get(cpu);
    if (others === undefined) this.#open.set(cpu, [open]);
    else others.push(open);
    return open;
  }

  // What the same CPU did before, but for what this one interrupts.
  #close(cpu: number, level: number): void {
    const open = this.#open.get(cpu) ?? [];
    while ((open.at(-1)?.operation.level ?? -1) >= level) this.#end(open.at(-1) as Open);
  }

  #end(ended: Open, offset: number = AFTER): void {
    const { operation } = ended;
    const others = this.#open.get(operation.cpu) ?? [];
    const at = others.indexOf(ended);
    if (at < 0) return;
    others.splice(at, 1);
    this.#at(offset, this.#guest(operation), `dma_${operation.kind}`, {}, 'end');
  }

  #call(event: TraceEvent, operation: GuestOperation | undefined, npages: number): void {
    const open =
      operation === undefined
        ? undefined
        : this.#open.get(operation.cpu)?.findLast((other) => other.operation === operation);
    const mapping = open?.mapping;
    const args = {
      ...event.args,
      ...(operation === undefined ? {} : { guest_line: operation.line }),
      ...(mapping === undefined ? {} : { mapping: mapping.id }),
    };
    const flows = operation?.kind === 'map' ? (mapping?.flow('step') ?? []) : [];
    this.#at(0, 'hypervisor', event.name, args, 'begin', flows);
    this.#at(SPAN, 'hypervisor', event.name, {}, 'end');
    if (open === undefined) return;
    open.pagesLeft -= npages;
    if (open.pagesLeft <= 0) this.#end(open);
  }

  #other(event: TraceEvent): void {
    const { name, args } = event;
    const argument = ACCESSES.get(name);
    const address =
      argument === undefined ? this.#addresses.event(event) : (args[argument] as bigint);
    if (address === undefined) {
      this.#at(0, actorOf(name), name, args);
      return;
    }
    const mapping = this.#held.get(address)?.find(({ isAccessed }) => !isAccessed);
    if (mapping === undefined) {
      this.#at(0, 'device', name, args);
      return;
    }
    mapping.isAccessed = true;
    const more = { ...args, mapping: mapping.id };
    this.#at(0, 'device', name, more, 'begin', mapping.flow('step'));
    this.#at(SPAN, 'device', name, {}, 'end');
  }

  #hold(operation: GuestOperation): Mapping {
    this.#mappings += 1;
    const id = this.#mappings;
    const mapping = {
      id,
      operation,
      flow: (phase: FlowPoint['phase']) => [{ id, phase }],
      isAccessed: false,
    };
    const others = this.#held.get(operation.dmaAddr);
    if (others === undefined) this.#held.set(operation.dmaAddr, [mapping]);
    else others.push(mapping);
    return mapping;
  }

  #release({ dmaAddr, device, size }: GuestOperation): Mapping | undefined {
    const held = this.#held.get(dmaAddr) ?? [];
    const at = held.findIndex(
      ({ operation }) => operation.device === device && operation.size === size,
    );
    if (at < 0) return undefined;
    const [mapping] = held.splice(at, 1);
    if (held.length === 0) this.#held.delete(dmaAddr);
    return mapping;
  }

  #guest({ cpu }: GuestOperation): string {
    return this.#isSmp ? `guest CPU ${cpu}` : 'guest';
  }

  #at(
    offset: number,
    actor: string,
    name: string,
    args: Readonly<Record<string, TraceValue>>,
    phase?: 'begin' | 'end',
    flows?: readonly FlowPoint[],
  ): void {
    const t = Math.round((this.#now + offset) * 10) / 10;
    this.#emit({ t, actor, name, args, ...(phase === undefined ? {} : { phase }) }, flows);
  }
}

// Who does what QEMU's log says; the guest is its own.
function actorOf(name: string): string {
  if (name.startsWith('spapr_iommu_')) return 'hypervisor';
  return OF_IOMMU.test(name) && !OF_ACCESS.test(name) ? 'IOMMU' : 'device';
}

function describe({
  device,
  direction,
  size,
  gpa,
  dmaAddr,
  line,
}: GuestOperation): Record<string, TraceValue> {
  return {
    device,
    direction: DIRECTIONS[direction] ?? 'unknown',
    size,
    ...(gpa === undefined ? {} : { phys_addr: BigInt(gpa) }),
    dma_addr: dmaAddr,
    guest_line: line,
  };
}
