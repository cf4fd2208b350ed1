import { type Gpa, hi32, lo32 } from '@pinhole/base';
import type { GuestMemory } from '@pinhole/memory';
import { featureBit, VIRTIO_F_RING_RESET } from '../features.js';
import {
  CCW_CONFIG_SIZE,
  CCW_CU_TYPE,
  CCW_MAX_QUEUES,
  CCW_REV_MAX,
  Ccw,
  CcwSize,
  type ChannelDevice,
  type ChannelStatus,
} from './ccw-commands.js';
import type { PciInterrupts } from './pci-interrupts.js';
import { VIRTIO_QUEUE_MAX } from './queue-registers.js';
import type { InterruptHandler, QueueSetup, VirtioTransport } from './transport.js';

/** Bytes that the driver needs for payloads and indicators. */
export const CCW_AREA_SIZE = 1024;
/** Where in it what lies. */
const INDICATORS = 0;
const CONFIG_INDICATORS = 8;
const STATUS = 16;
const SUMMARY = 17;
const PAYLOAD = 32;
const CONFIG = 256;
/** A bit for each queue that there can be: 128 bytes. */
const ADAPTER_INDICATORS = 512;

/** [linux v6.1 arch/s390/include/uapi/asm/virtio-ccw.h KVM_VIRTIO_CCW_RING_ALIGN] */
const KVM_VIRTIO_CCW_RING_ALIGN = 4096;

/** See `createCcwTransport`. */
export interface CcwTransportOptions {
  /** Guest memory as the guest sees it. */
  readonly memory: GuestMemory;
  /**
   * `CCW_AREA_SIZE` bytes of it that the driver may use: below 2 GiB, where channel programs reach, and
   * shared by a protected guest. [linux v6.1 drivers/s390/cio/device_ops.c ccw_device_dma_zalloc]
   */
  readonly area: Gpa;
  /** Who delivers the interrupt. Without, `pollInterrupt` has to be called. */
  readonly interrupts?: Pick<PciInterrupts, 'onLine'>;
}

/** A transport, or why there is none. */
export type CcwTransportResult =
  | { readonly ok: true; readonly transport: VirtioTransport }
  | { readonly ok: false; readonly reason: 'bad'; readonly message: string };

/**
 * Drives a virtio device behind a subchannel, with the highest revision that it takes.
 * [linux v6.1 drivers/s390/virtio/virtio_ccw.c virtio_ccw_online, virtio_ccw_set_transport_rev]
 *
 * Deviates: one area for all payloads, where Linux allocates one a command, and for adapter indicators,
 * which Linux's devices share; revision 0, the legacy interface, is not tried.
 */
export function createCcwTransport(
  device: ChannelDevice,
  options: CcwTransportOptions,
): CcwTransportResult {
  const { cuType } = device.senseId;
  if (cuType !== CCW_CU_TYPE) {
    const found = cuType.toString(16);
    return { ok: false, reason: 'bad', message: `expected control unit type 3832, found ${found}` };
  }
  const { memory, area } = options;
  memory.fill(area, CCW_AREA_SIZE, 0);
  for (let revision = CCW_REV_MAX; revision > 0; revision -= 1) {
    memory.writeU16Be(area + PAYLOAD, revision);
    memory.writeU16Be(area + PAYLOAD + 2, 0);
    const status = device.start({
      code: Ccw.SET_VIRTIO_REV,
      address: area + PAYLOAD,
      count: CcwSize.REV_INFO,
    });
    if (status.ok) return { ok: true, transport: new CcwTransport(device, revision, options) };
    if (status.reason !== 'command-reject') break;
  }
  const message = 'Failed to register virtio device: no revision is taken';
  return { ok: false, reason: 'bad', message };
}

/** [linux v6.1 drivers/s390/virtio/virtio_ccw.c virtio_ccw_config_ops] */
class CcwTransport implements VirtioTransport {
  readonly deviceId: number;
  readonly isLegacy = false;
  readonly ringAlign: number = KVM_VIRTIO_CCW_RING_ALIGN;
  readonly #device: ChannelDevice;
  readonly #revision: number;
  readonly #memory: GuestMemory;
  readonly #area: Gpa;
  /** The host's cookies, by queue. */
  readonly #cookies = new Map<number, number>();
  #handler: InterruptHandler | undefined;
  /** Queues that were set up: no others are looked for. */
  #queues = 0;
  /** Queues were set up of which the host does not know where to indicate them. */
  #areIndicatorsDue = false;
  #hasAdapterInterrupts = false;
  /** The configuration as it was last read, and how much of it. */
  readonly #config: Uint8Array = new Uint8Array(CCW_CONFIG_SIZE);
  #configReady = 0;
  #generation = 0;

  constructor(device: ChannelDevice, revision: number, options: CcwTransportOptions) {
    this.deviceId = device.senseId.cuModel;
    this.#device = device;
    this.#revision = revision;
    this.#memory = options.memory;
    this.#area = options.area;
    options.interrupts?.onLine(() => this.pollInterrupt());
  }

  /**
   * Without RING_RESET, for which there is no command, whether the device offers it (QEMU 7.2 does) or not.
   * [linux v6.1 drivers/virtio/virtio_ring.c vring_transport_features]
   */
  readDeviceFeatures(): bigint {
    const [low, high] = [0, 1].map((index) => {
      this.#memory.writeU32Le(this.#area + PAYLOAD, 0);
      this.#memory.writeU8(this.#area + PAYLOAD + 4, index);
      const status = this.#start(Ccw.READ_FEAT, PAYLOAD, CcwSize.FEATURES);
      return status.ok ? BigInt(this.#memory.readU32Le(this.#area + PAYLOAD)) : 0n;
    }) as [bigint, bigint];
    return ((high << 32n) | low) & ~featureBit(VIRTIO_F_RING_RESET);
  }

  writeDriverFeatures(bits: bigint): void {
    for (const [index, word] of [lo32(bits), hi32(bits)].entries()) {
      this.#memory.writeU32Le(this.#area + PAYLOAD, word);
      this.#memory.writeU8(this.#area + PAYLOAD + 4, index);
      this.#start(Ccw.WRITE_FEAT, PAYLOAD, CcwSize.FEATURES);
    }
  }

  /** Without revision 2 the driver can only remember. */
  readStatus(): number {
    if (this.#revision >= 2) this.#start(Ccw.READ_STATUS, STATUS, CcwSize.STATUS);
    return this.#memory.readU8(this.#area + STATUS);
  }

  writeStatus(value: number): void {
    const old = this.#memory.readU8(this.#area + STATUS);
    this.#memory.writeU8(this.#area + STATUS, value);
    if (value === 0) {
      this.#start(Ccw.VDEV_RESET, undefined, 0);
      this.#cookies.clear();
      this.#queues = 0;
      this.#areIndicatorsDue = false;
      this.#hasAdapterInterrupts = false;
      return;
    }
    const status = this.#start(Ccw.WRITE_STATUS, STATUS, CcwSize.STATUS);
    if (!status.ok) this.#memory.writeU8(this.#area + STATUS, old);
  }

  queueMaxSize(index: number): number {
    if (index >= VIRTIO_QUEUE_MAX) return 0;
    this.#memory.writeU16Be(this.#area + PAYLOAD, index);
    this.#memory.writeU16Be(this.#area + PAYLOAD + 2, 0);
    const status = this.#start(Ccw.READ_VQ_CONF, PAYLOAD, CcwSize.VQ_CONFIG);
    return status.ok ? this.#memory.readU16Be(this.#area + PAYLOAD + 2) : 0;
  }

  /** [linux v6.1 drivers/s390/virtio/virtio_ccw.c virtio_ccw_setup_vq] */
  setupQueue(index: number, setup: QueueSetup): void {
    const at = this.#area + PAYLOAD;
    this.#queues = Math.min(Math.max(this.#queues, index + 1), VIRTIO_QUEUE_MAX);
    this.#areIndicatorsDue = true;
    this.#memory.writeU64Be(at, setup.desc);
    this.#memory.writeU32Be(at + 8, 0);
    this.#memory.writeU16Be(at + 12, index);
    this.#memory.writeU16Be(at + 14, setup.size);
    this.#memory.writeU64Be(at + 16, setup.avail);
    this.#memory.writeU64Be(at + 24, setup.used);
    this.#start(Ccw.SET_VQ, PAYLOAD, CcwSize.VQ_INFO);
  }

  /** There is no command for it. [VIRTIO v1.4 §4.3.4 "Features reserved for future use"] */
  resetQueue(_index: number): boolean {
    return false;
  }

  notifyQueue(index: number, data?: number): void {
    const cookie = this.#device.notify(data ?? index, this.#cookies.get(index) ?? 0);
    this.#cookies.set(index, cookie);
  }

  /** All that lies before is read as well. [linux v6.1 drivers/s390/virtio/virtio_ccw.c virtio_ccw_get_config] */
  readConfig(offset: number, into: Uint8Array): void {
    const end = offset + into.length;
    if (isConfig(offset, end) && this.#readConfig(end)) {
      into.set(this.#config.subarray(offset, end));
    } else into.fill(0xff);
  }

  /** All that lies before is written as well, as it was. [linux v6.1 drivers/s390/virtio/virtio_ccw.c virtio_ccw_set_config] */
  writeConfig(offset: number, from: Uint8Array): void {
    const end = offset + from.length;
    if (!isConfig(offset, end)) return;
    if (this.#configReady < offset && !this.#readConfig(offset)) return;
    this.#config.set(from, offset);
    this.#memory.write(this.#area + CONFIG, this.#config);
    this.#start(Ccw.WRITE_CONF, CONFIG, end);
  }

  /**
   * The device keeps none: "the complete configuration space is transmitted. This allows the driver to
   * compare the new configuration space with the old version, and keep a generation count internally".
   * A change shows when it is read, or interrupts. Deviates: Linux keeps no count.
   */
  configGeneration(): number {
    return this.#generation;
  }

  /** Reads as far as `end`. False: there is not so much. */
  #readConfig(end: number): boolean {
    if (!this.#start(Ccw.READ_CONF, CONFIG, end).ok) return false;
    const read = new Uint8Array(end);
    this.#memory.read(this.#area + CONFIG, read);
    const known = this.#config.subarray(0, Math.min(end, this.#configReady));
    if (known.some((byte, i) => byte !== read[i])) this.#generation += 1;
    this.#config.set(read);
    this.#configReady = Math.max(this.#configReady, end);
    return true;
  }

  onInterrupt(handler: InterruptHandler): void {
    this.#handler = handler;
  }

  /**
   * The summary is cleared before the queues' bits are looked at, and each of those before its queue is.
   * [linux v6.1 drivers/s390/virtio/virtio_ccw.c virtio_ccw_int_handler, virtio_airq_handler]
   */
  pollInterrupt(): boolean {
    this.#memory.writeU8(this.#area + SUMMARY, 0);
    let hasAny = false;
    for (let index = 0; index < this.#queues; index += 1) {
      if (!this.#takeBit(this.#bitOf(index))) continue;
      hasAny = true;
      this.#handler?.('queue', index);
    }
    if (!this.#takeBit(lowBit(CONFIG_INDICATORS, 0))) return hasAny;
    this.#generation += 1;
    this.#handler?.('config');
    return true;
  }

  /** Adapter indicators are counted from the left, classic ones from the right. */
  #bitOf(index: number): IndicatorBit | undefined {
    if (this.#hasAdapterInterrupts) {
      return { byte: ADAPTER_INDICATORS + Math.floor(index / 8), mask: 0x80 >> (index % 8) };
    }
    return index < CCW_MAX_QUEUES ? lowBit(INDICATORS, index) : undefined;
  }

  #takeBit(bit: IndicatorBit | undefined): boolean {
    if (bit === undefined) return false;
    const at = this.#area + bit.byte;
    const value = this.#memory.readU8(at);
    if ((value & bit.mask) === 0) return false;
    this.#memory.writeU8(at, value & ~bit.mask);
    return true;
  }

  /**
   * Adapter interrupts if the host has them, else classic ones. Queues are set up one after the other:
   * whatever else the driver asks for comes after the last of them.
   * [linux v6.1 drivers/s390/virtio/virtio_ccw.c virtio_ccw_find_vqs]
   */
  #registerIndicators(): void {
    this.#areIndicatorsDue = false;
    const { THININT_AREA } = CcwSize;
    const payload = this.#area + PAYLOAD;
    this.#memory.fill(this.#area + ADAPTER_INDICATORS, VIRTIO_QUEUE_MAX / 8, 0);
    this.#memory.fill(payload, THININT_AREA, 0);
    this.#memory.writeU64Be(payload, BigInt(this.#area + SUMMARY));
    this.#memory.writeU64Be(payload + 8, BigInt(this.#area + ADAPTER_INDICATORS));
    const status = this.#start(Ccw.SET_IND_ADAPTER, PAYLOAD, THININT_AREA, true);
    this.#hasAdapterInterrupts = status.ok;
    if (!status.ok) this.#register(Ccw.SET_IND, INDICATORS);
    this.#register(Ccw.SET_CONF_IND, CONFIG_INDICATORS);
  }

  #register(code: number, indicators: number): void {
    this.#memory.writeU64Be(this.#area + indicators, 0n);
    this.#memory.writeU64Be(this.#area + PAYLOAD, BigInt(this.#area + indicators));
    this.#start(code, PAYLOAD, CcwSize.INDICATORS);
  }

  #start(
    code: number,
    at: number | undefined,
    count: number,
    suppressesLength = false,
  ): ChannelStatus {
    const isForQueues = code === Ccw.READ_VQ_CONF || code === Ccw.SET_VQ;
    if (this.#areIndicatorsDue && !isForQueues) this.#registerIndicators();
    const address = at === undefined ? 0 : this.#area + at;
    return this.#device.start({ code, address, count, suppressesLength });
  }
}

/** A bit of the area. */
interface IndicatorBit {
  readonly byte: number;
  readonly mask: number;
}

/** Bit `index` of a big-endian value of 64 bits. */
function lowBit(value: number, index: number): IndicatorBit {
  return { byte: value + 7 - Math.floor(index / 8), mask: 1 << (index % 8) };
}

function isConfig(offset: number, end: number): boolean {
  return offset >= 0 && end <= CCW_CONFIG_SIZE;
}
