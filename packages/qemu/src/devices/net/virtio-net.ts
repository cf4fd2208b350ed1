import type { DmaSpace } from '@pinhole/memory';
import {
  type DeviceQueue,
  ETH_ALEN,
  encodeNetConfig,
  hasFeature,
  netConfigParts,
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_F_VERSION_1,
  VIRTIO_ID_NET,
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_RX_EXTRA,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_GSO,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_SPEED_DUPLEX,
  VIRTIO_NET_F_STATUS,
  VIRTIO_NET_HDR_SIZE,
  VIRTIO_NET_LEGACY_HDR_SIZE,
  VIRTIO_NET_S_ANNOUNCE,
  VIRTIO_NET_S_LINK_UP,
  type VirtioDeviceCore,
} from '@pinhole/virtio';
import { ElementBytes } from '../../element-bytes.js';
import { QemuError } from '../../errors.js';
import type { BufferMapper } from '../../qemu-mapper.js';
import { ALL_FEATURES, plugVirtioDevice, type VirtioDeviceSettings } from '../../virtio-device.js';
import type { NetBackend } from './net-backend.js';
import { handleNetControl } from './net-control.js';
import { type ReceiveMode, receiveFrame } from './net-receive.js';
import { RxFilter } from './rx-filter.js';

/** Sizes of the queues. [qemu v7.2 hw/net/virtio-net.c virtio_net_device_realize] */
const DATA_QUEUE_SIZE = 256;
const CTRL_QUEUE_SIZE = 64;
const RX = 0;
const TX = 1;
const CTRL = 2;
const STATUS_OFFSET = 6;
/** The largest frame that QEMU passes on. [qemu v7.2 include/net/net.h NET_BUFSIZE] */
const NET_BUFSIZE = 4096 + 65_536;
/** Frames that wait for buffers of the driver; QEMU keeps 10000. [qemu v7.2 net/queue.c qemu_new_net_queue] */
const MAX_WAITING = 256;
const UNKNOWN_SPEED = 0xffff_ffff;
const DUPLEX = { half: 0, full: 1, unknown: 0xff } as const;

/** Options of {@link VirtioNet}; unless they say otherwise, QEMU's properties and their defaults. */
export interface VirtioNetOptions extends VirtioDeviceSettings {
  readonly backend: NetBackend;
  /** `mac`: 6 bytes. Default 52:54:00:12:34:56. */
  readonly mac?: Uint8Array;
  /** `host_mtu`; absent: not offered. */
  readonly mtu?: number;
  /** `speed` in Mbit/s, and `duplex`; absent both: not offered. */
  readonly speed?: number;
  readonly duplex?: 'half' | 'full';
  /** Features that the user switches off: `mrg_rxbuf=off` is `[VIRTIO_NET_F_MRG_RXBUF]`. */
  readonly without?: readonly number[];
}

/**
 * virtio-net with one pair of queues and a control queue, on a backend without offloads, as QEMU
 * does it. [qemu v7.2 hw/net/virtio-net.c]
 *
 * Deviates: sends at the kick, without a bottom half or timer, and all that waits.
 */
export class VirtioNet {
  /** Where a driver meets the device. */
  readonly core: VirtioDeviceCore;
  /** The address space that the device works in, and why. */
  readonly space: DmaSpace;
  readonly spaceBecause: string;
  readonly mapper: BufferMapper;
  /** Frames that found no way into the guest, or out of it. */
  readonly dropped: { rx: number; tx: number } = { rx: 0, tx: 0 };
  readonly #backend: NetBackend;
  readonly #bytes: ElementBytes;
  readonly #config: Uint8Array;
  readonly #filter: RxFilter;
  readonly #waiting: Uint8Array[] = [];
  readonly #frame = new Uint8Array(NET_BUFSIZE);
  #status = VIRTIO_NET_S_LINK_UP;
  #isReady = false;
  #isFlushing = false;

  /** @throws QemuError `E_DEVICE_OPTIONS` */
  constructor(options: VirtioNetOptions) {
    const { backend, mac = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56) } = options;
    checkOptions(options, mac);
    this.#backend = backend;
    this.#bytes = new ElementBytes(options.memory);
    this.#filter = new RxFilter(mac);
    const features = netFeatures(options);
    this.#config = netConfig(options, mac, features);
    const plugged = plugVirtioDevice(options, {
      deviceId: VIRTIO_ID_NET,
      defaultId: 'net0',
      features,
      legacyFeatures: [VIRTIO_NET_F_GSO],
      config: this.#config,
      configFields: netConfigParts(ALL_FEATURES),
      queues: [
        { maxSize: DATA_QUEUE_SIZE, handleOutput: () => this.#flush() },
        { maxSize: DATA_QUEUE_SIZE, handleOutput: (queue) => this.#transmit(queue) },
        { maxSize: CTRL_QUEUE_SIZE, handleOutput: (queue) => this.#control(queue) },
      ],
      usesEventFds: false,
      hooks: {
        setFeatures: (accepted) =>
          this.#filter.setAllVlans(!hasFeature(accepted, VIRTIO_NET_F_CTRL_VLAN)),
        setStatus: (status) => this.#setStatus(status),
        setConfig: (config) => this.#setConfig(config),
        resetQueue: () => this.#waiting.splice(0),
        reset: () => this.#reset(),
      },
    });
    this.core = plugged.core;
    this.space = plugged.space;
    this.spaceBecause = plugged.spaceBecause;
    this.mapper = plugged.mapper;
    backend.onReceive((frame) => this.#receive(frame));
  }

  get isLinkUp(): boolean {
    return (this.#status & VIRTIO_NET_S_LINK_UP) !== 0;
  }

  /** Plugs the cable, or pulls it. [qemu v7.2 hw/net/virtio-net.c virtio_net_set_link_status] */
  setLink(isUp: boolean): void {
    if (isUp === this.isLinkUp) return;
    this.#changeStatus(this.#status ^ VIRTIO_NET_S_LINK_UP);
    if (this.#isReady) this.#flush();
  }

  /** Asks the driver to announce itself, if it can. [qemu v7.2 hw/net/virtio-net.c virtio_net_announce] */
  announce(): void {
    const { features } = this.core;
    const can =
      hasFeature(features, VIRTIO_NET_F_GUEST_ANNOUNCE) &&
      hasFeature(features, VIRTIO_NET_F_CTRL_VQ);
    if (can) this.#changeStatus(this.#status | VIRTIO_NET_S_ANNOUNCE);
  }

  // A frame comes in. One that finds no buffers waits; with the link down there is none.
  #receive(frame: Uint8Array): void {
    if (!this.isLinkUp || frame.length > NET_BUFSIZE) return;
    if (this.#waiting.length >= MAX_WAITING) {
      this.dropped.rx += 1;
      return;
    }
    this.#waiting.push(frame.slice());
    this.#flush();
  }

  /** [qemu v7.2 net/net.c qemu_flush_queued_packets] */
  #flush(): void {
    const queue = this.core.queues[RX];
    if (queue === undefined || this.#isFlushing) return;
    this.#isFlushing = true;
    try {
      while (this.#isReady && queue.isConfigured && !this.core.isBroken) {
        const frame = this.#waiting[0];
        if (frame === undefined) break;
        const accepts = (bytes: Uint8Array): boolean => this.#filter.accepts(bytes);
        const result = receiveFrame(queue, this.#bytes, frame, accepts, this.#mode());
        if (result === 'full') break;
        this.#waiting.shift();
        if (result === 'received') this.core.notifyDriver(RX);
        else this.dropped.rx += 1;
        if (typeof result === 'object') this.core.fail(result.fault);
      }
    } finally {
      this.#isFlushing = false;
    }
  }

  /** [qemu v7.2 hw/net/virtio-net.c virtio_net_set_mrg_rx_bufs] */
  #mode(): ReceiveMode {
    const { features } = this.core;
    const isMergeable = hasFeature(features, VIRTIO_NET_F_MRG_RXBUF);
    const isLong = isMergeable || hasFeature(features, VIRTIO_F_VERSION_1);
    return { isMergeable, headerSize: isLong ? VIRTIO_NET_HDR_SIZE : VIRTIO_NET_LEGACY_HDR_SIZE };
  }

  /**
   * Sends all that waits. The header is of no interest to a backend without offloads, whatever it
   * says, nor is where it ends and the data begin. [qemu v7.2 hw/net/virtio-net.c virtio_net_flush_tx]
   */
  #transmit(queue: DeviceQueue): void {
    if (!this.#isReady) return;
    const { headerSize } = this.#mode();
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      if (element.outNum < 1) {
        this.core.fail('virtio-net header not in first element');
        queue.detach(element);
        return;
      }
      const length = element.outBytes - headerSize;
      if (this.isLinkUp && length > 0 && length <= NET_BUFSIZE) {
        const frame = this.#frame.subarray(0, length);
        this.#bytes.readOut(element, headerSize, frame);
        this.#backend.send(frame);
      } else {
        this.dropped.tx += 1;
      }
      // The backend may have had the device reset.
      if (!this.#isReady) return;
      queue.push(element, 0);
      this.core.notifyDriver(TX);
    }
  }

  /** [qemu v7.2 hw/net/virtio-net.c virtio_net_handle_ctrl] */
  #control(queue: DeviceQueue): void {
    const target = {
      bytes: this.#bytes,
      filter: this.#filter,
      setMac: (mac: Uint8Array) => this.#setMac(mac),
      acknowledgeAnnounce: () => this.#acknowledgeAnnounce(),
    };
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      const ack = handleNetControl(target, element);
      if (ack === undefined) {
        this.core.fail('virtio-net ctrl missing headers');
        queue.detach(element);
        return;
      }
      this.#bytes.writeIn(element, 0, Uint8Array.of(ack));
      queue.push(element, 1);
      this.core.notifyDriver(CTRL);
    }
  }

  #acknowledgeAnnounce(): boolean {
    if ((this.#status & VIRTIO_NET_S_ANNOUNCE) === 0) return false;
    this.#status &= ~VIRTIO_NET_S_ANNOUNCE;
    this.#writeStatus();
    return true;
  }

  #changeStatus(status: number): void {
    this.#status = status;
    this.#writeStatus();
    this.core.notifyConfig();
  }

  #writeStatus(): void {
    if (this.#config.length > STATUS_OFFSET) this.#config[STATUS_OFFSET] = this.#status;
  }

  /** [qemu v7.2 hw/net/virtio-net.c virtio_net_set_status] */
  #setStatus(status: number): void {
    this.#isReady = (status & VIRTIO_CONFIG_S_DRIVER_OK) !== 0;
    if (this.#isReady) this.#flush();
  }

  /** Only a legacy driver sets its address here. [qemu v7.2 hw/net/virtio-net.c virtio_net_set_config] */
  #setConfig(config: Uint8Array): void {
    const { features } = this.core;
    if (hasFeature(features, VIRTIO_F_VERSION_1)) return;
    if (hasFeature(features, VIRTIO_NET_F_CTRL_MAC_ADDR)) return;
    this.#setMac(config.slice(0, ETH_ALEN));
  }

  #setMac(mac: Uint8Array): void {
    this.#filter.mac = mac;
    this.#config.set(mac);
  }

  /** [qemu v7.2 hw/net/virtio-net.c virtio_net_reset] */
  #reset(): void {
    this.#filter.reset();
    this.#waiting.splice(0);
    this.#status &= ~VIRTIO_NET_S_ANNOUNCE;
    this.#writeStatus();
    this.#config.set(this.#filter.mac);
  }
}

/** Offloads need a backend that takes them. [qemu v7.2 hw/net/virtio-net.c virtio_net_get_features] */
function netFeatures(options: VirtioNetOptions): number[] {
  const bits = [
    VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
    VIRTIO_NET_F_GSO,
    VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_STATUS,
    VIRTIO_NET_F_CTRL_VQ,
    VIRTIO_NET_F_CTRL_RX,
    VIRTIO_NET_F_CTRL_VLAN,
    VIRTIO_NET_F_CTRL_RX_EXTRA,
    VIRTIO_NET_F_GUEST_ANNOUNCE,
    VIRTIO_NET_F_CTRL_MAC_ADDR,
  ].filter((bit) => options.without?.includes(bit) !== true);
  if (options.mtu !== undefined) bits.push(VIRTIO_NET_F_MTU);
  if (options.speed !== undefined || options.duplex !== undefined) {
    bits.push(VIRTIO_NET_F_SPEED_DUPLEX);
  }
  return [...bits, VIRTIO_NET_F_MAC];
}

/** Ends with the last field that a feature brings. [qemu v7.2 hw/net/virtio-net.c virtio_net_set_config_size] */
function netConfig(
  options: VirtioNetOptions,
  mac: Uint8Array,
  features: readonly number[],
): Uint8Array {
  let size = ETH_ALEN;
  if (features.includes(VIRTIO_NET_F_STATUS)) size = 8;
  if (features.includes(VIRTIO_NET_F_MTU)) size = 12;
  if (features.includes(VIRTIO_NET_F_SPEED_DUPLEX)) size = 17;
  return encodeNetConfig(
    mac,
    {
      status: VIRTIO_NET_S_LINK_UP,
      maxVirtqueuePairs: 1,
      mtu: options.mtu ?? 0,
      speed: options.speed ?? UNKNOWN_SPEED,
      duplex: DUPLEX[options.duplex ?? 'unknown'],
    },
    size,
  );
}

function checkOptions({ mtu, speed }: VirtioNetOptions, mac: Uint8Array): void {
  check('mac', mac.length, mac.length === ETH_ALEN, '6 bytes');
  check('host_mtu', mtu, isWithin(mtu, 68, 65_535), 'an integer from 68 to 65535');
  check('speed', speed, isWithin(speed, 0, 2 ** 31 - 1), 'an integer from 0 to 2147483647');
}

function isWithin(value: number | undefined, from: number, to: number): boolean {
  return value === undefined || (Number.isInteger(value) && value >= from && value <= to);
}

function check(property: string, found: unknown, isValid: boolean, expected: string): void {
  if (isValid) return;
  throw new QemuError(
    'E_DEVICE_OPTIONS',
    `virtio-net: expected ${property} to be ${expected}, found ${String(found)}`,
    { details: { property } },
  );
}
