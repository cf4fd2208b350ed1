/** Runs the model of a machine that was described, and counts what reads of three sizes cost. */
import { type TraceEvent, Tracer } from '@pinhole/base';
import { COST_ITEMS } from '../costs/constants.js';
import { estimateCosts } from '../costs/estimate.js';
import type { CostPreset } from '../costs/types.js';
import type { DiskSource } from '../disk.js';
import type { RunReport } from '../report.js';
import { runScenario } from '../run.js';
import { parseScenario } from '../scenario.js';
import type { Scenario, Transfer } from '../scenario-config.js';
import type { CostRow, CostTime } from './explanation.js';
import type { DeviceFacts, MachineFacts } from './facts.js';

/** The reads that are counted. Bytes. */
export const READ_SIZES: readonly number[] = [4096, 65536, 2 ** 20];

const SECTOR = 512;

/** Cheap to make; each sector differs from its neighbours. */
const DISK: DiskSource = {
  size: 2 ** 20 + 16 * 4096,
  read(offset, into) {
    for (let at = 0; at < into.length; at += SECTOR) {
      into.fill(((offset + at) / SECTOR) % 251, at, at + SECTOR);
    }
  },
};

/** What a run showed. */
export interface ModelRun {
  readonly scenario: Scenario;
  readonly report: RunReport;
  /** One for each of {@link READ_SIZES} that goes through. */
  readonly rows: readonly CostRow[];
}

/** What of a machine an answer is asked for. */
export interface ModelQuestion {
  readonly machine: MachineFacts;
  readonly device: DeviceFacts;
  readonly kernel: string;
  readonly iommuPlatform: boolean;
  readonly qemu: '7.2' | '10.0';
  /** `path=value`, as `--set` has it. */
  readonly set: readonly string[];
}

/** The scenario of a pseries machine with one block device in place of the one asked about. */
export function toScenario(question: ModelQuestion): Scenario {
  const { machine, device, kernel, iommuPlatform, qemu, set } = question;
  const bridge = machine.bridges.find(({ index }) => index === device.bridge);
  const reads = [4096, ...READ_SIZES].map((block, at) => ({
    read: { offset: at * 4096, length: block, block },
  }));
  const document = {
    machine: {
      arch: 'pseries',
      memory: machine.memory,
      maxMemory: machine.maxMemory,
      qemu,
      type: machine.machineType,
      tceHandler: machine.accel === 'kvm' ? 'kvm' : 'qemu',
      ddw: bridge?.ddw,
      dmaWindowSize: bridge?.dmaWindowSize,
      dmaWindowAddress: u64(bridge?.dmaWindowAddress),
      dma64WindowAddress: u64(bridge?.dma64WindowAddress),
      pageSizes: u64(bridge?.pageSizes),
      limitedAddressMode: bridge?.limitedAddressMode,
    },
    guest: {
      kernel,
      secure: machine.confidential?.kind === 'pef',
      cmdline: machine.kernelParameters,
    },
    devices: [
      {
        type: 'virtio-blk',
        iommuPlatform,
        packed: device.packed,
        indirect: device.indirect,
        eventIdx: device.eventIdx,
      },
    ],
    workload: reads,
  };
  return parseScenario(JSON.stringify(document), { file: 'the machine described', set });
}

/** Whether a kernel parameter is there: `disable_ddw`, or `swiotlb=force` with its value. */
export function hasParameter(machine: MachineFacts, name: string): boolean {
  return machine.kernelParameters.split(/\s+/).includes(name);
}

/** Runs it. The same question is run once. @throws MachineError for a machine that cannot exist */
export class ModelRunner {
  readonly #runs = new Map<string, ModelRun>();

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
}

function runCounted(scenario: Scenario): ModelRun {
  const counter = new RequestCounter();
  const report = runOnce(scenario, counter);
  if (!isServed(report)) return { scenario, report, rows: rowsThatWork(scenario) };
  const isBounced = report.counters.workload.bytesBounced > 0;
  // The first read is there for what only a first one costs.
  const [, ...rows] = counter.rows(scenario);
  return {
    scenario,
    report,
    rows: isBounced ? rows.map((row) => ({ ...row, bytesCopied: copies(scenario, row) })) : rows,
  };
}

/** The time of reads of each size that goes through, from runs of their own. */
export function timesOf({ scenario, rows }: ModelRun, preset: CostPreset): CostTime[] {
  return rows.flatMap(({ size }) => {
    const read = { offset: 0, length: size, block: size };
    const report = runOnce({ ...scenario, workload: Array<{ read: Transfer }>(4).fill({ read }) });
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

function isServed({ negotiated, data }: RunReport): boolean {
  const isWrong = data.bytesReadWrong > 0 || data.imageBytesWrong > 0;
  return negotiated !== null && data.completed === data.requests && data.requests > 0 && !isWrong;
}

// Where not all reads go through, each size by itself: a window can be too small for the large ones.
function rowsThatWork(scenario: Scenario): CostRow[] {
  return READ_SIZES.flatMap((size) => {
    const alone = { ...scenario, workload: [{ read: { offset: 0, length: size, block: size } }] };
    const counter = new RequestCounter();
    return isServed(runOnce(alone, counter)) ? counter.rows(alone) : [];
  });
}

// The run counts copies only in all, so each size gets one.
function copies(scenario: Scenario, row: CostRow): number {
  const read = { offset: 0, length: row.size, block: row.size };
  return runOnce({ ...scenario, workload: [{ read }] }).counters.workload.bytesBounced;
}

function runOnce(scenario: Scenario, counter?: RequestCounter): RunReport {
  return runScenario(scenario, {
    disk: DISK,
    ...(counter === undefined ? {} : { tracer: new Tracer(counter) }),
  });
}

/** Counts hypercalls and translations request by request. */
class RequestCounter {
  readonly #requests: { length: number; hcalls: number; translations: number; segments: number }[] =
    [];
  #isInside = false;

  emit({ name, phase, args }: TraceEvent): void {
    if (name === 'blk_request') {
      this.#isInside = phase === 'begin';
      const length = Number(args.length ?? 0);
      if (this.#isInside) this.#requests.push({ length, hcalls: 0, translations: 0, segments: 0 });
      return;
    }
    const request = this.#isInside ? this.#requests.at(-1) : undefined;
    if (request === undefined) return;
    if (name === 'hcall' && phase === 'begin') request.hcalls += 1;
    else if (name === 'spapr_iommu_xlate') request.translations += 1;
    // Header and status are not data.
    else if (name === 'virtqueue_pop')
      request.segments = Number(args.in_num) + Number(args.out_num) - 2;
  }

  /** Requests added up to the reads that they were made for. */
  rows(scenario: Scenario): CostRow[] {
    const left = [...this.#requests];
    return scenario.workload.map((operation) => {
      const size = 'read' in operation ? operation.read.length : operation.write.length;
      const row = { size, requests: 0, segments: 0, hcalls: 0, translations: 0, bytesCopied: 0 };
      for (let bytes = 0; bytes < size && left.length > 0; row.requests += 1) {
        const request = left.shift();
        bytes += request?.length ?? size;
        row.hcalls += request?.hcalls ?? 0;
        row.translations += request?.translations ?? 0;
        row.segments += request?.segments ?? 0;
      }
      return row;
    });
  }
}

function u64(value: bigint | undefined): string | undefined {
  return value === undefined ? undefined : `0x${value.toString(16)}`;
}
