/** Runs the model of a machine that was described, and counts what reads of three sizes cost. */
import { ModelError, type TraceEvent, Tracer } from '@pinhole/base';
import { IOVA_FQ_SIZE } from '@pinhole/guest';
import type { Architecture, Platform, PlatformCounters } from '../architecture.js';
import { architectures } from '../architectures/index.js';
import { COST_ITEMS } from '../costs/constants.js';
import { estimateCosts } from '../costs/estimate.js';
import type { CostPreset } from '../costs/types.js';
import type { DiskSource } from '../disk.js';
import type { RunReport } from '../report.js';
import { runScenario } from '../run.js';
import type { Scenario, WorkloadOperation } from '../scenario-config.js';
import type { CostRow, CostTime } from './explanation.js';
import { type ModelQuestion, READ_SIZES, toScenario } from './to-scenario.js';

const SECTOR = 512;

/** Each sector differs from its neighbours. Made at its first use. */
class SectorDisk implements DiskSource {
  readonly size: number = 2 ** 20 + 16 * 4096;
  #bytes: Uint8Array | undefined;

  read(offset: number, into: Uint8Array): void {
    this.#bytes ??= this.#make();
    into.set(this.#bytes.subarray(offset, offset + into.length));
  }

  #make(): Uint8Array {
    const bytes = new Uint8Array(this.size);
    for (let at = 0; at < this.size; at += SECTOR) bytes.fill((at / SECTOR) % 251, at, at + SECTOR);
    return bytes;
  }
}

const DISK: DiskSource = new SectorDisk();

/** What a run showed. */
export interface ModelRun {
  readonly scenario: Scenario;
  readonly report: RunReport;
  /** What the DMA API is for a device on the bus, and how it came to that. */
  readonly dma: Pick<Platform['dma'], 'hasBusOffset' | 'steps'>;
  /** The kernel refuses a device without bit 33. */
  readonly isRestricted: boolean;
  /** What `guest.secure` is there; empty where the guest is not. */
  readonly secure: string;
  /** Bytes of the guest's bounce buffers; 0: it has none. */
  readonly bouncePool: number;
  /** One for each of the sizes that goes through. */
  readonly rows: readonly CostRow[];
  /** Where invalidations wait for one that serves many: the reads of 4 KiB that it took to see one. */
  readonly deferral: { readonly reads: number; readonly report: RunReport } | undefined;
}

/** Runs it. The same question is run once. @throws MachineError for a machine that cannot exist */
export class ModelRunner {
  readonly #runs = new Map<string, ModelRun>();
  readonly #times = new Map<ModelRun, CostTime[]>();

  run(question: ModelQuestion): ModelRun {
    const scenario = toScenario(question);
    const key = JSON.stringify(scenario, (_key, value: unknown) =>
      typeof value === 'bigint' ? `${value}n` : value,
    );
    const known = this.#runs.get(key);
    if (known !== undefined) return known;
    const run = runCounted(scenario);
    this.#runs.set(key, run);
    return run;
  }

  /** The time of reads of each size that goes through, with the constants of its machine. */
  times(run: ModelRun, preset: CostPreset): CostTime[] {
    const times = this.#times.get(run) ?? timesOf(run, preset);
    this.#times.set(run, times);
    return times;
  }
}

function runCounted(scenario: Scenario): ModelRun {
  const counted = count(scenario);
  const { report, platform, architecture } = counted;
  const { hasBusOffset, steps } = platform.dma;
  const run = {
    scenario,
    report,
    dma: { hasBusOffset, steps },
    isRestricted: platform.hasRestrictedMemoryAccess === true,
    secure: scenario.guest.secure ? (architecture.secure ?? '') : '',
    bouncePool: platform.bouncePool?.size ?? 0,
    deferral: undefined,
  };
  if (!isServed(report)) return { ...run, rows: rowsThatWork(scenario) };
  // The first read is there for what only a first one costs.
  const [, ...rows] = counted.rows;
  return withDeferral({ ...run, rows });
}

// An invalidation that serves many unmaps shows in none of a few reads: each has its share of it.
function withDeferral(run: ModelRun): ModelRun {
  const { report, rows, scenario } = run;
  const [first] = rows;
  const { unmaps, commands } = first?.iommu ?? { unmaps: 0, commands: 0 };
  if (report.evidence.entriesDeferred === 0 || unmaps === 0 || commands > 0) return run;
  const reads = Math.ceil(IOVA_FQ_SIZE / unmaps);
  const many = readsOf(scenario, 4096, reads);
  const end = count(many).report;
  const { iommu } = end.counters.workload;
  const share = iommu.commands / iommu.unmaps;
  return {
    ...run,
    deferral: { reads, report: end },
    rows: rows.map((row) => ({
      ...row,
      iommu: { ...row.iommu, commands: row.iommu.commands + row.iommu.unmaps * share },
    })),
  };
}

// From runs of their own.
function timesOf({ scenario, rows }: ModelRun, preset: CostPreset): CostTime[] {
  return rows.flatMap(({ size }) => {
    const report = runScenario(readsOf(scenario, size, 4), { disk: DISK });
    const costs = estimateCosts(report, preset);
    if (costs === undefined) return [];
    const { perRequest, throughput, dominates, assumedShare } = costs;
    // A large read is several requests.
    const each = report.data.requests / 4;
    const ns = {
      low: perRequest.low * each,
      mid: perRequest.mid * each,
      high: perRequest.high * each,
    };
    const { what } = COST_ITEMS[dominates];
    return [{ size, ns, throughput, dominates: { name: dominates, what }, assumedShare }];
  });
}

function readsOf(scenario: Scenario, size: number, times: number): Scenario {
  const read = { offset: 0, length: size, block: size };
  return { ...scenario, workload: Array<WorkloadOperation>(times).fill({ read }) };
}

function isServed({ negotiated, data }: RunReport): boolean {
  const isWrong = data.bytesReadWrong > 0 || data.imageBytesWrong > 0;
  return negotiated !== null && data.completed === data.requests && data.requests > 0 && !isWrong;
}

// Where not all reads go through, each size by itself: a window can be too small for the large ones.
function rowsThatWork(scenario: Scenario): CostRow[] {
  return READ_SIZES.flatMap((size) => {
    const { report, rows } = count(readsOf(scenario, size, 1));
    return isServed(report) ? rows : [];
  });
}

/** A run, and what each of its operations made the platform count. */
function count(scenario: Scenario): {
  report: RunReport;
  platform: Platform;
  architecture: Architecture;
  rows: CostRow[];
} {
  const architecture = architectures.find(({ id }) => id === scenario.machine.arch);
  if (architecture === undefined) {
    throw new ModelError('E_MACHINE', `no architecture "${scenario.machine.arch}"`);
  }
  const counter = new RequestCounter();
  const watched: Architecture = {
    ...architecture,
    build: (options) => {
      const platform = architecture.build(options);
      counter.platform = platform;
      return platform;
    },
  };
  const report = runScenario(scenario, {
    disk: DISK,
    tracer: new Tracer(counter),
    architectures: [watched],
  });
  // The run has built it.
  const platform = counter.platform as Platform;
  return { report, platform, architecture, rows: counter.rows(scenario) };
}

/** What one request made the platform count. */
interface RequestCounts {
  readonly length: number;
  readonly before: PlatformCounters;
  after: PlatformCounters;
  segments: number;
}

/** Asks the platform for its counters where the driver begins a request, and where that is done. */
class RequestCounter {
  platform: Platform | undefined;
  readonly #requests: RequestCounts[] = [];
  #isInside = false;

  emit({ name, phase, args }: TraceEvent): void {
    const request = this.#requests.at(-1);
    if (name === 'blk_request' && this.platform !== undefined) {
      const now = this.platform.counters();
      this.#isInside = phase === 'begin';
      if (this.#isInside) {
        const length = Number(args.length ?? 0);
        this.#requests.push({ length, before: now, after: now, segments: 0 });
      } else if (request !== undefined) request.after = now;
    } else if (name === 'virtqueue_pop' && this.#isInside && request !== undefined) {
      // Header and status are not data.
      request.segments = Number(args.in_num) + Number(args.out_num) - 2;
    }
  }

  /** Requests added up to the reads that they were made for. */
  rows(scenario: Scenario): CostRow[] {
    const left = [...this.#requests];
    return scenario.workload.map((operation) => {
      const size = 'read' in operation ? operation.read.length : operation.write.length;
      const own: RequestCounts[] = [];
      for (let bytes = 0; bytes < size && left.length > 0; ) {
        const request = left.shift() as RequestCounts;
        own.push(request);
        bytes += request.length || size;
      }
      const sum = (of: (counters: PlatformCounters) => number): number =>
        own.reduce((total, { before, after }) => total + of(after) - of(before), 0);
      return {
        size,
        requests: own.length,
        segments: own.reduce((total, { segments }) => total + segments, 0),
        hcalls: sum(({ hcalls }) => Object.values(hcalls).reduce((all, calls) => all + calls, 0)),
        iommu: {
          maps: sum(({ iommu }) => iommu.maps),
          unmaps: sum(({ iommu }) => iommu.unmaps),
          commands: sum(({ iommu }) => iommu.commands),
        },
        translations: sum(({ translations }) => translations),
        bytesCopied: sum(({ bytesBounced }) => bytesBounced),
      };
    });
  }
}
