import {
  createRng,
  type Gpa,
  hex,
  invariant,
  ModelError,
  NO_TRACE,
  type Tracer,
} from '@pinhole/base';
import {
  createPhysicalDmaOps,
  findKernelProfile,
  findPolicy,
  formatStep,
  type KernelProfile,
  probeVirtioBlk,
  type VirtioDmaPolicy,
} from '@pinhole/guest';
import { type DmaOps, type DmaSpace, HypervisorView } from '@pinhole/memory';
import { type VhostCounters, type VhostSettings, VirtioBlk } from '@pinhole/qemu';
import {
  connectPciInterrupts,
  createPciTransport,
  createVirtioPci,
  featureNames,
  hasFeature,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_ID_BLOCK,
  type VirtioDeviceCore,
  type VirtioTransport,
} from '@pinhole/virtio';
import type { Architecture, DeviceReach, Platform, PlatformCounters } from './architecture.js';
import { architectureNames, architectures } from './architectures/index.js';
import { CopyOnWriteDisk, createSeededDisk, type DiskSource } from './disk.js';
import { MachineError } from './errors.js';
import { type AddressKind, describeEvidence } from './evidence.js';
import { GivenMemory, WatchedMemory, watchDmaOps, watchSpace } from './given-memory.js';
import { judge, type RunFacts, type RunReport } from './report.js';
import type { DeviceConfig, Scenario } from './scenario-config.js';
import { describeVhost } from './vhost-report.js';
import { checkWorkload, emptyResult, runWorkload, type WorkloadResult } from './workload.js';

/** Options of {@link runScenario}. */
export interface RunOptions {
  /** The disk; only read. Default: one that the scenario's seed determines. */
  readonly disk?: DiskSource;
  readonly tracer?: Tracer;
  /** Where `machine.arch` is looked up. Default: {@link architectures}. */
  readonly architectures?: readonly Architecture[];
}

/**
 * Builds the machine, boots its guest, runs the workload and reports.
 * @throws MachineError `E_MACHINE` for a machine that cannot exist, `E_WORKLOAD` for a workload
 * that does not fit the disk. What goes wrong inside the machine is in the report.
 */
export function runScenario(scenario: Scenario, options: RunOptions = {}): RunReport {
  const tracer = options.tracer ?? NO_TRACE;
  const source = options.disk ?? createSeededDisk(scenario.seed);
  checkWorkload(scenario.workload, source.size);
  const device = scenario.devices[0];
  const kernel = findKernelProfile(scenario.guest.kernel);
  const policy = findPolicy(scenario.guest.policy);
  const known = options.architectures ?? architectures;
  const architecture = known.find(({ id }) => id === scenario.machine.arch);
  if (architecture === undefined) {
    throw new MachineError('E_MACHINE', [
      {
        path: 'machine.arch',
        message: `expected ${architectureNames(known)}, found "${scenario.machine.arch}"`,
      },
    ]);
  }
  if (device === undefined || kernel === undefined || policy === undefined) {
    throw new MachineError('E_SCENARIO', [
      { path: '', message: 'expected a scenario that parseScenario returned' },
    ]);
  }
  const run = new ScenarioRun(
    scenario,
    buildPlatform(architecture, scenario, kernel, tracer),
    tracer,
  );
  return run.run(device, kernel, policy, source);
}

function buildPlatform(
  architecture: Architecture,
  scenario: Scenario,
  kernel: KernelProfile,
  tracer: Tracer,
): Platform {
  try {
    const { machine, guest, seed } = scenario;
    return architecture.build({ machine, guest, kernel, rng: createRng(seed), tracer });
  } catch (error) {
    if (!(error instanceof ModelError)) throw error;
    const named = error.details.path;
    const path = typeof named === 'string' ? named : 'machine';
    throw new MachineError('E_MACHINE', [{ path, message: error.message }], { cause: error });
  }
}

/** Default of `queue-size`. [qemu v7.2 hw/block/vhost-user-blk.c vhost_user_blk_properties] */
const VHOST_USER_BLK_QUEUE_SIZE = 128;

/** Distinct pages are counted up to this many. */
const MOST_PAGES = 65_536;

/** What the platform counts, and the device. */
type RunCounters = PlatformCounters & { readonly kicks: number; readonly interrupts: number };

// Where the guest's driver says what it unmapped, that counts: the unmap may hold later.
function entriesAtEnd(
  setup: PlatformCounters,
  end: PlatformCounters,
): { entriesLeft: number; entriesDeferred: number } {
  const maps = end.iommu.maps - setup.iommu.maps;
  const left =
    maps === 0 ? end.tcesLive - setup.tcesLive : maps - (end.iommu.unmaps - setup.iommu.unmaps);
  return { entriesLeft: Math.max(0, left), entriesDeferred: end.pagesStale ?? 0 };
}

function connectPci(core: VirtioDeviceCore): VirtioTransport {
  const fn = createVirtioPci({ device: core, mode: 'modern', name: '0000:00:01.0' });
  const plugged = createPciTransport(fn, { interrupts: connectPciInterrupts(fn) });
  invariant(plugged.ok, 'run: a modelled function is a virtio function');
  return plugged.transport;
}

class ScenarioRun {
  readonly #scenario: Scenario;
  readonly #platform: Platform;
  readonly #tracer: Tracer;
  readonly #given: GivenMemory;
  readonly #warnings: string[] = [];
  #reach: DeviceReach = { addressable: 0, plaintext: 0 };
  #handsOut: AddressKind = 'physical';
  #decision = { dmaOps: 'none', because: 'the driver did not get that far' };

  constructor(scenario: Scenario, platform: Platform, tracer: Tracer) {
    this.#scenario = scenario;
    this.#platform = platform;
    this.#tracer = tracer;
    this.#given = new GivenMemory(platform.bouncePool);
  }

  run(
    device: DeviceConfig,
    kernel: KernelProfile,
    policy: VirtioDmaPolicy,
    source: DiskSource,
  ): RunReport {
    const platform = this.#platform;
    const disk = new CopyOnWriteDisk(source);
    const vhost = this.#vhost(device);
    const hasBus = device.iommuPlatform && (vhost === undefined || platform.iommu !== undefined);
    const usedSpace = (hasBus ? platform.busSpace : undefined) ?? platform.systemMemory;
    const blk = new VirtioBlk({
      backend: disk,
      memory: new WatchedMemory(platform.hypervisorMemory, this.#given, usedSpace.isIdentity),
      ...this.#watchedSpaces(),
      iommuPlatform: device.iommuPlatform,
      indirect: device.indirect,
      eventIdx: device.eventIdx,
      packed: device.packed,
      numQueues: device.queues,
      ...(vhost === undefined ? {} : { vhost, queueSize: VHOST_USER_BLK_QUEUE_SIZE }),
      // The device can reach most when all of a request is mapped.
      onKick: () => this.#sampleReach(usedSpace),
      tracer: this.#tracer,
    });
    const probed = probeVirtioBlk({
      transport: (platform.connect ?? connectPci)(blk.core),
      memory: platform.guestMemory,
      pages: platform.pages,
      smpCacheBytes: platform.smpCacheBytes ?? 64,
      hasRestrictedMemoryAccess: () => platform.hasRestrictedMemoryAccess ?? false,
      mapError: kernel.vring.mapError,
      unknownFeatures: kernel.vring.unknownFeatures,
      chooseDma: (features) => this.#chooseDma(features, policy),
      tracer: this.#tracer,
    });
    const setup = platform.counters();
    const { kicks, interrupts } = blk.core.notifications;
    const vhostSetup = blk.vhost?.counters;
    const expected = new CopyOnWriteDisk(source);
    const { guestMemory: memory, pages } = platform;
    const privatePagesExposed = new Set<Gpa>();
    const data = probed.ok
      ? runWorkload(this.#scenario.workload, {
          driver: probed.driver,
          memory,
          pages,
          ...(platform.observer === undefined ? {} : { hypervisorMemory: platform.observer }),
          disk,
          expected,
          seed: this.#scenario.seed,
          onExposed: (gpa) => {
            if (privatePagesExposed.size < MOST_PAGES)
              privatePagesExposed.add(gpa - (gpa % pages.pageSize));
          },
        })
      : emptyResult();
    const end = platform.counters();
    platform.settle?.();
    const driver = probed.ok ? probed.driver : undefined;
    const facts: RunFacts = {
      schemaVersion: 1,
      title: this.#scenario.title,
      machine: this.#describeMachine(device.iommuPlatform, source.size),
      negotiated:
        driver === undefined
          ? null
          : {
              features: hex(driver.features),
              names: featureNames(driver.features, VIRTIO_ID_BLOCK),
            },
      refusal: probed.ok ? null : probed.message,
      decision: {
        ...this.#decision,
        device: blk.spaceBecause,
        steps: platform.dma.steps.map(formatStep),
      },
      warnings: this.#warnings,
      deviceErrors: blk.core.errors,
      data,
      counters: this.#count(
        { ...setup, kicks, interrupts },
        { ...end, ...blk.core.notifications },
        data,
        driver?.dataSegments ?? 0,
        blk,
        vhostSetup,
      ),
      reach: this.#reach,
      evidence: describeEvidence({
        given: this.#given,
        guest: this.#handsOut,
        device: usedSpace.isIdentity ? 'physical' : 'bus',
        view:
          platform.hypervisorMemory instanceof HypervisorView
            ? platform.hypervisorMemory
            : undefined,
        privatePagesExposed,
        ...(data.hung > 0 ? { entriesLeft: 0, entriesDeferred: 0 } : entriesAtEnd(setup, end)),
      }),
    };
    return { ...facts, verdict: judge(facts) };
  }

  #vhost(device: DeviceConfig): VhostSettings | undefined {
    if (device.vhost === 'off') return undefined;
    const { iommu, busSpace } = this.#platform;
    const { machine } = this.#scenario;
    if (iommu === undefined && machine.iommu !== 'none' && busSpace?.isIdentity === false) {
      throw new MachineError('E_MACHINE', [
        {
          path: 'devices[0].vhost',
          message: `expected "off" behind ${machine.iommu}: this architecture does not give its IOMMU to vhost`,
        },
      ]);
    }
    return {
      ...(iommu === undefined ? {} : { iommu }),
      watch: (space) => watchSpace(space, this.#given),
    };
  }

  #watchedSpaces(): { systemMemory: DmaSpace; busSpace?: DmaSpace } {
    const { systemMemory, busSpace } = this.#platform;
    const watched = watchSpace(systemMemory, this.#given);
    if (busSpace === undefined) return { systemMemory: watched };
    // A bus without anything of its own is system memory, and must be seen to be.
    const isSame = busSpace === systemMemory;
    const bus = isSame ? watched : watchSpace(busSpace, this.#given);
    return { systemMemory: watched, busSpace: bus };
  }

  #chooseDma(features: bigint, policy: VirtioDmaPolicy): DmaOps {
    const { dma, hook, guestMemory, pages } = this.#platform;
    const hasAccessPlatform = hasFeature(features, VIRTIO_F_ACCESS_PLATFORM);
    const { alwaysDmaApi } = this.#platform;
    const decision =
      alwaysDmaApi !== undefined && !hasAccessPlatform
        ? { ops: 'bus' as const, because: `no ACCESS_PLATFORM, but ${alwaysDmaApi}: the DMA API` }
        : policy.vringUseDmaApi({
            hasAccessPlatform,
            archWantsDmaOps: hook,
            hasBusOffset: (hasAccessPlatform ? dma : hook.dma).hasBusOffset,
            busHasOffset: dma.hasBusOffset,
          });
    const api = decision.ops === 'hook' ? hook.dma : dma;
    if ('warning' in decision && decision.warning !== undefined) {
      this.#warnings.push(decision.warning);
      if (this.#tracer.on) {
        this.#tracer.event('guest', 'guest_warn', { message: decision.warning });
      }
    }
    const isPhysical = decision.ops === 'physical';
    this.#handsOut = isPhysical ? 'physical' : 'bus';
    const ops = isPhysical ? createPhysicalDmaOps({ memory: guestMemory, pages }) : api.ops;
    this.#decision = {
      dmaOps: ops.name,
      because: isPhysical ? decision.because : `${decision.because}; ${api.because}`,
    };
    const isBounced = !isPhysical && api.isBounced;
    return watchDmaOps(ops, this.#given, isBounced);
  }

  #sampleReach(space: DmaSpace): void {
    const now = this.#platform.reach(space);
    this.#reach = {
      addressable: Math.max(this.#reach.addressable, now.addressable),
      plaintext: Math.max(this.#reach.plaintext, now.plaintext),
    };
  }

  #describeMachine(flag: boolean, diskSize: number): RunReport['machine'] {
    const { machine, guest } = this.#scenario;
    return {
      arch: machine.arch,
      memory: machine.memory,
      qemu: machine.qemu,
      kernel: guest.kernel,
      policy: guest.policy,
      secure: guest.secure,
      tceHandler: machine.tceHandler,
      flag,
      diskSize,
    };
  }

  #count(
    setup: RunCounters,
    end: RunCounters,
    data: WorkloadResult,
    dataSegments: number,
    blk: VirtioBlk,
    vhostSetup: VhostCounters | undefined,
  ): RunReport['counters'] {
    const hcalls: Record<string, number> = {};
    for (const [name, count] of Object.entries(end.hcalls)) {
      const during = count - (setup.hcalls[name] ?? 0);
      if (during > 0) hcalls[name] = during;
    }
    const requests = Math.max(1, data.requests);
    const total = Object.values(hcalls).reduce((sum, count) => sum + count, 0);
    const translations = end.translations - setup.translations;
    return {
      setup: {
        hcalls: setup.hcalls,
        translations: setup.translations,
        iommu: setup.iommu,
        tcesWritten: setup.tcesWritten ?? 0,
      },
      workload: {
        hcalls,
        translations,
        iommu: {
          maps: end.iommu.maps - setup.iommu.maps,
          unmaps: end.iommu.unmaps - setup.iommu.unmaps,
          commands: end.iommu.commands - setup.iommu.commands,
        },
        bytesBounced: end.bytesBounced - setup.bytesBounced,
        tcesWritten: (end.tcesWritten ?? 0) - (setup.tcesWritten ?? 0),
        kicks: end.kicks - setup.kicks,
        interrupts: end.interrupts - setup.interrupts,
      },
      dataSegments,
      hcallsPerRequest: Object.fromEntries(
        Object.entries(hcalls).map(([name, count]) => [name, count / requests]),
      ),
      hcallsPerRequestTotal: total / requests,
      translationsPerRequest: translations / requests,
      tcesLive: end.tcesLive,
      tcesPeak: end.tcesPeak,
      bytesShared: end.bytesShared,
      ciphertextBytesRead: end.ciphertextBytesRead,
      privateBytesWriteRefused: end.privateBytesWriteRefused,
      strayBytesRead: this.#given.strayBytesRead,
      strayBytesWritten: this.#given.strayBytesWritten,
      bytesLost: blk.mapper.bytesLost,
      vhost: describeVhost(blk.vhost, vhostSetup, requests),
    };
  }
}
