/** Through which window a device goes, from its name and its addresses. */
import type { DeviceRoute } from './guest-model.js';

/** 1 GiB. [qemu v7.2 hw/ppc/spapr_pci.c dma_win_size] */
const DEFAULT_ENTRIES = 0x4_0000;

/** How often a device's maps were at which offset from physical addresses, and how often elsewhere. */
export interface DeviceMaps {
  readonly direct: Map<bigint, number>;
  other: number;
}

/** What the addresses of a device's maps say about its route. */
export function routeFrom(maps: DeviceMaps | undefined, liobn: number): DeviceRoute {
  let offset = 0n;
  let count = 0;
  for (const [candidate, times] of maps?.direct ?? []) {
    if (times > count) [offset, count] = [candidate, times];
  }
  const isDirect = maps !== undefined && count > maps.other;
  return { kind: isDirect ? 'direct' : 'window', offset, liobn, isNeverUnmapped: false };
}

/**
 * The LIOBN of the default window of a device, from its name: a PCI device's domain is its host
 * bridge's index, a VIO device's name its unit address. [qemu v7.2 include/hw/ppc/spapr.h
 * SPAPR_PCI_LIOBN] [linux v6.1 arch/powerpc/kernel/pci-common.c get_phb_number]
 */
export function liobnOf(device: string): number {
  const pci = /^([0-9a-f]{4,8}):[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/.exec(device);
  if (pci !== null)
    return (0x8000_0000 | ((Number.parseInt(pci[1] as string, 16) & 0xff) << 8)) >>> 0;
  const vio = /^([0-9a-f]{1,8})$/.exec(device);
  return vio === null ? 0x8000_0000 : Number.parseInt(vio[1] as string, 16);
}

/** A default window of which the log has not seen the beginning. */
export function assumedWindow(liobn: number): {
  liobn: number;
  busOffset: bigint;
  size: number;
} {
  return { liobn, busOffset: 0n, size: DEFAULT_ENTRIES };
}
