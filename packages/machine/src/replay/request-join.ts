/** Requests of QEMU's log and mappings of the guest's trace: which are whose. */
import { hex } from '@pinhole/base';
import { DmaDirection } from '@pinhole/memory';
import type { Disagreement } from './address-model.js';
import { DMA_MAPPING_ERROR, type GuestOperation } from './guest-operations.js';
import type { IommuAccess } from './iommu-replay.js';
import type { TakenRequest } from './virtqueue-replay.js';

/** Who is told what a join finds. */
export interface JoinListener {
  joined(): void;
  mismatch(guestLine: number | undefined, qemuLine: number | undefined, wrong: Disagreement): void;
  /** Operations of the guest, in the order of its trace, as far as the log has come. */
  told(operation: GuestOperation): void;
  /** A device used what its driver had unmapped. */
  stale(access: IommuAccess, unmap: GuestOperation): void;
  /** Nothing that the guest mapped has this address. */
  outside(access: IommuAccess, near: GuestOperation | undefined): void;
}

/** Options of {@link RequestJoin}. */
export interface RequestJoinOptions {
  /** The device that the requests are of. */
  readonly device: string;
  readonly listener: JoinListener;
  /** Physical addresses of the pages of coherent memory, if they are known. */
  readonly pagesOf: (operation: GuestOperation) => readonly bigint[] | undefined;
  /** The log has accesses through an IOMMU. */
  readonly followsAccesses: boolean;
  /** What a device that may write a page may do: 2 write, 3 read it, too. */
  readonly writable: bigint;
  /** The table's entry of a page that is mapped for interrupts. */
  readonly doorbellAt: (iova: bigint) => bigint | undefined;
}

/** A request, and its buffers. */
interface Joined {
  readonly request: TakenRequest;
  readonly buffers: readonly GuestOperation[];
  readonly readable: number;
  readonly writable: number;
  isGiven: boolean;
}

/** Unmapped buffers of which it is known that they were mapped. */
const MAX_GONE = 65_536;
const PAGE_SHIFT = 12n;
const PAGE = 1n << PAGE_SHIFT;
/** Bytes of a descriptor. [virtio v1.2 §2.7.5 "The Virtqueue Descriptor Table"] */
const DESCRIPTOR = 16;
/** The header of a virtio-blk request. [virtio v1.2 §5.2.6 "Device Operation"] */
const BLK_HEADER = 16;

/**
 * Joins the two files where one device has one virtqueue in use: the driver maps the buffers of a
 * request, readable ones first, then the indirect table; the device takes requests in that order.
 * [linux v6.12 drivers/virtio/virtio_ring.c virtqueue_add_split, virtqueue_add_indirect_packed]
 */
export class RequestJoin {
  readonly #options: RequestJoinOptions;
  readonly #listener: JoinListener;
  readonly #device: string;
  /** The guest's operations that the log has not come to. */
  #ahead: GuestOperation[] = [];
  #next = 0;
  /** By the address of a buffer: the request that it is of. */
  readonly #begun = new Map<bigint, Joined>();
  readonly #requests = new Map<TakenRequest, Joined>();
  /** By page: what drivers hold. */
  readonly #pages = new Map<bigint, GuestOperation[]>();
  /** By page: the last unmapping. */
  readonly #gone = new Map<bigint, GuestOperation>();
  #accesses: IommuAccess[] = [];
  #hasAll = false;
  #isOver = false;

  constructor(options: RequestJoinOptions) {
    this.#options = options;
    this.#device = options.device;
    this.#listener = options.listener;
  }

  /** Whether it can take this request. */
  isReadyFor({ inNum, outNum }: Pick<TakenRequest, 'inNum' | 'outNum'>): boolean {
    if (this.#hasAll || this.#isOver) return true;
    let maps = 0;
    for (let i = this.#next; i < this.#ahead.length; i += 1) {
      if (this.#isMap(this.#ahead[i] as GuestOperation)) maps += 1;
      // One more: the table, or what is no table.
      if (maps > inNum + outNum + 1) return true;
    }
    return false;
  }

  /** The guest did something. */
  operation(operation: GuestOperation): void {
    if (operation.kind === 'calls') return;
    if (this.#isOver) this.#pass(operation);
    else this.#ahead.push(operation);
  }

  /** The guest's trace has ended. */
  endOperations(): void {
    this.#hasAll = true;
  }

  /** A device took a request. */
  taken(request: TakenRequest): void {
    const { inNum, outNum, line } = request;
    const count = inNum + outNum;
    const buffers = this.#claim(count);
    if (buffers === undefined) {
      // After the end of the guest's trace.
      this.#end();
      return;
    }
    const table = this.#peekMap();
    const hasTable =
      count > 1 &&
      table !== undefined &&
      table.direction === DmaDirection.TO_DEVICE &&
      table.size === count * DESCRIPTOR;
    if (hasTable) buffers.push(...(this.#claim(1) ?? []));
    const wrong = buffers.findIndex(({ direction }, i) => {
      const isReadable = i < outNum || i >= count;
      return direction !== (isReadable ? DmaDirection.TO_DEVICE : DmaDirection.FROM_DEVICE);
    });
    if (wrong >= 0) {
      this.#listener.mismatch(buffers[wrong]?.line, line, {
        what: 'in_num, out_num',
        recorded: `${inNum}, ${outNum}`,
        model: `segment ${wrong} goes the other way`,
      });
    } else this.#listener.joined();
    const bytes = (from: number, to: number): number =>
      buffers.slice(from, to).reduce((sum, { size }) => sum + size, 0);
    const joined: Joined = {
      request,
      buffers,
      readable: bytes(0, outNum),
      writable: bytes(outNum, count),
      isGiven: false,
    };
    this.#requests.set(request, joined);
    for (const { dmaAddr } of buffers) this.#begun.set(dmaAddr, joined);
    this.#checkAccesses();
  }

  /** A device gave a request back. */
  given(request: TakenRequest, length: number, line: number): void {
    const joined = this.#requests.get(request);
    if (joined === undefined) return;
    this.#requests.delete(request);
    joined.isGiven = true;
    const { readable, writable, buffers } = joined;
    const guestLine = buffers[0]?.line;
    if (length > writable) {
      this.#listener.mismatch(guestLine, line, {
        what: 'len',
        recorded: `${length}`,
        model: `at most ${writable}`,
      });
    }
    const { blk } = request;
    if (blk === undefined) return;
    const bytes = blk.isWrite ? readable - BLK_HEADER : writable - 1;
    if (blk.sectors * 512 === bytes) return;
    this.#listener.mismatch(guestLine, request.line, {
      what: 'nsectors',
      recorded: `${blk.sectors}`,
      model: `${bytes / 512}`,
    });
  }

  /** A device accessed memory through the IOMMU. */
  accessed(access: IommuAccess): void {
    if (!this.#isOver) this.#accesses.push(access);
  }

  /** Both files have ended. */
  end(): void {
    this.#end();
  }

  #end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    for (; this.#next < this.#ahead.length; this.#next += 1) {
      this.#pass(this.#ahead[this.#next] as GuestOperation);
    }
    this.#ahead = [];
    this.#next = 0;
  }

  #isMap({ kind, device, dmaAddr }: GuestOperation): boolean {
    return kind === 'map' && device === this.#device && dmaAddr !== DMA_MAPPING_ERROR;
  }

  #peekMap(): GuestOperation | undefined {
    for (let i = this.#next; i < this.#ahead.length; i += 1) {
      const operation = this.#ahead[i] as GuestOperation;
      if (this.#isMap(operation)) return operation;
    }
    return undefined;
  }

  // The next mappings, after all that comes before them; undefined: there are not so many.
  #claim(count: number): GuestOperation[] | undefined {
    const claimed: GuestOperation[] = [];
    for (let i = this.#next; claimed.length < count; i += 1) {
      const operation = this.#ahead[i];
      if (operation === undefined) return undefined;
      if (this.#isMap(operation)) claimed.push(operation);
    }
    const last = claimed.at(-1);
    while (last !== undefined) {
      const operation = this.#ahead[this.#next] as GuestOperation;
      this.#next += 1;
      this.#pass(operation);
      if (operation === last) break;
    }
    if (this.#next > 4096) {
      this.#ahead = this.#ahead.slice(this.#next);
      this.#next = 0;
    }
    return claimed;
  }

  // The log has come to what the guest did here.
  #pass(operation: GuestOperation): void {
    const { kind, dmaAddr, size } = operation;
    this.#listener.told(operation);
    if (dmaAddr === DMA_MAPPING_ERROR) return;
    if (this.#options.followsAccesses && size <= MAX_SIZE) this.#passPages(operation);
    if (kind !== 'unmap') return;
    const begun = this.#begun.get(dmaAddr);
    if (begun === undefined) return;
    this.#begun.delete(dmaAddr);
    this.#released(begun, operation);
  }

  #passPages(operation: GuestOperation): void {
    const { kind, dmaAddr, size } = operation;
    const isBegin = kind === 'map' || kind === 'alloc';
    const end = dmaAddr + BigInt(size);
    for (let page = dmaAddr >> PAGE_SHIFT; page << PAGE_SHIFT < end; page += 1n) {
      const held = this.#pages.get(page);
      if (isBegin) {
        if (held !== undefined) held.push(operation);
        else if (this.#pages.size < MAX_PAGES) this.#pages.set(page, [operation]);
        this.#gone.delete(page);
        continue;
      }
      const at = held?.findIndex((other) => other.dmaAddr === dmaAddr && other.size === size) ?? -1;
      if (held === undefined || at < 0) continue;
      held.splice(at, 1);
      if (held.length > 0) continue;
      this.#pages.delete(page);
      this.#gone.set(page, operation);
      if (this.#gone.size > MAX_GONE) this.#gone.delete(this.#gone.keys().next().value as bigint);
    }
  }

  #released(begun: Joined, unmap: GuestOperation): void {
    if (begun.isGiven) return;
    this.#listener.mismatch(unmap.line, begun.request.line, {
      what: 'unmap',
      recorded: hex(unmap.dmaAddr),
      model: 'the device has not given the request back',
    });
  }

  // A device looks its request up before it takes it.
  #checkAccesses(): void {
    for (const access of this.#accesses) this.#check(access);
    this.#accesses = [];
  }

  #check(access: IommuAccess): void {
    const { iova } = access;
    const page = iova >> PAGE_SHIFT;
    const held = this.#pages.get(page) ?? [];
    const owner = held.find(({ dmaAddr, size }) => isWithin(iova, dmaAddr, size));
    if (owner === undefined) {
      const doorbell = this.#options.doorbellAt(iova);
      if (doorbell !== undefined) {
        this.#compare(undefined, access, doorbell);
        return;
      }
      const unmap = this.#gone.get(page);
      if (held.length === 0 && unmap !== undefined) this.#listener.stale(access, unmap);
      else this.#listener.outside(access, held[0]);
      return;
    }
    const { dmaAddr, direction, line } = owner;
    const pages = Number((iova >> PAGE_SHIFT) - (dmaAddr >> PAGE_SHIFT));
    const first = owner.gpa === undefined ? undefined : BigInt(owner.gpa - (owner.gpa % 4096));
    const behind =
      owner.kind === 'alloc'
        ? this.#options.pagesOf(owner)?.[pages]
        : first === undefined
          ? undefined
          : first + BigInt(pages) * PAGE;
    if (behind === undefined) return;
    this.#compare(line, access, behind + this.#permissionOf(direction));
  }

  #compare(guestLine: number | undefined, { line, entry }: IommuAccess, model: bigint): void {
    if (entry === model) return;
    this.#listener.mismatch(guestLine, line, {
      what: 'entry',
      recorded: hex(entry),
      model: hex(model),
    });
  }

  // What the device may read, and write, of a page that Linux maps.
  #permissionOf(direction: DmaDirection): bigint {
    if (direction === DmaDirection.TO_DEVICE) return 1n;
    return direction === DmaDirection.FROM_DEVICE ? this.#options.writable : 3n;
  }
}

/** What is larger has no pages here: 1 GiB. */
const MAX_SIZE = 2 ** 30;
/** Pages that are followed at one time: 16 GiB. */
const MAX_PAGES = 2 ** 22;

function isWithin(iova: bigint, start: bigint, size: number): boolean {
  // Beyond the page where a buffer begins, QEMU looks whole pages up.
  return iova >= start && iova < start + BigInt(size);
}
