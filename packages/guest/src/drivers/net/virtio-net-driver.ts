import type { DmaOps } from '@pinhole/memory';
import {
  type DriverQueue,
  decodeNetConfig,
  ETH_ALEN,
  encodeNetHeader,
  featureBits,
  type NetConfig,
  netConfigParts,
  type Segment,
  VIRTIO_F_ANY_LAYOUT,
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_CTRL_ANNOUNCE,
  VIRTIO_NET_CTRL_ANNOUNCE_ACK,
  VIRTIO_NET_CTRL_MAC,
  VIRTIO_NET_CTRL_MAC_ADDR_SET,
  VIRTIO_NET_CTRL_MAC_TABLE_SET,
  VIRTIO_NET_CTRL_RX,
  VIRTIO_NET_CTRL_RX_ALLMULTI,
  VIRTIO_NET_CTRL_RX_PROMISC,
  VIRTIO_NET_CTRL_VLAN,
  VIRTIO_NET_CTRL_VLAN_ADD,
  VIRTIO_NET_CTRL_VLAN_DEL,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_CTRL_VQ,
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
} from '@pinhole/virtio';
import {
  type DriverContext,
  InterruptWork,
  openDevice,
  takeUsed,
  type VirtioDriverOptions,
} from '../driver-context.js';
import { NetCommandQueue } from './net-command.js';
import { NetReceiver } from './net-receive.js';

const RX = 0;
const TX = 1;
const CTRL = 2;
/** An Ethernet header, and one with a VLAN. */
const ETH_HLEN = 14;
const VLAN_HLEN = 4;
const ETH_DATA_LEN = 1500;
/** [linux v6.1 drivers/net/virtio_net.c MIN_MTU] */
const MIN_MTU = 68;
/** Bytes of a buffer that can be merged: a frame of 1500 bytes with its header, in cache lines. [linux v6.1 drivers/net/virtio_net.c get_mergeable_buf_len] */
const MERGEABLE_SIZE = 1536;
/** The address of a driver that is given none. */
const LOCAL_MAC = Uint8Array.of(0x02, 0, 0, 0, 0, 0x01);

/** [linux v6.1 drivers/net/virtio_net.c features], but for offloads and queue pairs. */
const SUPPORTED = featureBits(
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_STATUS,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_SPEED_DUPLEX,
);

/** The same of a legacy device. [linux v6.1 drivers/net/virtio_net.c features_legacy] */
const LEGACY_SUPPORTED = featureBits(VIRTIO_F_ANY_LAYOUT);

/** What makes no sense without a control queue. [linux v6.1 drivers/net/virtio_net.c virtnet_validate_features] */
const NEED_CTRL_VQ: readonly (readonly [number, string])[] = [
  [VIRTIO_NET_F_CTRL_RX, 'VIRTIO_NET_F_CTRL_RX'],
  [VIRTIO_NET_F_CTRL_VLAN, 'VIRTIO_NET_F_CTRL_VLAN'],
  [VIRTIO_NET_F_GUEST_ANNOUNCE, 'VIRTIO_NET_F_GUEST_ANNOUNCE'],
  [VIRTIO_NET_F_CTRL_MAC_ADDR, 'VIRTIO_NET_F_CTRL_MAC_ADDR'],
];

/** Options of {@link probeVirtioNet}. */
export interface VirtioNetDriverOptions extends VirtioDriverOptions {
  /** Takes what is received; it may send, at once. */
  readonly onFrame: (frame: Uint8Array) => void;
  /** The link came up or went down. */
  readonly onLink?: (isUp: boolean) => void;
  /** The device asks for gratuitous packets. */
  readonly onAnnounce?: () => void;
}

/** A driver, or why there is none. */
export type NetProbeResult =
  | { readonly ok: true; readonly driver: VirtioNetDriver }
  | { readonly ok: false; readonly message: string };

/** Finds the device and brings it up. [linux v6.1 drivers/net/virtio_net.c virtnet_probe] */
export function probeVirtioNet(options: VirtioNetDriverOptions): NetProbeResult {
  const { isLegacy } = options.transport;
  const opened = openDevice(options, isLegacy ? SUPPORTED | LEGACY_SUPPORTED : SUPPORTED);
  if (!opened.ok) return opened;
  const { context } = opened;
  const hasControl = context.has(VIRTIO_NET_F_CTRL_VQ);
  const lost = NEED_CTRL_VQ.find(([bit]) => !hasControl && context.has(bit));
  if (lost !== undefined) {
    return context.abandon(`device advertises feature ${lost[1]} but not VIRTIO_NET_F_CTRL_VQ`);
  }
  const { mtu } = readConfig(context).config;
  if (context.has(VIRTIO_NET_F_MTU) && mtu < MIN_MTU) {
    const message = `device MTU appears to have changed it is now ${mtu} < ${MIN_MTU}`;
    return context.abandon(message);
  }
  const rx = context.openQueue<Segment>(RX);
  if (typeof rx === 'string') return context.abandon(rx);
  const tx = context.openQueue<Segment>(TX);
  if (typeof tx === 'string') return context.abandon(tx);
  const control = hasControl ? context.openQueue<unknown>(CTRL) : undefined;
  if (typeof control === 'string') return context.abandon(control);
  return { ok: true, driver: new VirtioNetDriver(options, context, rx, tx, control) };
}

/** The guest's virtio-net driver: one pair of queues, no offloads. [linux v6.1 drivers/net/virtio_net.c] */
export class VirtioNetDriver {
  readonly features: bigint;
  readonly dma: DmaOps;
  /** The most bytes of a frame after its Ethernet header. */
  readonly mtu: number;
  /** Frames that were sent, and that found no room in the queue. */
  readonly sent: { frames: number; dropped: number } = { frames: 0, dropped: 0 };
  #mac: Uint8Array;
  readonly #options: VirtioNetDriverOptions;
  readonly #context: DriverContext;
  readonly #receiver: NetReceiver;
  readonly #tx: DriverQueue<Segment>;
  readonly #control: NetCommandQueue | undefined;
  readonly #headerSize: number;
  // The header and the data may share a buffer.
  readonly #isAnyLayout: boolean;
  #isLinkUp = true;

  /** Use {@link probeVirtioNet}. */
  constructor(
    options: VirtioNetDriverOptions,
    context: DriverContext,
    rx: DriverQueue<Segment>,
    tx: DriverQueue<Segment>,
    control: DriverQueue<unknown> | undefined,
  ) {
    this.#options = options;
    this.#context = context;
    this.#tx = tx;
    this.#control = control === undefined ? undefined : new NetCommandQueue(context, control);
    this.features = context.features;
    this.dma = context.dma;
    const { mac, config } = readConfig(context);
    this.#mac = context.has(VIRTIO_NET_F_MAC) ? mac : LOCAL_MAC.slice();
    this.mtu = context.has(VIRTIO_NET_F_MTU) ? config.mtu : ETH_DATA_LEN;
    const isMergeable = context.has(VIRTIO_NET_F_MRG_RXBUF);
    const isLong = isMergeable || context.has(VIRTIO_F_VERSION_1);
    this.#headerSize = isLong ? VIRTIO_NET_HDR_SIZE : VIRTIO_NET_LEGACY_HDR_SIZE;
    this.#isAnyLayout = context.has(VIRTIO_F_ANY_LAYOUT) || context.has(VIRTIO_F_VERSION_1);
    const whole = this.#headerSize + ETH_HLEN + VLAN_HLEN + Math.max(this.mtu, ETH_DATA_LEN);
    this.#receiver = new NetReceiver({
      context,
      queue: rx,
      bufferSize: isMergeable ? MERGEABLE_SIZE : whole,
      isMergeable,
      headerSize: this.#headerSize,
      onFrame: options.onFrame,
    });
    const done = new InterruptWork(() => {
      takeUsed(tx, (object) => this.#free(object));
    });
    context.start({
      queue: (index) => {
        if (index === RX) this.#receiver.handleInterrupt();
        else if (index === TX) done.run();
      },
      config: () => this.#handleConfig(),
    });
    this.#receiver.fill();
    this.#handleConfig();
  }

  get mac(): Uint8Array {
    return this.#mac;
  }

  get isLinkUp(): boolean {
    return this.#isLinkUp;
  }

  /** Packets that the device got wrong. */
  get receiveErrors(): number {
    return this.#receiver.errors;
  }

  /** In Mbit/s; undefined: unknown. [linux v6.1 drivers/net/virtio_net.c virtnet_update_settings] */
  get speed(): number | undefined {
    if (!this.#context.has(VIRTIO_NET_F_SPEED_DUPLEX)) return undefined;
    const { speed } = readConfig(this.#context).config;
    return speed <= 0x7fff_ffff ? speed : undefined;
  }

  get duplex(): 'half' | 'full' | undefined {
    if (!this.#context.has(VIRTIO_NET_F_SPEED_DUPLEX)) return undefined;
    return (['half', 'full'] as const)[readConfig(this.#context).config.duplex];
  }

  /**
   * Sends a frame. False: it was dropped, for it is too long, or there is no room.
   * [linux v6.1 drivers/net/virtio_net.c xmit_skb]
   */
  send(frame: Uint8Array): boolean {
    const { memory, pages } = this.#context.options;
    const length = this.#headerSize + frame.length;
    const isTooLong = frame.length > this.mtu + ETH_HLEN + VLAN_HLEN;
    const gpa = isTooLong || frame.length === 0 ? undefined : pages.alloc(length);
    if (gpa === undefined) return this.#drop();
    // No offload: all of the header is 0.
    memory.write(gpa, encodeNetHeader({}).subarray(0, this.#headerSize));
    memory.write(gpa + this.#headerSize, frame);
    const object = { gpa, length };
    const parts = this.#isAnyLayout
      ? [object]
      : [
          { gpa, length: this.#headerSize },
          { gpa: gpa + this.#headerSize, length: frame.length },
        ];
    if (this.#tx.add(parts, [], object) !== 'ok') {
      this.#free(object);
      return this.#drop();
    }
    this.sent.frames += 1;
    this.#tx.kick();
    return true;
  }

  /** All frames, or only those for this address. False: the device does not, or cannot. */
  setPromiscuous(isOn: boolean): boolean {
    return this.#setRxMode(VIRTIO_NET_CTRL_RX_PROMISC, isOn);
  }

  /** All multicast frames. */
  setAllMulticast(isOn: boolean): boolean {
    return this.#setRxMode(VIRTIO_NET_CTRL_RX_ALLMULTI, isOn);
  }

  /** The addresses to be received beside its own. [linux v6.1 drivers/net/virtio_net.c virtnet_set_rx_mode] */
  setAddresses(unicast: readonly Uint8Array[], multicast: readonly Uint8Array[]): boolean {
    if (!this.#context.has(VIRTIO_NET_F_CTRL_RX)) return false;
    const tables = [unicast, multicast].map((macs) =>
      Uint8Array.from([
        ...[0, 8, 16, 24].map((shift) => (macs.length >>> shift) & 0xff),
        ...macs.flatMap((mac) => [...mac.subarray(0, ETH_ALEN)]),
      ]),
    );
    return this.#command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, ...tables);
  }

  /** Changes the address. [linux v6.1 drivers/net/virtio_net.c virtnet_set_mac_address] */
  setMac(mac: Uint8Array): boolean {
    if (!this.#context.has(VIRTIO_NET_F_CTRL_MAC_ADDR)) return false;
    const own = mac.slice(0, ETH_ALEN);
    if (!this.#command(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, own)) return false;
    this.#mac = own;
    return true;
  }

  /** Receives the frames of a VLAN, or no more. [linux v6.1 drivers/net/virtio_net.c virtnet_vlan_rx_add_vid] */
  setVlan(vid: number, isOn: boolean): boolean {
    if (!this.#context.has(VIRTIO_NET_F_CTRL_VLAN)) return false;
    const command = isOn ? VIRTIO_NET_CTRL_VLAN_ADD : VIRTIO_NET_CTRL_VLAN_DEL;
    return this.#command(VIRTIO_NET_CTRL_VLAN, command, Uint8Array.of(vid & 0xff, vid >> 8));
  }

  /** Resets the device, and gives all memory back. [linux v6.1 drivers/net/virtio_net.c virtnet_remove] */
  remove(): void {
    this.#context.close((token, index) => {
      if (index === TX) this.#free(token as Segment);
      else if (index === CTRL) this.#control?.forget(token);
    });
    this.#receiver.release();
  }

  #setRxMode(mode: number, isOn: boolean): boolean {
    if (!this.#context.has(VIRTIO_NET_F_CTRL_RX)) return false;
    return this.#command(VIRTIO_NET_CTRL_RX, mode, Uint8Array.of(isOn ? 1 : 0));
  }

  #command(kind: number, command: number, ...data: readonly Uint8Array[]): boolean {
    return this.#control?.send(kind, command, data) ?? false;
  }

  /** [linux v6.1 drivers/net/virtio_net.c virtnet_config_changed_work] */
  #handleConfig(): void {
    if (!this.#context.has(VIRTIO_NET_F_STATUS)) return;
    const { status } = readConfig(this.#context).config;
    if ((status & VIRTIO_NET_S_ANNOUNCE) !== 0) {
      this.#options.onAnnounce?.();
      this.#command(VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK);
    }
    const isUp = (status & VIRTIO_NET_S_LINK_UP) !== 0;
    if (isUp === this.#isLinkUp) return;
    this.#isLinkUp = isUp;
    this.#options.onLink?.(isUp);
  }

  #drop(): false {
    this.sent.dropped += 1;
    return false;
  }

  #free({ gpa, length }: Segment): void {
    this.#context.options.pages.free(gpa, length);
  }
}

function readConfig(context: DriverContext): {
  readonly mac: Uint8Array;
  readonly config: NetConfig;
} {
  const bytes = context.readConfig(netConfigParts(context.features));
  const mac = new Uint8Array(ETH_ALEN);
  mac.set(bytes.subarray(0, ETH_ALEN));
  return { mac, config: decodeNetConfig(bytes) };
}
