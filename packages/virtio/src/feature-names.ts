import { VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_NET } from './features.js';

type Names = Readonly<Record<number, string>>;

/** [VIRTIO v1.2 §6 "Reserved Feature Bits"] */
const COMMON: Names = {
  24: 'VIRTIO_F_NOTIFY_ON_EMPTY',
  27: 'VIRTIO_F_ANY_LAYOUT',
  28: 'VIRTIO_RING_F_INDIRECT_DESC',
  29: 'VIRTIO_RING_F_EVENT_IDX',
  30: 'VIRTIO_F_BAD_FEATURE',
  32: 'VIRTIO_F_VERSION_1',
  33: 'VIRTIO_F_ACCESS_PLATFORM',
  34: 'VIRTIO_F_RING_PACKED',
  35: 'VIRTIO_F_IN_ORDER',
  36: 'VIRTIO_F_ORDER_PLATFORM',
  37: 'VIRTIO_F_SR_IOV',
  38: 'VIRTIO_F_NOTIFICATION_DATA',
  39: 'VIRTIO_F_NOTIF_CONFIG_DATA',
  40: 'VIRTIO_F_RING_RESET',
};

/** [VIRTIO v1.2 §5.2.3 "Feature bits"] */
const BLOCK: Names = {
  0: 'VIRTIO_BLK_F_BARRIER',
  1: 'VIRTIO_BLK_F_SIZE_MAX',
  2: 'VIRTIO_BLK_F_SEG_MAX',
  4: 'VIRTIO_BLK_F_GEOMETRY',
  5: 'VIRTIO_BLK_F_RO',
  6: 'VIRTIO_BLK_F_BLK_SIZE',
  7: 'VIRTIO_BLK_F_SCSI',
  9: 'VIRTIO_BLK_F_FLUSH',
  10: 'VIRTIO_BLK_F_TOPOLOGY',
  11: 'VIRTIO_BLK_F_CONFIG_WCE',
  12: 'VIRTIO_BLK_F_MQ',
  13: 'VIRTIO_BLK_F_DISCARD',
  14: 'VIRTIO_BLK_F_WRITE_ZEROES',
  15: 'VIRTIO_BLK_F_LIFETIME',
  16: 'VIRTIO_BLK_F_SECURE_ERASE',
};

/** [VIRTIO v1.2 §5.1.3 "Feature bits"] */
const NET: Names = {
  0: 'VIRTIO_NET_F_CSUM',
  1: 'VIRTIO_NET_F_GUEST_CSUM',
  2: 'VIRTIO_NET_F_CTRL_GUEST_OFFLOADS',
  3: 'VIRTIO_NET_F_MTU',
  5: 'VIRTIO_NET_F_MAC',
  6: 'VIRTIO_NET_F_GSO',
  7: 'VIRTIO_NET_F_GUEST_TSO4',
  8: 'VIRTIO_NET_F_GUEST_TSO6',
  9: 'VIRTIO_NET_F_GUEST_ECN',
  10: 'VIRTIO_NET_F_GUEST_UFO',
  11: 'VIRTIO_NET_F_HOST_TSO4',
  12: 'VIRTIO_NET_F_HOST_TSO6',
  13: 'VIRTIO_NET_F_HOST_ECN',
  14: 'VIRTIO_NET_F_HOST_UFO',
  15: 'VIRTIO_NET_F_MRG_RXBUF',
  16: 'VIRTIO_NET_F_STATUS',
  17: 'VIRTIO_NET_F_CTRL_VQ',
  18: 'VIRTIO_NET_F_CTRL_RX',
  19: 'VIRTIO_NET_F_CTRL_VLAN',
  20: 'VIRTIO_NET_F_CTRL_RX_EXTRA',
  21: 'VIRTIO_NET_F_GUEST_ANNOUNCE',
  22: 'VIRTIO_NET_F_MQ',
  23: 'VIRTIO_NET_F_CTRL_MAC_ADDR',
  56: 'VIRTIO_NET_F_HOST_USO',
  57: 'VIRTIO_NET_F_HASH_REPORT',
  59: 'VIRTIO_NET_F_GUEST_HDRLEN',
  60: 'VIRTIO_NET_F_RSS',
  61: 'VIRTIO_NET_F_RSC_EXT',
  62: 'VIRTIO_NET_F_STANDBY',
  63: 'VIRTIO_NET_F_SPEED_DUPLEX',
};

/** [VIRTIO v1.2 §5.3.3 "Feature bits"] */
const CONSOLE: Names = {
  0: 'VIRTIO_CONSOLE_F_SIZE',
  1: 'VIRTIO_CONSOLE_F_MULTIPORT',
  2: 'VIRTIO_CONSOLE_F_EMERG_WRITE',
};

const BY_DEVICE: Readonly<Record<number, Names>> = {
  [VIRTIO_ID_NET]: NET,
  [VIRTIO_ID_BLOCK]: BLOCK,
  [VIRTIO_ID_CONSOLE]: CONSOLE,
};

/**
 * The names of the set bits, ascending. A bit that is not known for this device type prints as
 * `bit N`.
 */
export function featureNames(bits: bigint, deviceId: number): string[] {
  const own = BY_DEVICE[deviceId] ?? {};
  const names: string[] = [];
  for (let bit = 0; bit < 64; bit += 1) {
    if (((bits >> BigInt(bit)) & 1n) === 0n) continue;
    names.push(COMMON[bit] ?? own[bit] ?? `bit ${bit}`);
  }
  return names;
}
