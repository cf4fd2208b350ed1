import type { Architecture } from '../architecture.js';
import { architectures } from '../architectures/index.js';
import { parseScenario } from '../scenario.js';
import type { Scenario } from '../scenario-config.js';
import { type MatrixCell, type MatrixPlatform, matrixPlatforms, parseCellId } from './axes.js';

/** Bytes of the disk that a cell is run with. */
export const MATRIX_DISK_SIZE: number = 2 ** 20;

/**
 * Small, and yet: less than a page, a page, a large guest page, more than a bounce buffer takes at
 * once; what was written is read again.
 */
const WORKLOAD = [
  { read: { offset: 0, length: '16KiB', block: '4KiB' } },
  { read: { offset: '16KiB', length: 512, block: 512 } },
  { read: { offset: '64KiB', length: '128KiB', block: '64KiB' } },
  { read: { offset: '256KiB', length: '512KiB', block: '512KiB' } },
  { write: { offset: 0, length: '8KiB', block: '4KiB' } },
  { write: { offset: '32KiB', length: 512, block: 512 } },
  { write: { offset: '768KiB', length: '128KiB', block: '64KiB' } },
  { read: { offset: '768KiB', length: '128KiB', block: '64KiB' } },
  { read: { offset: 0, length: '8KiB', block: '4KiB' } },
];

/**
 * The scenario of a cell as a file for `pinhole run`: YAML.
 * @throws MatrixError `E_MATRIX_CELL`
 */
export function scenarioTextOfCell(
  id: string,
  known: readonly Architecture[] = architectures,
): string {
  const cell = parseCellId(id, known);
  const platform = matrixPlatforms(known).find((each) => each.id === cell.platform);
  const { architecture, variant } = platform as MatrixPlatform;
  const flow = (value: object): string => JSON.stringify(value);
  const lines = [
    `title: ${JSON.stringify(cell.id)}`,
    `machine: ${flow({ arch: architecture.id, ...variant.machine })}`,
    `guest: ${flow({ kernel: cell.policy, ...variant.guest, secure: cell.secure })}`,
    'devices:',
    `  - ${flow(deviceOf(cell))}`,
    'workload:',
    ...WORKLOAD.map((operation) => `  - ${flow(operation)}`),
    'seed: 1',
  ];
  return `${lines.join('\n')}\n`;
}

/**
 * The same, checked and complete.
 * @throws MatrixError `E_MATRIX_CELL`
 */
export function scenarioOfCell(
  id: string,
  known: readonly Architecture[] = architectures,
): Scenario {
  return parseScenario(scenarioTextOfCell(id, known), { architectures: known });
}

function deviceOf({ flag, vhost, ring }: MatrixCell): object {
  return {
    type: 'virtio-blk',
    iommuPlatform: flag,
    packed: ring === 'packed',
    indirect: ring !== 'split-noindirect',
    ...(vhost ? { vhost: 'on' } : {}),
  };
}
