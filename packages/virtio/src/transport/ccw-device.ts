import { type Gpa, hi32, lo32 } from '@pinhole/base';
import type { GuestMemory } from '@pinhole/memory';
import type { VirtioDeviceCore } from '../device/device-core.js';
import type { SavedDevice } from '../device/device-state.js';
import { featureBits, VIRTIO_F_RING_RESET, VIRTIO_F_VERSION_1 } from '../features.js';
import {
  CCW_CU_TYPE,
  CCW_MAX_QUEUES,
  CCW_REV_MAX,
  Ccw,
  CcwSize,
  type ChannelCommand,
  type ChannelDevice,
  type ChannelStatus,
} from './ccw-commands.js';
import { VIRTIO_QUEUE_MAX } from './queue-registers.js';

/** See `createVirtioCcw`. */
export interface VirtioCcwOptions {
  readonly device: VirtioDeviceCore;
  /** Guest memory as the channel subsystem sees it: of a protected guest, what is shared. */
  readonly memory: GuestMemory;
}

/** A virtio device behind a virtual subchannel. */
export interface VirtioCcwDevice extends ChannelDevice {
  /** Registers who hears of interrupts, the subchannel's and the adapter's, in place of whoever did before. */
  onInterrupt(handler: () => void): void;
  /** A reset of the whole machine: the subchannel is off and on again, no revision is set. */
  reset(): void;
  /** Subchannel and device at rest, as plain data. */
  save(): SavedVirtioCcw;
  /**
   * Goes on where such a device was saved.
   * @throws VirtioError `E_DEVICE_STATE`, `E_QUEUE_STATE`
   */
  restore(state: SavedVirtioCcw): void;
}

/** What has been saved of a subchannel and its device. [qemu hw/s390x/virtio-ccw.c vmstate_virtio_ccw_dev] */
export interface SavedVirtioCcw {
  /** -1: none is set. */
  readonly revision: number;
  /** How the driver hears of queues; it cannot change its mind before a reset. */
  readonly notification: 'none' | 'classic' | 'adapter';
  /** Where the indicators are; 0: nowhere. */
  readonly indicators: number;
  readonly configIndicators: number;
  /** Of adapter interrupts: the summary indicator, and the first queue's bit. */
  readonly summaryIndicator: number;
  readonly firstBit: number;
  readonly device: SavedDevice;
}

const EINVAL = -22;

/**
 * Puts a device behind a subchannel, with revisions 1 and 2 of the transport. One call is one channel
 * command and its end: there are no programs of several, no busy subchannel, no path management.
 * [VIRTIO v1.2 §4.3 "Virtio Over Channel I/O"] [qemu hw/s390x/virtio-ccw.c virtio_ccw_cb]
 *
 * Deviates: no revision 0, so every command before SET_VIRTIO_REV is rejected. Where QEMU falls short of
 * the specification this does not: READ_STATUS is rejected in revision 1, a revision with data always,
 * and the residual count of every command is right. Interruption subclasses have no effect.
 */
export function createVirtioCcw(options: VirtioCcwOptions): VirtioCcwDevice {
  // Reserved for future use. [VIRTIO v1.4 §4.3.4 "Features reserved for future use"]
  const removed = featureBits(VIRTIO_F_RING_RESET);
  const added = featureBits(VIRTIO_F_VERSION_1);
  // Channel I/O is s390x's: a driver that does not take VERSION_1 has all fields big-endian.
  options.device.plug({ added, removed, isBigEndianGuest: true });
  return new VirtioCcw(options);
}

const done = (residual: number): ChannelStatus => ({ ok: true, residual });
const REJECT: ChannelStatus = { ok: false, reason: 'command-reject' };
const CHECK: ChannelStatus = { ok: false, reason: 'program-check' };

/** Codes that are no command, nor TRANSFER IN CHANNEL as it must be. [qemu hw/s390x/css.c css_interpret_ccw] */
const isInvalid = (code: number): boolean => {
  return (code & 0x0f) === 0 || ((code & 0x0f) === 8 && code !== 8);
};

class VirtioCcw implements VirtioCcwDevice {
  readonly senseId: ChannelDevice['senseId'];
  readonly #core: VirtioDeviceCore;
  readonly #memory: GuestMemory;
  /** The sizes that the queues start with, which are the largest: other transports take more. */
  readonly #maxQueueSizes: readonly number[];
  #revision = -1;
  #notification: SavedVirtioCcw['notification'] = 'none';
  #indicators: Gpa = 0;
  #configIndicators: Gpa = 0;
  #summaryIndicator: Gpa = 0;
  #firstBit = 0;
  #driverFeatures = 0n;
  #interrupt: (() => void) | undefined;

  constructor({ device, memory }: VirtioCcwOptions) {
    this.#core = device;
    this.#memory = memory;
    this.#maxQueueSizes = device.queues.map((_, index) => device.queueSize(index));
    this.senseId = { cuType: CCW_CU_TYPE, cuModel: device.deviceId };
    device.onInterrupt((cause, index) => {
      if (cause === 'config') this.#indicate(this.#configIndicators, 0);
      else if (index === undefined) return;
      else if (this.#notification === 'adapter') this.#indicateByAdapter(index);
      else this.#indicate(this.#indicators, index);
    });
  }

  onInterrupt(handler: () => void): void {
    this.#interrupt = handler;
  }

  start(command: ChannelCommand): ChannelStatus {
    const { code, count } = command;
    if (isInvalid(code)) return CHECK;
    if (this.#revision < 0 && code !== Ccw.SET_VIRTIO_REV) return REJECT;
    switch (code) {
      case Ccw.SET_VIRTIO_REV:
        return this.#setRevision(command);
      case Ccw.VDEV_RESET:
        this.#resetDevice();
        return done(count);
      case Ccw.READ_FEAT:
        return this.#sized(command, CcwSize.FEATURES, (at) => this.#readFeatures(at));
      case Ccw.WRITE_FEAT:
        return this.#sized(command, CcwSize.FEATURES, (at) => this.#writeFeatures(at));
      case Ccw.READ_CONF:
        return this.#config(command, (at, length) => {
          const bytes = new Uint8Array(length);
          this.#core.readConfig(0, bytes);
          this.#memory.write(at, bytes);
        });
      case Ccw.WRITE_CONF:
        return this.#config(command, (at, length) => {
          const bytes = new Uint8Array(length);
          this.#memory.read(at, bytes);
          this.#core.writeConfig(0, bytes);
        });
      case Ccw.READ_STATUS:
        // Part of revision 2.
        if (this.#revision < 2) return REJECT;
        return this.#sized(command, CcwSize.STATUS, (at) => {
          this.#memory.writeU8(at, this.#core.status);
        });
      case Ccw.WRITE_STATUS:
        return this.#sized(command, CcwSize.STATUS, (at) => this.#writeStatus(at));
      case Ccw.READ_VQ_CONF:
        return this.#sized(command, CcwSize.VQ_CONFIG, (at) => {
          const index = this.#memory.readU16Be(at);
          if (index >= VIRTIO_QUEUE_MAX) return CHECK;
          this.#memory.writeU16Be(at + 2, this.#core.queueSize(index));
        });
      case Ccw.SET_VQ:
        return this.#sized(command, CcwSize.VQ_INFO, (at) => this.#setQueue(at));
      case Ccw.SET_IND: {
        const isRefused =
          this.#notification === 'adapter' || this.#core.queues.length > CCW_MAX_QUEUES;
        const act = (at: Gpa): undefined => {
          this.#notification = 'classic';
          this.#indicators = this.#readAddress(at);
        };
        return this.#sized(command, CcwSize.INDICATORS, act, isRefused);
      }
      case Ccw.SET_IND_ADAPTER: {
        const isRefused = this.#notification === 'classic' && command.address !== 0;
        const act = (at: Gpa): undefined => {
          this.#notification = 'adapter';
          this.#summaryIndicator = this.#readAddress(at);
          this.#indicators = this.#readAddress(at + 8);
          this.#firstBit = this.#readAddress(at + 16);
        };
        return this.#sized(command, CcwSize.THININT_AREA, act, isRefused);
      }
      case Ccw.SET_CONF_IND:
        return this.#sized(command, CcwSize.INDICATORS, (at) => {
          this.#configIndicators = this.#readAddress(at);
        });
      default:
        return REJECT;
    }
  }

  /**
   * The lower half of `data` is the queue's number, with NOTIFICATION_DATA or without. A queue that is not
   * there is no error, as in QEMU 7.2; 10.0 answers -EINVAL. [qemu hw/s390x/s390-hypercall.c
   * handle_virtio_ccw_notify]
   */
  notify(data: number, _cookie: number): number {
    const index = data & 0xffff;
    if (index >= VIRTIO_QUEUE_MAX) return EINVAL;
    this.#core.notifyQueue(index, data);
    return 0;
  }

  reset(): void {
    this.#resetDevice();
    this.#revision = -1;
  }

  save(): SavedVirtioCcw {
    return {
      revision: this.#revision,
      notification: this.#notification,
      indicators: this.#indicators,
      configIndicators: this.#configIndicators,
      summaryIndicator: this.#summaryIndicator,
      firstBit: this.#firstBit,
      device: this.#core.save(),
    };
  }

  restore(state: SavedVirtioCcw): void {
    this.#revision = state.revision;
    this.#notification = state.notification;
    this.#indicators = state.indicators;
    this.#configIndicators = state.configIndicators;
    this.#summaryIndicator = state.summaryIndicator;
    this.#firstBit = state.firstBit;
    this.#driverFeatures = BigInt(state.device.features);
    this.#core.restore(state.device);
  }

  /**
   * Does `act` on a payload of `size` bytes, if the command brings one: without SLI exactly that many,
   * with it at least. With the length right, one that `isRefused` is rejected whatever its address.
   * [VIRTIO v1.2 §4.3.1.3 "Device Requirements: Basic Concepts"]
   */
  #sized(
    { address, count, suppressesLength }: ChannelCommand,
    size: number,
    act: (at: Gpa) => ChannelStatus | undefined,
    isRefused = false,
  ): ChannelStatus {
    if (count < size || (suppressesLength !== true && count !== size)) return CHECK;
    if (isRefused) return REJECT;
    if (address === 0 || !this.#memory.isBacked(address, size)) return CHECK;
    return act(address) ?? done(count - size);
  }

  /** The configuration from its start; no more than there is. */
  #config(
    { address, count, suppressesLength }: ChannelCommand,
    act: (at: Gpa, length: number) => void,
  ): ChannelStatus {
    const { configSize } = this.#core;
    if (count < 0 || (suppressesLength !== true && count > configSize)) return CHECK;
    const length = Math.min(count, configSize);
    if (address === 0) return CHECK;
    // Nothing is transmitted: it does not matter where.
    if (length === 0) return done(count);
    if (!this.#memory.isBacked(address, length)) return CHECK;
    act(address, length);
    return done(count - length);
  }

  #setRevision({ address, count, suppressesLength }: ChannelCommand): ChannelStatus {
    if (count < CcwSize.REV_INFO) return CHECK;
    if (address === 0 || !this.#memory.isBacked(address, CcwSize.REV_INFO)) return CHECK;
    const revision = this.#memory.readU16Be(address);
    const length = this.#memory.readU16Be(address + 2);
    const size = CcwSize.REV_INFO + length;
    if (count < size || (suppressesLength !== true && count > size)) return CHECK;
    // Revisions 1 and 2 have no data.
    const isKnown = revision >= 1 && revision <= CCW_REV_MAX && length === 0;
    if (this.#revision >= 0 || !isKnown) return REJECT;
    this.#revision = revision;
    return done(count - size);
  }

  #readFeatures(at: Gpa): undefined {
    const index = this.#memory.readU8(at + 4);
    const features = this.#core.modernFeatures;
    const word = index === 0 ? lo32(features) : index === 1 ? hi32(features) : 0;
    this.#memory.writeU32Le(at, word);
  }

  /** Each half counts at once. [qemu hw/s390x/virtio-ccw.c virtio_ccw_cb CCW_CMD_WRITE_FEAT] */
  #writeFeatures(at: Gpa): undefined {
    const word = BigInt(this.#memory.readU32Le(at));
    const index = this.#memory.readU8(at + 4);
    if (index > 1) return undefined;
    const shift = BigInt(32 * index);
    this.#driverFeatures &= ~(0xffff_ffffn << shift);
    this.#driverFeatures |= word << shift;
    this.#core.setFeatures(this.#driverFeatures);
  }

  /**
   * "If the device fails to set the device status field [...] the device MUST assure that the device
   * status field is left unchanged and MUST post a unit check with command reject."
   */
  #writeStatus(at: Gpa): ChannelStatus | undefined {
    const status = this.#memory.readU8(at);
    this.#core.setStatus(status);
    if (this.#core.status !== status) return REJECT;
    if (status === 0) this.#resetDevice();
    return undefined;
  }

  /**
   * The addresses are taken even where the size is too large; without any the size stays.
   * [qemu hw/s390x/virtio-ccw.c virtio_ccw_set_vqs]
   */
  #setQueue(at: Gpa): ChannelStatus | undefined {
    const memory = this.#memory;
    const desc = memory.readU64Be(at);
    const index = memory.readU16Be(at + 12);
    const size = memory.readU16Be(at + 14);
    if (index >= VIRTIO_QUEUE_MAX) return CHECK;
    const isTooLarge = desc !== 0n && size > (this.#maxQueueSizes[index] ?? 0);
    if (desc !== 0n && !isTooLarge) this.#core.setQueueSize(index, size);
    const [avail, used] = [memory.readU64Be(at + 16), memory.readU64Be(at + 24)];
    this.#core.setQueueRings(index, { desc, avail, used });
    return isTooLarge ? CHECK : undefined;
  }

  /** An address that no memory has takes no indicators. */
  #readAddress(at: Gpa): Gpa {
    const address = this.#memory.readU64Be(at);
    return address < 2n ** 53n ? Number(address) : 0;
  }

  /** Sets bit `bit`, counted from the least significant, and interrupts. [qemu hw/s390x/virtio-ccw.c virtio_ccw_notify] */
  #indicate(indicators: Gpa, bit: number): void {
    if (indicators === 0) return;
    if (this.#memory.isBacked(indicators, CcwSize.INDICATORS)) {
      const value = this.#memory.readU64Be(indicators);
      this.#memory.writeU64Be(indicators, value | (1n << BigInt(bit)));
    }
    this.#interrupt?.();
  }

  /**
   * Sets a bit, counted from the left of the first byte, and interrupts if the summary was clear.
   * [VIRTIO v1.2 §4.3.3.1.2 "Notification via Adapter I/O Interrupts"]
   */
  #indicateByAdapter(index: number): void {
    if (this.#indicators === 0 || this.#summaryIndicator === 0) return;
    const bit = this.#firstBit + index;
    const at = this.#indicators + Math.floor(bit / 8);
    if (this.#memory.isBacked(at, 1)) {
      this.#memory.writeU8(at, this.#memory.readU8(at) | (0x80 >> (bit % 8)));
    }
    const summary = this.#summaryIndicator;
    if (!this.#memory.isBacked(summary, 1) || this.#memory.readU8(summary) !== 0) return;
    this.#memory.writeU8(summary, 1);
    this.#interrupt?.();
  }

  #resetDevice(): void {
    this.#core.reset();
    this.#driverFeatures = 0n;
    this.#notification = 'none';
    this.#indicators = 0;
    this.#configIndicators = 0;
    this.#summaryIndicator = 0;
    this.#firstBit = 0;
  }
}
