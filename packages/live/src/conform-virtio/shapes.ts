import type { SpaprMachineOptions } from '@pinhole/hcall';
import type { LiveQemuOptions } from '../options.js';

/** A device that both sides have. */
export interface VirtioShape {
  readonly type: 'blk' | 'rng' | 'net';
  /** Its slot on the bus. */
  readonly slot: number;
  /** 0: a bridge that can have a second window; 1: one that cannot. */
  readonly bridge: 0 | 1;
  readonly iommuPlatform: boolean;
  readonly packed: boolean;
  readonly indirect: boolean;
  readonly eventIdx: boolean;
  /** Driven through the legacy interface of a transitional device: big-endian, as our guest is. */
  readonly isLegacy?: boolean;
}

/** For people, and as `--device` selects it: `blk packed noindirect iommu pinhole`. */
export function shapeName(shape: VirtioShape): string {
  return [
    shape.type,
    shape.isLegacy === true ? 'legacy' : shape.packed ? 'packed' : 'split',
    shape.indirect ? 'indirect' : 'noindirect',
    shape.eventIdx ? 'eventidx' : 'noeventidx',
    shape.iommuPlatform ? (shape.bridge === 0 ? 'ddw' : 'pinhole') : 'bypass',
  ].join('-');
}

/** Every combination of ring, indirect tables and notification, on every path to memory. */
export const VIRTIO_SHAPES: readonly VirtioShape[] = makeShapes();

function makeShapes(): VirtioShape[] {
  const paths = [
    { iommuPlatform: false, bridge: 0 },
    { iommuPlatform: true, bridge: 0 },
    { iommuPlatform: true, bridge: 1 },
  ] as const;
  const shapes: VirtioShape[] = [];
  const nextSlot = [1, 1];
  const add = (shape: Omit<VirtioShape, 'slot'>): void => {
    const slot = nextSlot[shape.bridge] ?? 1;
    nextSlot[shape.bridge] = slot + 1;
    shapes.push({ ...shape, slot });
  };
  for (const path of paths) {
    for (let bits = 0; bits < 8; bits += 1) {
      const [packed, indirect, eventIdx] = [(bits & 1) !== 0, (bits & 2) !== 0, (bits & 4) !== 0];
      add({ type: 'blk', ...path, packed, indirect, eventIdx });
    }
    for (const type of ['rng', 'net'] as const) {
      for (const packed of [false, true]) {
        add({ type, ...path, packed, indirect: true, eventIdx: true });
      }
    }
  }
  for (let bits = 0; bits < 4; bits += 1) {
    const [indirect, eventIdx] = [(bits & 1) !== 0, (bits & 2) !== 0];
    add({ type: 'blk', ...paths[0], packed: false, indirect, eventIdx, isLegacy: true });
  }
  return shapes;
}

/** Bytes of a disk. */
export const DISK_SIZE = 0x10_0000;
/** `serial=`: what GET_ID answers. */
export const SERIAL = 'pinhole';

/** The machine of the model. */
export const SPAPR_OPTIONS: Omit<SpaprMachineOptions, 'memory'> = {
  phbs: [{}, { index: 1, ddw: false }],
};

/**
 * The machine of a real QEMU.
 * @param paths - of the disks by slot and bridge, and of what the entropy devices read.
 */
export function qemuOptions(
  shapes: readonly VirtioShape[],
  paths: { readonly disk: (shape: VirtioShape) => string; readonly entropy: string },
): Pick<LiveQemuOptions, 'phbs' | 'args'> {
  const args = shapes.flatMap((shape) => {
    const { type, slot, bridge } = shape;
    const id = `${type}${bridge}x${slot}`;
    const onOff = (is: boolean): string => (is ? 'on' : 'off');
    const properties = [
      `disable-legacy=${onOff(shape.isLegacy !== true)}`,
      `bus=${bridge === 0 ? 'pci.0' : 'phb1.0'}`,
      `addr=0x${slot.toString(16)}`,
      `iommu_platform=${onOff(shape.iommuPlatform)}`,
      `packed=${onOff(shape.packed)}`,
      `indirect_desc=${onOff(shape.indirect)}`,
      `event_idx=${onOff(shape.eventIdx)}`,
    ].join(',');
    if (type === 'blk') {
      return [
        ...['-drive', `if=none,id=${id},format=raw,file=${paths.disk(shape)}`],
        ...['-device', `virtio-blk-pci,drive=${id},serial=${SERIAL},${properties}`],
      ];
    }
    if (type === 'rng') {
      return [
        ...['-object', `rng-random,id=${id},filename=${paths.entropy}`],
        ...['-device', `virtio-rng-pci,rng=${id},${properties}`],
      ];
    }
    return [
      ...['-netdev', `hubport,id=${id},hubid=${hubOf(shape)}`],
      ...['-device', `virtio-net-pci,netdev=${id},mac=${macOf(shape)},romfile=,${properties}`],
    ];
  });
  return { phbs: [{ index: 1, ddw: false }], args };
}

/** The two network devices of a path share a hub: what one sends the other receives. */
export function hubOf({ bridge, iommuPlatform }: VirtioShape): number {
  return bridge * 2 + (iommuPlatform ? 1 : 0);
}

/** A locally administered address for each device. */
export function macOf({ bridge, slot }: VirtioShape): string {
  return `52:54:00:00:0${bridge}:${slot.toString(16).padStart(2, '0')}`;
}
