/** The network device's formats. [VIRTIO v1.2 §5.1 "Network Device"] */
import {
  type ConfigPart,
  type ConfigRow,
  configParts,
  decodeConfig,
  encodeConfig,
} from './config-layout.js';

/** Feature bits. [VIRTIO v1.2 §5.1.3 "Feature bits"] */
/** The device takes packets with partial checksums. */
export const VIRTIO_NET_F_CSUM = 0;
/** The driver takes packets with partial checksums. */
export const VIRTIO_NET_F_GUEST_CSUM = 1;
/** Offloads can be switched by the control queue. */
export const VIRTIO_NET_F_CTRL_GUEST_OFFLOADS = 2;
/** `mtu` is valid. */
export const VIRTIO_NET_F_MTU = 3;
/** `mac` is valid. */
export const VIRTIO_NET_F_MAC = 5;
/** Legacy: segmentation of any kind. */
export const VIRTIO_NET_F_GSO = 6;
/** Receive buffers can be merged: a packet may take several. */
export const VIRTIO_NET_F_MRG_RXBUF = 15;
/** `status` is valid. */
export const VIRTIO_NET_F_STATUS = 16;
/** There is a control queue. */
export const VIRTIO_NET_F_CTRL_VQ = 17;
/** The control queue sets receive modes. */
export const VIRTIO_NET_F_CTRL_RX = 18;
/** The control queue filters VLANs. */
export const VIRTIO_NET_F_CTRL_VLAN = 19;
/** More receive modes. */
export const VIRTIO_NET_F_CTRL_RX_EXTRA = 20;
/** The driver can send gratuitous packets when it is asked to. */
export const VIRTIO_NET_F_GUEST_ANNOUNCE = 21;
/** More queue pairs than one: `maxVirtqueuePairs`. */
export const VIRTIO_NET_F_MQ = 22;
/** The control queue sets the address. */
export const VIRTIO_NET_F_CTRL_MAC_ADDR = 23;
/** `speed` and `duplex` are valid. */
export const VIRTIO_NET_F_SPEED_DUPLEX = 63;

/** In `status`: the link is up. [VIRTIO v1.2 §5.1.4 "Device configuration layout"] */
export const VIRTIO_NET_S_LINK_UP = 1;
/** In `status`: the driver is to announce itself. */
export const VIRTIO_NET_S_ANNOUNCE = 2;

/** Bytes of the header before every packet. [VIRTIO v1.2 §5.1.6 "Device Operation"] */
export const VIRTIO_NET_HDR_SIZE = 12;
/** Legacy: without `num_buffers`, unless buffers can be merged. [VIRTIO v1.2 §5.1.6.1 "Legacy Interface: Device Operation"] */
export const VIRTIO_NET_LEGACY_HDR_SIZE = 10;
/** In a header's `flags`: the checksum is partial. */
export const VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;
/** A header's `gsoType` of a packet that is no segments. */
export const VIRTIO_NET_HDR_GSO_NONE = 0;

/** `struct virtio_net_hdr`. [VIRTIO v1.2 §5.1.6 "Device Operation"] */
export interface NetHeader {
  readonly flags: number;
  readonly gsoType: number;
  readonly hdrLen: number;
  readonly gsoSize: number;
  readonly csumStart: number;
  readonly csumOffset: number;
  /** Of a received packet: how many buffers it takes. */
  readonly numBuffers: number;
}

/** Writes a header of 12 bytes; fields that are not given are 0. */
export function encodeNetHeader(header: Partial<NetHeader>): Uint8Array {
  const bytes = new Uint8Array(VIRTIO_NET_HDR_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, header.flags ?? 0);
  view.setUint8(1, header.gsoType ?? VIRTIO_NET_HDR_GSO_NONE);
  view.setUint16(2, header.hdrLen ?? 0, true);
  view.setUint16(4, header.gsoSize ?? 0, true);
  view.setUint16(6, header.csumStart ?? 0, true);
  view.setUint16(8, header.csumOffset ?? 0, true);
  view.setUint16(10, header.numBuffers ?? 0, true);
  return bytes;
}

/** Reads a header of 12 bytes. */
export function decodeNetHeader(bytes: Uint8Array): NetHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, VIRTIO_NET_HDR_SIZE);
  return {
    flags: view.getUint8(0),
    gsoType: view.getUint8(1),
    hdrLen: view.getUint16(2, true),
    gsoSize: view.getUint16(4, true),
    csumStart: view.getUint16(6, true),
    csumOffset: view.getUint16(8, true),
    numBuffers: view.getUint16(10, true),
  };
}

/** Bytes of a command's header: its class and its number. [VIRTIO v1.2 §5.1.6.5 "Control Virtqueue"] */
export const VIRTIO_NET_CTRL_HDR_SIZE = 2;
/** A command succeeded. */
export const VIRTIO_NET_OK = 0;
/** A command failed. */
export const VIRTIO_NET_ERR = 1;

/** Class: receive modes. [VIRTIO v1.2 §5.1.6.5.1 "Packet Receive Filtering"] */
export const VIRTIO_NET_CTRL_RX = 0;
/** All packets. */
export const VIRTIO_NET_CTRL_RX_PROMISC = 0;
/** All multicast packets. */
export const VIRTIO_NET_CTRL_RX_ALLMULTI = 1;
/** All unicast packets. */
export const VIRTIO_NET_CTRL_RX_ALLUNI = 2;
/** No multicast packets. */
export const VIRTIO_NET_CTRL_RX_NOMULTI = 3;
/** No unicast packets. */
export const VIRTIO_NET_CTRL_RX_NOUNI = 4;
/** No broadcast packets. */
export const VIRTIO_NET_CTRL_RX_NOBCAST = 5;

/** Class: addresses. [VIRTIO v1.2 §5.1.6.5.2 "Setting MAC Address Filtering"] */
export const VIRTIO_NET_CTRL_MAC = 1;
/** Sets the unicast and multicast addresses that are received. */
export const VIRTIO_NET_CTRL_MAC_TABLE_SET = 0;
/** Sets the device's own address. */
export const VIRTIO_NET_CTRL_MAC_ADDR_SET = 1;

/** Class: VLANs. [VIRTIO v1.2 §5.1.6.5.3 "VLAN Filtering"] */
export const VIRTIO_NET_CTRL_VLAN = 2;
/** Receives a VLAN. */
export const VIRTIO_NET_CTRL_VLAN_ADD = 0;
/** Receives it no more. */
export const VIRTIO_NET_CTRL_VLAN_DEL = 1;

/** Class: announcements. [VIRTIO v1.2 §5.1.6.5.4 "Gratuitous Packet Sending"] */
export const VIRTIO_NET_CTRL_ANNOUNCE = 3;
/** The driver has heard that it is to announce itself. */
export const VIRTIO_NET_CTRL_ANNOUNCE_ACK = 0;

/** Bytes of an Ethernet address. */
export const ETH_ALEN = 6;

/** The configuration space, but for the address. [VIRTIO v1.2 §5.1.4 "Device configuration layout"] */
export interface NetConfig {
  readonly status: number;
  readonly maxVirtqueuePairs: number;
  readonly mtu: number;
  /** In Mbit/s; 0xffffffff: unknown. */
  readonly speed: number;
  /** 0: half; 1: full; 0xff: unknown. */
  readonly duplex: number;
}

/** `struct virtio_net_config`, a field a row; the address is before them. [VIRTIO v1.2 §5.1.4 "Device configuration layout"] */
const LAYOUT: readonly ConfigRow<keyof NetConfig>[] = [
  ['status', 6, 2, VIRTIO_NET_F_STATUS],
  ['maxVirtqueuePairs', 8, 2, VIRTIO_NET_F_MQ],
  ['mtu', 10, 2, VIRTIO_NET_F_MTU],
  ['speed', 12, 4, VIRTIO_NET_F_SPEED_DUPLEX],
  ['duplex', 16, 1, VIRTIO_NET_F_SPEED_DUPLEX],
];

/** Writes the configuration space; fields that are not given are 0, those beyond `size` are left out. */
export function encodeNetConfig(
  mac: Uint8Array,
  config: Partial<NetConfig>,
  size: number,
): Uint8Array {
  const bytes = encodeConfig(LAYOUT, config, size);
  bytes.set(mac.subarray(0, ETH_ALEN));
  return bytes;
}

/** Reads the configuration space; what lies beyond its end is 0. The address is its first 6 bytes. */
export function decodeNetConfig(bytes: Uint8Array): NetConfig {
  return decodeConfig(LAYOUT, bytes);
}

/** Where the fields are that exist with these features, byte for byte for the address. */
export function netConfigParts(features: bigint): ConfigPart[] {
  const mac = configParts([['mac', 0, 1, VIRTIO_NET_F_MAC]], features);
  const bytes = mac.flatMap(() => Array.from({ length: ETH_ALEN }, (_, offset) => offset));
  return [...bytes.map((offset) => ({ offset, length: 1 })), ...configParts(LAYOUT, features)];
}
