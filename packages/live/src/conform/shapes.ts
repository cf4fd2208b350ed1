import { SpaprMachine } from '@pinhole/hcall';
import { createGuestMemory } from '@pinhole/memory';
import { LiveError } from '../errors.js';
import { LiveQemu } from '../live-qemu.js';
import type { HostBridgeOptions, LiveQemuOptions } from '../options.js';
import { MEMORY_SIZE } from './ops.js';

/** A machine that both sides build. */
export interface Shape {
  readonly name: string;
  readonly machineType: string;
  /** Of the bridges with index 1 and on. */
  readonly phbs: readonly HostBridgeOptions[];
  /** VIO devices with a window, by unit address. */
  readonly vio: readonly { readonly reg: number; readonly device: string }[];
}

const ALL_PAGES = 0x4_1f21_1000n;
const VIO = [
  { reg: 0x2000, device: 'spapr-vlan' },
  { reg: 0x3000, device: 'spapr-vscsi' },
];

/** Today's machine, with bridges of every kind; then old ones with their own defaults. */
export const SHAPES: readonly Shape[] = [
  {
    name: 'pseries, five host bridges, two VIO devices',
    machineType: 'pseries',
    phbs: [
      { index: 1, dma_win_size: 0x10_0000, pgsz: 0x1_1000 },
      { index: 2, ddw: false, dma_win_size: 0x20_0000 },
      // Every page size there is; windows that do not begin where their pages do.
      { index: 5, dma_win_addr: 0x1000, dma_win_size: 0x30_0000, pgsz: ALL_PAGES },
      // The one in which QEMU comes upon the second table first.
      { index: 28, dma_win_addr: 0x8000_0000, dma64_win_addr: 0x1_0000_0000_1000n },
    ],
    vio: VIO,
  },
  {
    name: 'pseries-4.1, two host bridges',
    machineType: 'pseries-4.1',
    phbs: [{ index: 1, dma_win_size: 0x10_0000 }],
    vio: VIO,
  },
  {
    name: 'pseries-2.6, two host bridges',
    machineType: 'pseries-2.6',
    phbs: [{ index: 1, dma_win_size: 0x10_0000 }],
    vio: [],
  },
];

/** The machine as `--set` options of `pinhole hcall`. */
export function settingsOf(shape: Shape): string[] {
  const bridges = shape.phbs.map((bridge) => {
    const { index, ddw, pgsz, dma_win_size, dma_win_addr, dma64_win_addr } = bridge;
    const keys = {
      index,
      ddw,
      pageSizes: pgsz,
      dmaWindowSize: dma_win_size,
      dmaWindowAddress: dma_win_addr,
      dma64WindowAddress: dma64_win_addr,
    };
    const given = Object.entries(keys).filter(([, value]) => value !== undefined);
    return `{${given.map(([key, value]) => `${key}: ${yaml(value)}`).join(', ')}}`;
  });
  const vio = shape.vio.map(({ reg }) => `{reg: 0x${reg.toString(16)}}`);
  return [
    `machine.type=${shape.machineType}`,
    `machine.hostBridges=[${bridges.join(', ')}]`,
    `machine.vio=[${vio.join(', ')}]`,
  ];
}

function yaml(value: unknown): string {
  const isLarge = typeof value === 'bigint' || (typeof value === 'number' && value > 0xffff);
  return isLarge ? `"0x${value.toString(16)}"` : String(value);
}

/** The machine in the model. */
export function modelOf(shape: Shape): SpaprMachine {
  const phbs = shape.phbs.map(
    ({ index, ddw, pgsz, dma_win_size, dma_win_addr, dma64_win_addr }) => ({
      index,
      ...(ddw === undefined ? {} : { ddw }),
      ...(pgsz === undefined ? {} : { pageSizeMask: BigInt(pgsz) }),
      ...(dma_win_size === undefined ? {} : { dmaWindowSize: Number(dma_win_size) }),
      ...(dma_win_addr === undefined ? {} : { dmaWindowAddress: BigInt(dma_win_addr as number) }),
      ...(dma64_win_addr === undefined ? {} : { dma64WindowAddress: BigInt(dma64_win_addr) }),
    }),
  );
  return new SpaprMachine({
    memory: createGuestMemory({ regions: [{ base: 0, size: MEMORY_SIZE }] }),
    machineType: shape.machineType,
    phbs: [{}, ...phbs],
    vio: shape.vio.map(({ reg }) => ({ reg })),
  });
}

/**
 * The machine in a real QEMU.
 * @returns `undefined` when this QEMU no longer has machines of that type.
 * @throws LiveError when it does not start.
 */
export function startShape(
  shape: Shape,
  options: Pick<LiveQemuOptions, 'qemu' | 'timeoutMs'>,
): LiveQemu | undefined {
  try {
    return LiveQemu.start({
      ...options,
      memory: MEMORY_SIZE,
      // Old types promise transactional memory, which TCG does not have.
      machine: `${shape.machineType},cap-htm=off`,
      phbs: shape.phbs,
      args: shape.vio.flatMap(({ reg, device }) => ['-device', `${device},reg=${reg}`]),
    });
  } catch (error) {
    const isGone = error instanceof LiveError && /unsupported machine type/.test(error.message);
    if (isGone) return undefined;
    throw error;
  }
}
