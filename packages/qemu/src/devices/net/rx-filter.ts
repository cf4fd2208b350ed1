import { ETH_ALEN } from '@pinhole/virtio';

/** Addresses that fit the table. [qemu v7.2 include/hw/virtio/virtio-net.h MAC_TABLE_ENTRIES] */
export const MAC_TABLE_ENTRIES = 64;
/** [qemu v7.2 hw/net/virtio-net.c MAX_VLAN] */
export const MAX_VLAN = 4096;

const ETH_P_8021Q = 0x8100;

/** Which frames a network device receives. [qemu v7.2 hw/net/virtio-net.c receive_filter] */
export class RxFilter {
  /** Modes: all frames; all of a kind; none of a kind. */
  promisc = true;
  allmulti = false;
  alluni = false;
  nomulti = false;
  nouni = false;
  nobcast = false;
  /** The device's own address. */
  mac: Uint8Array;
  /** Addresses of the table; `undefined`: there were too many, and all of the kind are received. */
  unicast: readonly Uint8Array[] | undefined = [];
  multicast: readonly Uint8Array[] | undefined = [];
  readonly #vlans = new Uint8Array(MAX_VLAN);
  readonly #ownMac: Uint8Array;

  constructor(mac: Uint8Array) {
    this.#ownMac = mac.slice(0, ETH_ALEN);
    this.mac = this.#ownMac.slice();
  }

  /** [qemu v7.2 hw/net/virtio-net.c virtio_net_reset] */
  reset(): void {
    this.promisc = true;
    this.allmulti = false;
    this.alluni = false;
    this.nomulti = false;
    this.nouni = false;
    this.nobcast = false;
    this.mac = this.#ownMac.slice();
    this.unicast = [];
    this.multicast = [];
    this.#vlans.fill(0);
  }

  /** All VLANs or none: what a driver begins with that does not, or does, filter them. */
  setAllVlans(isOn: boolean): void {
    this.#vlans.fill(isOn ? 1 : 0);
  }

  setVlan(vid: number, isOn: boolean): void {
    this.#vlans[vid] = isOn ? 1 : 0;
  }

  /** Whether the device receives the frame. One without an Ethernet header counts as zeros. */
  accepts(frame: Uint8Array): boolean {
    if (this.promisc) return true;
    if (u16(frame, 12) === ETH_P_8021Q && this.#vlans[u16(frame, 14) & 0xfff] === 0) return false;
    if (((frame[0] ?? 0) & 1) === 0) return this.#acceptsUnicast(frame);
    if (isBroadcast(frame)) return !this.nobcast;
    if (this.nomulti) return false;
    if (this.allmulti || this.multicast === undefined) return true;
    return this.multicast.some((mac) => startsWith(frame, mac));
  }

  #acceptsUnicast(frame: Uint8Array): boolean {
    if (this.nouni) return false;
    if (this.alluni || this.unicast === undefined) return true;
    return startsWith(frame, this.mac) || this.unicast.some((mac) => startsWith(frame, mac));
  }
}

function startsWith(frame: Uint8Array, mac: Uint8Array): boolean {
  return mac.every((byte, i) => frame[i] === byte);
}

function isBroadcast(frame: Uint8Array): boolean {
  for (let i = 0; i < ETH_ALEN; i += 1) if (frame[i] !== 0xff) return false;
  return true;
}

function u16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}
