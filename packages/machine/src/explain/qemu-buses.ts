/** Buses that a QEMU command line makes, and what their place means for a virtio device. */
import type { PlatformId } from './facts.js';
import type { QemuCommand } from './qemu-command.js';
import { lastValue, parseOnOff } from './qemu-opts.js';

/** A PCI bus. */
export interface Bus {
  readonly name: string;
  /** `port`: behind a PCI Express port, where `disable-legacy=auto` is `on`. */
  readonly kind: 'conventional' | 'express-root' | 'port';
  /** Index of the pseries host bridge above it; 0 elsewhere. */
  readonly bridge: number;
  /** It takes bridges only. */
  readonly isForBridges: boolean;
  /** Its devices go past the emulated IOMMU. */
  readonly isPastViommu: boolean;
}

/** Bridges and ports by driver. [qemu v7.2 hw/pci-bridge/] */
const BRIDGES: Readonly<Record<string, Bus['kind']>> = {
  'pci-bridge': 'conventional',
  'pcie-pci-bridge': 'conventional',
  'i82801b11-bridge': 'conventional',
  'pcie-root-port': 'port',
  ioh3420: 'port',
  'x3130-upstream': 'port',
  'xio3130-downstream': 'port',
  pxb: 'conventional',
  'pxb-pcie': 'express-root',
};

/** Finds the bus of a device; `undefined` when there is none of that name. */
export class Buses {
  readonly #buses: Bus[] = [];

  constructor(command: QemuCommand, platform: PlatformId, machineType: string) {
    const bypass =
      lastValue(command.machine, 'default-bus-bypass-iommu') ??
      lastValue(command.machine, 'default_bus_bypass_iommu');
    const isExpress = /^(q35|pc-q35|virt)/.test(machineType) || platform === 'powernv';
    this.#buses.push({
      name: isExpress ? 'pcie.0' : 'pci.0',
      kind: isExpress ? 'express-root' : 'conventional',
      bridge: 0,
      isForBridges: false,
      isPastViommu: parseOnOff(bypass ?? '') === true,
    });
    let unnamed = 1;
    for (const { opts } of command.devices) {
      const driver = lastValue(opts, 'driver') ?? '';
      const id = lastValue(opts, 'id');
      if (driver === 'spapr-pci-host-bridge') {
        const bridge = Number(lastValue(opts, 'index') ?? 0);
        // Buses without an id are numbered as they come.
        const name = id === undefined ? `pci.${unnamed}` : `${id}.0`;
        if (id === undefined) unnamed += 1;
        this.#buses.push({
          name,
          kind: 'conventional',
          bridge,
          isForBridges: false,
          isPastViommu: false,
        });
        continue;
      }
      const kind = Object.hasOwn(BRIDGES, driver) ? BRIDGES[driver] : undefined;
      if (kind === undefined || id === undefined) continue;
      const parent = this.find(lastValue(opts, 'bus'));
      this.#buses.push({
        name: id,
        kind,
        bridge: parent?.bridge ?? 0,
        isForBridges: driver === 'pxb-pcie',
        isPastViommu: driver.startsWith('pxb')
          ? parseOnOff(lastValue(opts, 'bypass_iommu') ?? '') === true
          : parent?.isPastViommu === true,
      });
    }
  }

  /** `bus=` as given; without it the first bus. */
  find(name: string | undefined): Bus | undefined {
    if (name === undefined) return this.#buses[0];
    return this.#buses.find((bus) => bus.name === name || (name === 'pci' && bus.name === 'pci.0'));
  }
}
