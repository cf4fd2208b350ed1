import { hex, joinU64, type TraceEvent, Tracer, type TraceValue } from '@pinhole/base';
import {
  createSpaprHypercalls,
  H_GET_TCE,
  H_PUT_TCE,
  H_PUT_TCE_INDIRECT,
  H_STUFF_TCE,
  RTAS_TOKENS,
  type SpaprHypercalls,
} from '@pinhole/hcall';
import { createGuestMemory } from '@pinhole/memory';
import { isPciLiobn, SpaprIommu, SpaprPhb, SpaprVioDevice, type TceLookup } from '@pinhole/tce';

import { log2, TCE_PAGE_SHIFT } from './tce-call.js';

/** Host bridges that a machine can have. [qemu v7.2 include/hw/ppc/spapr.h SPAPR_MAX_PHBS] */
const MAX_PHBS = 31;
/** Where the model keeps the list of an indirect put; the log's list is not in the log. */
const LIST_PAGE = 0x1_0000;
const MAX_VIO_TABLES = 1024;
/** [qemu v7.2 hw/ppc/spapr_pci.c SPAPR_PCI_BASE_BUID] */
const FIRST_BUID = 0x800_0000_2000_0000n;

/** Options of {@link HypervisorReplay}. */
export interface HypervisorReplayOptions {
  /** As the machine that was recorded had it; defaults are QEMU's. */
  readonly dmaWindowSize?: number;
  readonly pageSizes?: bigint;
  /** Default windows that are known to be elsewhere or of another size, by host bridge. */
  readonly windows?: ReadonlyMap<number, { readonly address: bigint; readonly size: number }>;
  /** How many mismatches are kept; all are counted. Default 10. */
  readonly keep?: number;
}

/** Where log and model disagree. */
export interface ReplayMismatch {
  /** Of the log, from 1. */
  readonly line: number;
  readonly event: string;
  /** What is compared, such as `ret`, `perm`. */
  readonly what: string;
  readonly logged: string;
  readonly model: string;
}

/** What a replay found. */
export interface HypervisorReplayResult {
  /** TCE hypercalls in the log. */
  readonly hcalls: number;
  readonly hcallMismatches: number;
  /** Translations in the log. */
  readonly translations: number;
  readonly translationMismatches: number;
  /** RTAS calls for dynamic windows in the log. */
  readonly rtasCalls: number;
  readonly rtasMismatches: number;
  /** Tables that came into being: boots, resets, new windows. */
  readonly newTables: number;
  /** LIOBNs seen, in order of appearance. */
  readonly liobns: readonly string[];
  /** The first disagreements. */
  readonly mismatches: readonly ReplayMismatch[];
}

type Kind = 'hcall' | 'translation' | 'rtas';

/**
 * Feeds the hypercalls of a QEMU log to the model's TCE tables, and checks every return code and
 * every translation against what the model answers. Constant memory: tables, not events.
 *
 * The log does not have the list of an indirect put, only its first address, the index of its last
 * entry and that entry: the list is taken to be physically contiguous. Where a guest's was not,
 * translations through its other entries mismatch.
 */
export class HypervisorReplay {
  readonly #iommu: SpaprIommu;
  readonly #hypercalls: SpaprHypercalls;
  readonly #memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 20 }] });
  readonly #lookup: TceLookup = { hi: 0, lo: 0, perm: 0 };
  readonly #keep: number;
  readonly #counts = { hcall: 0, translation: 0, rtas: 0 };
  readonly #wrong = { hcall: 0, translation: 0, rtas: 0 };
  readonly #mismatches: ReplayMismatch[] = [];
  readonly #liobns = new Set<number>();
  // The model's own event for the call under way: what QEMU would have logged.
  #answer: TraceEvent | undefined;
  /** LIOBNs of new tables. */
  readonly #made = new Set<number>();
  #hasPowerOn = false;
  #newTables = 0;
  #vioTables = 0;
  // A new table is a new window if a create follows, else a reset: known one event later.
  #pendingTable: { liobn: number; line: number } | undefined;

  constructor(options: HypervisorReplayOptions = {}) {
    this.#keep = options.keep ?? 10;
    const phbs = Array.from(
      { length: MAX_PHBS },
      (_, index) =>
        new SpaprPhb({
          index,
          memory: this.#memory,
          ...windowOf(options, index),
          ...(options.pageSizes === undefined ? {} : { pageSizeMask: options.pageSizes }),
        }),
    );
    this.#iommu = new SpaprIommu({ phbs });
    const tracer = new Tracer({
      emit: (event) => {
        if (event.name.startsWith('spapr_iommu_')) this.#answer = event;
      },
    });
    this.#hypercalls = createSpaprHypercalls({
      iommu: this.#iommu,
      memory: this.#memory,
      tracer,
    });
  }

  /** Takes the next event of the log; those that are not the hypervisor's are passed over. */
  event(event: TraceEvent, line: number): void {
    const { name, args } = event;
    if (!name.startsWith('spapr_iommu_')) return;
    const kind = name.slice('spapr_iommu_'.length);
    if (kind !== 'ddw_create') this.#settleNewTable();
    if (kind === 'xlate') this.#translation(args, line);
    else if (kind === 'put' || kind === 'pci_put') this.#put(event, line);
    else if (kind === 'get' || kind === 'pci_get') this.#get(event, line);
    else if (kind === 'stuff' || kind === 'pci_stuff') this.#stuff(event, line);
    else if (kind === 'indirect' || kind === 'pci_indirect') this.#indirect(event, line);
    else if (kind === 'new_table') {
      this.#newTables += 1;
      this.#pendingTable = { liobn: this.#note(big(args, 'liobn')), line };
      if (this.#made.size < MAX_PHBS * 2 + MAX_VIO_TABLES) this.#made.add(this.#pendingTable.liobn);
    } else if (kind === 'ddw_query') this.#query(event, line);
    else if (kind === 'ddw_create') this.#create(event, line);
    else if (kind === 'ddw_remove') this.#remove(event, line);
    else if (kind === 'ddw_reset') this.#reset(event, line);
  }

  /** Says that the log is over. */
  end(): HypervisorReplayResult {
    this.#settleNewTable();
    return {
      hcalls: this.#counts.hcall,
      hcallMismatches: this.#wrong.hcall,
      translations: this.#counts.translation,
      translationMismatches: this.#wrong.translation,
      rtasCalls: this.#counts.rtas,
      rtasMismatches: this.#wrong.rtas,
      newTables: this.#newTables,
      liobns: [...this.#liobns].map(hex),
      mismatches: this.#mismatches,
    };
  }

  #put(event: TraceEvent, line: number): void {
    const { args } = event;
    const given = [big(args, 'liobn'), big(args, 'ioba'), big(args, 'tce')];
    this.#hcall(event, line, H_PUT_TCE, given);
  }

  #get(event: TraceEvent, line: number): void {
    const { args } = event;
    this.#hcall(event, line, H_GET_TCE, [big(args, 'liobn'), big(args, 'ioba')]);
  }

  // The log has the address at which the loop stopped. A call that failed stopped somewhere inside:
  // what it did before is not in the log, so only the failing entry is tried again.
  #stuff(event: TraceEvent, line: number): void {
    const { args } = event;
    const liobn = big(args, 'liobn');
    const stopped = big(args, 'ioba');
    const npages = big(args, 'npages');
    const shift = BigInt(this.#iommu.findTable(liobn)?.pageShift ?? TCE_PAGE_SHIFT);
    const start = args.ret === 0n ? BigInt.asUintN(64, stopped - (npages << shift)) : stopped;
    this.#hcall(event, line, H_STUFF_TCE, [liobn, start, big(args, 'tcevalue'), npages]);
  }

  #indirect(event: TraceEvent, line: number): void {
    const { args } = event;
    const liobn = big(args, 'liobn');
    const last = big(args, 'iobaN');
    const list = BigInt(LIST_PAGE) + (big(args, 'tcelist') & 0xfffn);
    const pageSize = 1n << BigInt(this.#iommu.findTable(liobn)?.pageShift ?? TCE_PAGE_SHIFT);
    // One more than any list may have, so that the model refuses what is too long.
    const count = last > 511n ? 513 : Number(last) + 1;
    for (let i = 0; i < count; i += 1) {
      const tce = BigInt.asUintN(64, big(args, 'tceN') - BigInt(count - 1 - i) * pageSize);
      this.#memory.writeU64Be(Number(list) + i * 8, tce);
    }
    this.#hcall(event, line, H_PUT_TCE_INDIRECT, [liobn, big(args, 'ioba'), list, BigInt(count)]);
  }

  #hcall(event: TraceEvent, line: number, opcode: number, args: readonly bigint[]): void {
    const liobn = this.#note(args[0] ?? 0n);
    this.#answer = undefined;
    this.#hypercalls.call(opcode, args);
    if (this.#isUnheardOf(liobn) && event.args.ret === 0n) {
      this.#compare('hcall', line, event.name, [['liobn', args[0], 'no table was made']]);
    } else this.#compareEvent('hcall', line, event);
  }

  #translation(args: Args, line: number): void {
    const liobn = big(args, 'liobn');
    const table = this.#iommu.findTable(BigInt(this.#note(liobn)));
    const found = this.#lookup;
    if (table === undefined || this.#isUnheardOf(table.liobn)) {
      this.#compare('translation', line, 'spapr_iommu_xlate', [['liobn', liobn, 'no such table']]);
      return;
    }
    const address = args.ioba as bigint;
    table.lookup(Number(address >> 32n), Number(address & 0xffff_ffffn), found);
    const isInside = Number(address >> BigInt(table.pageShift)) < table.nbTable;
    const mask = isInside ? (1n << BigInt(table.pageShift)) - 1n : 2n ** 64n - 1n;
    const target = joinU64(found.hi, found.lo);
    const page = target - (target & mask);
    // QEMU prints 32 bits of the mask.
    const size = Number(mask & 0xffff_ffffn);
    if (args.tce === page && args.perm === found.perm && args.pgsize === size) {
      this.#counts.translation += 1;
      return;
    }
    this.#compare('translation', line, 'spapr_iommu_xlate', [
      ['address', args.tce, page],
      ['perm', args.perm, found.perm],
      ['mask', args.pgsize, size],
    ]);
  }

  #query(event: TraceEvent, line: number): void {
    this.#rtas(event, line, 'ibm,query-pe-dma-window', buidArgs(event.args), 5);
  }

  #create(event: TraceEvent, line: number): void {
    this.#pendingTable = undefined;
    const { args } = event;
    const shifts = [shiftOf(big(args, 'pg_size')), shiftOf(big(args, 'req_size'))];
    this.#rtas(event, line, 'ibm,create-pe-dma-window', [...buidArgs(args), ...shifts], 4);
  }

  #remove(event: TraceEvent, line: number): void {
    this.#rtas(event, line, 'ibm,remove-pe-dma-window', [Number(event.args.liobn)], 1);
  }

  // Of a call, or of a removal that brought the default window back: the same once more.
  #reset(event: TraceEvent, line: number): void {
    this.#rtas(event, line, 'ibm,reset-pe-dma-window', buidArgs(event.args), 1);
  }

  #rtas(
    event: TraceEvent,
    line: number,
    name: keyof typeof RTAS_TOKENS,
    args: readonly number[],
    nret: number,
  ): void {
    this.#answer = undefined;
    this.#hypercalls.rtas(RTAS_TOKENS[name], args, nret);
    const { buid } = event.args;
    const index = typeof buid === 'bigint' ? Number((buid - FIRST_BUID) & 0xffffn) : 0;
    if (buid !== undefined && this.#isUnheardOf(0x8000_0000 + index * 256)) {
      this.#compare('rtas', line, event.name, [['buid', buid, 'no such host bridge']]);
    } else this.#compareEvent('rtas', line, event);
  }

  // A table that no create explains: the machine was reset, or a VIO device came into being.
  #settleNewTable(): void {
    const pending = this.#pendingTable;
    this.#pendingTable = undefined;
    if (pending === undefined) return;
    // A machine makes its bridges' tables before anything uses them.
    if (this.#counts.hcall + this.#counts.translation + this.#counts.rtas === 0) {
      this.#hasPowerOn = true;
    }
    const table = this.#iommu.findTable(BigInt(pending.liobn));
    if (table !== undefined && isPciLiobn(pending.liobn)) {
      this.#iommu.phbOf(table)?.reset();
    } else if (table !== undefined) {
      table.clear();
    } else if (this.#vioTables < MAX_VIO_TABLES) {
      this.#iommu.addVio(new SpaprVioDevice({ reg: pending.liobn, memory: this.#memory }));
      this.#vioTables += 1;
    }
  }

  // The log begins with the tables that the machine made, and this one is not among them.
  #isUnheardOf(liobn: number): boolean {
    return this.#hasPowerOn && !this.#made.has(liobn);
  }

  #note(liobn: bigint): number {
    const number = Number(BigInt.asUintN(32, liobn));
    if (this.#liobns.size < MAX_PHBS * 2 + MAX_VIO_TABLES) this.#liobns.add(number);
    return number;
  }

  // Every argument that QEMU logged against the one that the model would log.
  #compareEvent(kind: Kind, line: number, { name, args }: TraceEvent): void {
    const answer = this.#answer;
    if (answer?.name !== name) {
      this.#compare(kind, line, name, [['event', name, answer?.name ?? 'an error, no event']]);
      return;
    }
    for (const key in args) {
      // The model has a list of its own.
      if (args[key] === answer.args[key] || key === 'tcelist') continue;
      this.#compare(kind, line, name, [[key, args[key], answer.args[key]]]);
      return;
    }
    this.#counts[kind] += 1;
  }

  #compare(kind: Kind, line: number, event: string, rows: readonly Row[]): void {
    this.#counts[kind] += 1;
    const wrong = rows.filter(([, logged, model]) => logged !== model);
    if (wrong.length === 0) return;
    this.#wrong[kind] += 1;
    if (this.#mismatches.length >= this.#keep) return;
    const [what, logged, model] = wrong[0] as Row;
    this.#mismatches.push({ line, event, what, logged: show(logged), model: show(model) });
  }
}

function windowOf(
  { dmaWindowSize, windows }: HypervisorReplayOptions,
  index: number,
): { dmaWindowSize?: number; dmaWindowAddress?: bigint } {
  const known = windows?.get(index);
  if (known !== undefined) return { dmaWindowSize: known.size, dmaWindowAddress: known.address };
  return dmaWindowSize === undefined ? {} : { dmaWindowSize };
}

type Args = TraceEvent['args'];
type Row = readonly [what: string, logged: TraceValue | undefined, model: TraceValue | undefined];

function big(args: Args, name: string): bigint {
  const value = args[name];
  return typeof value === 'bigint' ? value : BigInt(Number(value ?? 0));
}

// config_addr, BUID hi, BUID lo.
function buidArgs(args: Args): number[] {
  const buid = big(args, 'buid');
  return [Number(args.addr ?? 0), Number(buid >> 32n), Number(buid & 0xffff_ffffn)];
}

// log2 of a power of two; of anything else, a shift that no window has.
function shiftOf(size: bigint): number {
  const shift = log2(size);
  return size === 1n << BigInt(shift) ? shift : 255;
}

function show(value: TraceValue | undefined): string {
  if (typeof value === 'bigint' && value < 0n) return value.toString();
  if (typeof value === 'bigint' || typeof value === 'number') return hex(value);
  return String(value);
}
