import {
  ETH_ALEN,
  VIRTIO_NET_CTRL_ANNOUNCE,
  VIRTIO_NET_CTRL_ANNOUNCE_ACK,
  VIRTIO_NET_CTRL_HDR_SIZE,
  VIRTIO_NET_CTRL_MAC,
  VIRTIO_NET_CTRL_MAC_ADDR_SET,
  VIRTIO_NET_CTRL_MAC_TABLE_SET,
  VIRTIO_NET_CTRL_RX,
  VIRTIO_NET_CTRL_RX_ALLMULTI,
  VIRTIO_NET_CTRL_RX_ALLUNI,
  VIRTIO_NET_CTRL_RX_NOBCAST,
  VIRTIO_NET_CTRL_RX_NOMULTI,
  VIRTIO_NET_CTRL_RX_NOUNI,
  VIRTIO_NET_CTRL_RX_PROMISC,
  VIRTIO_NET_CTRL_VLAN,
  VIRTIO_NET_CTRL_VLAN_ADD,
  VIRTIO_NET_CTRL_VLAN_DEL,
  VIRTIO_NET_ERR,
  VIRTIO_NET_OK,
  type VirtqueueElement,
} from '@pinhole/virtio';
import type { ElementBytes } from '../../element-bytes.js';
import { MAC_TABLE_ENTRIES, MAX_VLAN, type RxFilter } from './rx-filter.js';

const COUNT_SIZE = 4;

/** What commands act on. */
export interface NetControlTarget {
  readonly bytes: ElementBytes;
  readonly filter: RxFilter;
  /** The device has another address. */
  readonly setMac: (mac: Uint8Array) => void;
  /** The driver has heard; false: it was not asked. */
  readonly acknowledgeAnnounce: () => boolean;
}

/**
 * Executes a command of the control queue: its status, or undefined when there is no room for the
 * command or for the status. Features are not asked for: QEMU obeys without.
 * [qemu v7.2 hw/net/virtio-net.c virtio_net_handle_ctrl_iov]
 *
 * Deviates: queue pairs (MQ) and offloads are not modelled: their classes answer an error, as in
 * QEMU when the features were not negotiated.
 */
export function handleNetControl(
  target: NetControlTarget,
  element: VirtqueueElement,
): number | undefined {
  const size = element.outBytes - VIRTIO_NET_CTRL_HDR_SIZE;
  if (element.inBytes < 1 || size < 0) return undefined;
  const header = new Uint8Array(VIRTIO_NET_CTRL_HDR_SIZE);
  target.bytes.readOut(element, 0, header);
  const [kind, command = 0] = header;
  const isDone = ((): boolean => {
    switch (kind) {
      case VIRTIO_NET_CTRL_RX:
        return setRxMode(target, element, command);
      case VIRTIO_NET_CTRL_MAC:
        return setMac(target, element, command, size);
      case VIRTIO_NET_CTRL_VLAN:
        return setVlan(target, element, command);
      case VIRTIO_NET_CTRL_ANNOUNCE:
        return command === VIRTIO_NET_CTRL_ANNOUNCE_ACK && target.acknowledgeAnnounce();
      default:
        return false;
    }
  })();
  return isDone ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
}

// The command's own bytes from `offset` on; undefined when they end too early.
function read(
  { bytes }: NetControlTarget,
  element: VirtqueueElement,
  offset: number,
  length: number,
): Uint8Array | undefined {
  const into = new Uint8Array(length);
  const found = bytes.readOut(element, VIRTIO_NET_CTRL_HDR_SIZE + offset, into);
  return found === length ? into : undefined;
}

const RX_MODES = {
  [VIRTIO_NET_CTRL_RX_PROMISC]: 'promisc',
  [VIRTIO_NET_CTRL_RX_ALLMULTI]: 'allmulti',
  [VIRTIO_NET_CTRL_RX_ALLUNI]: 'alluni',
  [VIRTIO_NET_CTRL_RX_NOMULTI]: 'nomulti',
  [VIRTIO_NET_CTRL_RX_NOUNI]: 'nouni',
  [VIRTIO_NET_CTRL_RX_NOBCAST]: 'nobcast',
} as const satisfies Readonly<Record<number, keyof RxFilter>>;

/** [qemu v7.2 hw/net/virtio-net.c virtio_net_handle_rx_mode] */
function setRxMode(target: NetControlTarget, element: VirtqueueElement, command: number): boolean {
  const on = read(target, element, 0, 1);
  const mode = RX_MODES[command as keyof typeof RX_MODES];
  if (on === undefined || mode === undefined) return false;
  target.filter[mode] = on[0] !== 0;
  return true;
}

/** [qemu v7.2 hw/net/virtio-net.c virtio_net_handle_mac] */
function setMac(
  target: NetControlTarget,
  element: VirtqueueElement,
  command: number,
  size: number,
): boolean {
  if (command === VIRTIO_NET_CTRL_MAC_ADDR_SET) {
    const mac = size === ETH_ALEN ? read(target, element, 0, ETH_ALEN) : undefined;
    if (mac === undefined) return false;
    target.setMac(mac);
    return true;
  }
  if (command !== VIRTIO_NET_CTRL_MAC_TABLE_SET) return false;
  const unicast = readTable(target, element, 0, MAC_TABLE_ENTRIES);
  if (unicast === undefined) return false;
  const room = MAC_TABLE_ENTRIES - (unicast.macs?.length ?? 0);
  const multicast = readTable(target, element, unicast.end, room);
  // The second table ends with the command.
  if (multicast?.end !== size) return false;
  target.filter.unicast = unicast.macs;
  target.filter.multicast = multicast.macs;
  return true;
}

// A table that does not fit is skipped, and has no addresses.
function readTable(
  target: NetControlTarget,
  element: VirtqueueElement,
  offset: number,
  room: number,
): { readonly macs: readonly Uint8Array[] | undefined; readonly end: number } | undefined {
  const count = read(target, element, offset, COUNT_SIZE);
  if (count === undefined) return undefined;
  const entries = new DataView(count.buffer).getUint32(0, true);
  const start = offset + COUNT_SIZE;
  // QEMU multiplies in 32 bits; a count so large that it wraps fails there by another check.
  const end = start + entries * ETH_ALEN;
  if (end + VIRTIO_NET_CTRL_HDR_SIZE > element.outBytes) return undefined;
  if (entries > room) return { macs: undefined, end };
  const all = read(target, element, start, entries * ETH_ALEN);
  if (all === undefined) return undefined;
  const macs = Array.from({ length: entries }, (_, i) =>
    all.slice(i * ETH_ALEN, (i + 1) * ETH_ALEN),
  );
  return { macs, end };
}

/** [qemu v7.2 hw/net/virtio-net.c virtio_net_handle_vlan_table] */
function setVlan(target: NetControlTarget, element: VirtqueueElement, command: number): boolean {
  const bytes = read(target, element, 0, 2);
  if (bytes === undefined) return false;
  const vid = new DataView(bytes.buffer).getUint16(0, true);
  const isAdd = command === VIRTIO_NET_CTRL_VLAN_ADD;
  if (vid >= MAX_VLAN || (!isAdd && command !== VIRTIO_NET_CTRL_VLAN_DEL)) return false;
  target.filter.setVlan(vid, isAdd);
  return true;
}
