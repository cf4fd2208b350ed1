import type { Tracer } from '@pinhole/base';
import type { DmaSpace, GuestMemory } from '@pinhole/memory';
import {
  type ConfigPart,
  type DeviceHooks,
  type DeviceQueue,
  featureBits,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
  VirtioDeviceCore,
} from '@pinhole/virtio';
import { type BufferMapper, type GlobalBounce, QemuMapper } from './qemu-mapper.js';
import { VhostDevice, type VhostSettings } from './vhost/vhost-device.js';
import { chooseDmaSpace } from './virtio-bus.js';

/** What every virtio device is given, whatever its type. */
export interface VirtioDeviceSettings {
  /** Names the device in traces. */
  readonly id?: string;
  /** Guest memory as QEMU sees it. */
  readonly memory: GuestMemory;
  readonly systemMemory: DmaSpace;
  /** The bus-master space of the PCI function. */
  readonly busSpace?: DmaSpace;
  /** `iommu_platform=on`. */
  readonly iommuPlatform: boolean;
  /** `indirect_desc`, `event_idx`: on by default. */
  readonly indirect?: boolean;
  readonly eventIdx?: boolean;
  /** `packed`: off by default. */
  readonly packed?: boolean;
  /** QEMU's bounce buffer, one a process. */
  readonly bounce?: GlobalBounce;
  /** Called before each kick is served, with the space that the device works in. */
  readonly onKick?: (space: DmaSpace) => void;
  readonly tracer?: Tracer;
}

/** For types that touch their queues only when kicked: these can have another data plane. */
export interface VhostCapableSettings extends VirtioDeviceSettings {
  /** vhost's. Default: QEMU's own. */
  readonly vhost?: VhostSettings;
}

/** For functions that ask which fields of a configuration there are. */
export const ALL_FEATURES: bigint = 2n ** 64n - 1n;

/**
 * Requests that a kick can bring: as many as ring indices count. Deviates: QEMU goes on for as long as
 * the ring says that there is more.
 */
const MAX_A_KICK = 65_536;

/** What a type of device adds. */
export interface VirtioDeviceType {
  /** The type, such as `VIRTIO_ID_BLOCK`. */
  readonly deviceId: number;
  /** Names the device in traces when nobody else does. */
  readonly defaultId: string;
  /** The features of the type, by bit number; those of rings and transport are added. */
  readonly features: readonly number[];
  /** Those of them that only a legacy driver sees. */
  readonly legacyFeatures?: readonly number[];
  /** The configuration space; the device may change it in place. */
  readonly config?: Uint8Array;
  /** The numbers in it. */
  readonly configFields?: readonly ConfigPart[];
  readonly queues: readonly {
    readonly maxSize: number;
    /** The driver kicked. */
    readonly handleOutput: (queue: DeviceQueue, index: number) => void;
  }[];
  /** What traces give as the size of a request. */
  readonly elementSize?: number;
  /** See `VirtioDeviceOptions`. */
  readonly usesEventFds?: boolean;
  readonly hooks?: DeviceHooks;
}

/** A device on its bus. */
export interface PluggedDevice {
  /** Where a transport, and so a driver, meets the device. */
  readonly core: VirtioDeviceCore;
  /** The address space that the device works in, and why. */
  readonly space: DmaSpace;
  readonly spaceBecause: string;
  readonly mapper: BufferMapper;
  /** Of a device that vhost serves. */
  readonly vhost?: VhostDevice;
}

/**
 * Plugs a device of some type into the bus. [qemu v7.2 hw/virtio/virtio-bus.c
 * virtio_bus_device_plugged]
 */
export function plugVirtioDevice(
  settings: VhostCapableSettings,
  type: VirtioDeviceType,
): PluggedDevice {
  const { busSpace, onKick, tracer } = settings;
  const id = settings.id ?? type.defaultId;
  const vhost =
    settings.vhost === undefined
      ? undefined
      : new VhostDevice({
          ...settings.vhost,
          id,
          memory: settings.memory,
          systemMemory: settings.systemMemory,
          iommuPlatform: settings.iommuPlatform,
          kick: (index) => work.kick(index),
          queues: () => type.queues.map((_, index) => core.queueSetup(index)),
          features: () => core.features,
          ...(tracer === undefined ? {} : { tracer }),
        });
  const { space, because } =
    vhost ??
    chooseDmaSpace({
      iommuPlatform: settings.iommuPlatform,
      systemMemory: settings.systemMemory,
      ...(busSpace === undefined ? {} : { transportSpace: busSpace }),
    });
  const mapper = vhost?.mapper ?? new QemuMapper(space, settings.bounce ?? { isInUse: false });
  const work = new KickWork((index) => {
    const queue = core.queues[index];
    if (queue === undefined || !queue.isConfigured || core.isBroken) return;
    onKick?.(space);
    queue.limitPops(MAX_A_KICK);
    const handle = (served: DeviceQueue): void => type.queues[index]?.handleOutput(served, index);
    if (vhost === undefined) handle(queue);
    else vhost.serve(queue, index, handle);
  });
  const queues = type.queues.map(({ maxSize }, index) => ({
    maxSize,
    handleOutput: (): void => work.kick(index),
  }));
  const core: VirtioDeviceCore = new VirtioDeviceCore({
    deviceId: type.deviceId,
    id,
    features: featureBits(...type.features, ...commonFeatures(settings)),
    legacyFeatures: featureBits(...(type.legacyFeatures ?? [])),
    memory: settings.memory,
    space,
    mapper,
    queues,
    ...(type.config === undefined ? {} : { config: type.config }),
    ...(type.configFields === undefined ? {} : { configFields: type.configFields }),
    ...(type.elementSize === undefined ? {} : { elementSize: type.elementSize }),
    ...(type.usesEventFds === undefined ? {} : { usesEventFds: type.usesEventFds }),
    hooks: withVhost(type.hooks ?? {}, vhost),
    ...(tracer === undefined ? {} : { tracer }),
  });
  return {
    core,
    space,
    spaceBecause: because,
    mapper,
    ...(vhost === undefined ? {} : { vhost }),
  };
}

// A data plane of its own starts and stops with the device.
function withVhost(hooks: DeviceHooks, vhost: VhostDevice | undefined): DeviceHooks {
  if (vhost === undefined) return hooks;
  return {
    ...hooks,
    setStatus: (status) => {
      hooks.setStatus?.(status);
      vhost.setStatus(status);
    },
    resetQueue: (index) => {
      hooks.resetQueue?.(index);
      vhost.resetQueue(index);
    },
  };
}

/**
 * Serves the kicks of a device one after the other: QEMU takes up one that comes while it works
 * when it is done, never in the middle. Who is interrupted and kicks again does so in the middle
 * here, where both sides are one thread.
 */
class KickWork {
  readonly #serve: (index: number) => void;
  readonly #due = new Set<number>();
  #isRunning = false;

  constructor(serve: (index: number) => void) {
    this.#serve = serve;
  }

  kick(index: number): void {
    this.#due.add(index);
    if (this.#isRunning) return;
    this.#isRunning = true;
    try {
      for (const next of this.#due) {
        this.#due.delete(next);
        this.#serve(next);
      }
    } finally {
      this.#isRunning = false;
      this.#due.clear();
    }
  }
}

/** On a modern-only PCI function. [qemu v7.2 include/hw/virtio/virtio.h DEFINE_VIRTIO_COMMON_FEATURES] */
function commonFeatures(settings: VirtioDeviceSettings): number[] {
  const bits = [VIRTIO_F_VERSION_1, VIRTIO_F_RING_RESET];
  if (settings.indirect ?? true) bits.push(VIRTIO_RING_F_INDIRECT_DESC);
  if (settings.eventIdx ?? true) bits.push(VIRTIO_RING_F_EVENT_IDX);
  if (settings.packed ?? false) bits.push(VIRTIO_F_RING_PACKED);
  if (settings.iommuPlatform) bits.push(VIRTIO_F_ACCESS_PLATFORM);
  return bits;
}
