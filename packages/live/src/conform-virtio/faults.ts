import { VIRTIO_BLK_HEADER_SIZE, VIRTIO_BLK_T_IN } from '@pinhole/virtio';
import { type Fault, type RawOutcome, type RawRequest, UNWRITTEN } from './rig.js';
import type { VirtioShape } from './shapes.js';
import type { SideGuest, VirtioSide } from './sides.js';

/** A read of 4 KiB from a disk behind the pinhole, of which something is not mapped. */
export interface FaultRow {
  /** What is not mapped. */
  readonly what: string;
  /** Of the pieces 0 (header), 1 (data) and 2 (status byte). */
  readonly faults: readonly Fault[];
  /** The ring itself loses its entries before the kick. */
  readonly isRing?: boolean;
  /** The device finds an error and cannot go on: see `PACKED_ERROR`. */
  readonly breaksDevice?: boolean;
}

/** The rows, in the order in which the docs have them. */
export const FAULT_ROWS: readonly FaultRow[] = [
  { what: 'nothing: all is mapped', faults: [] },
  { what: 'the data: no entry', faults: [{ piece: 1, how: 'unmapped' }] },
  { what: 'the data: a read-only entry', faults: [{ piece: 1, how: 'read-only' }] },
  {
    what: 'the data: a physical address in place of a bus address',
    faults: [{ piece: 1, how: 'physical' }],
  },
  { what: 'the header', faults: [{ piece: 0, how: 'unmapped' }] },
  { what: 'the status byte', faults: [{ piece: 2, how: 'unmapped' }] },
  {
    what: 'data and status byte',
    breaksDevice: true,
    faults: [
      { piece: 1, how: 'unmapped' },
      { piece: 2, how: 'unmapped' },
    ],
  },
  {
    what: 'header and data',
    breaksDevice: true,
    faults: [
      { piece: 0, how: 'unmapped' },
      { piece: 1, how: 'unmapped' },
    ],
  },
  { what: 'the ring', faults: [], isRing: true },
];

/** What the device did. */
export interface FaultOutcome {
  /** What the used ring said; undefined: the request never came back. */
  readonly used: number | undefined;
  /** Whose data is in the buffer: of the sector asked for, of sector 0, or nobody's. */
  readonly data: 'as asked' | 'sector 0' | 'unwritten' | 'other';
  /** The status byte; undefined: not written. */
  readonly status: number | undefined;
  /** The device status register. */
  readonly deviceStatus: number;
}

const SECTOR = 9;
const LENGTH = 4096;
const DONE_MS = 5_000;
const NOTHING_MS = 200;

/**
 * Carries a row out.
 * @param shape - a disk behind the pinhole: its bridge has no second window.
 * @param expected - what came out elsewhere: says whether there is an answer to wait for.
 */
function runFaultRow(
  row: FaultRow,
  shape: VirtioShape,
  guest: SideGuest,
  expected?: FaultOutcome,
): FaultOutcome {
  const rig = guest.start(shape);
  const header = new Uint8Array(VIRTIO_BLK_HEADER_SIZE);
  const view = new DataView(header.buffer);
  view.setUint32(0, VIRTIO_BLK_T_IN, true);
  view.setBigUint64(8, BigInt(SECTOR), true);
  const request: RawRequest = {
    queue: 0,
    out: [header],
    inn: [LENGTH, 1],
    faults: row.faults,
  };
  const outcome = rig.submit(request);
  if (row.isRing === true) rig.spoilRing(0);
  rig.kick(0);
  const isHung = expected !== undefined && expected.used === undefined;
  guest.side.wait(() => rig.collect() === 0, isHung ? NOTHING_MS : DONE_MS);
  rig.giveUp();
  const deviceStatus = rig.transport.readStatus();
  const result = { ...judge(outcome, guest.side, shape), deviceStatus };
  rig.close();
  return result;
}

function judge(
  outcome: RawOutcome,
  side: VirtioSide,
  shape: VirtioShape,
): Omit<FaultOutcome, 'deviceStatus'> {
  const [data = new Uint8Array(0), status] = outcome.inn;
  const disk = side.disk(shape);
  const isSector = (sector: number): boolean =>
    data.every((byte, i) => byte === disk[512 * sector + i]);
  const whose = isSector(SECTOR)
    ? 'as asked'
    : isSector(0)
      ? 'sector 0'
      : data.every((byte) => byte === UNWRITTEN)
        ? 'unwritten'
        : 'other';
  const byte = status?.[0];
  return { used: outcome.used, data: whose, status: byte === UNWRITTEN ? undefined : byte };
}

/** One line for people: `success (status 0), used 4097, data unwritten, device status 0x0f`. */
export function describeFault({ used, data, status, deviceStatus }: FaultOutcome): string {
  const answer =
    used === undefined
      ? 'no answer'
      : status === undefined
        ? `used ${used}, status byte unwritten`
        : `used ${used}, status ${status}`;
  return `${answer}, data ${data}, device status 0x${deviceStatus.toString(16).padStart(2, '0')}`;
}

/** A row on both sides. */
export interface FaultComparison {
  readonly row: FaultRow;
  readonly model: FaultOutcome;
  readonly reference: FaultOutcome;
  readonly isEqual: boolean;
}

/**
 * Carries out every row on both sides; on a packed ring those are left out that break the device
 * (see `PACKED_ERROR`).
 */
export function* compareFaults(
  shape: VirtioShape,
  model: SideGuest,
  reference: SideGuest,
): Generator<FaultComparison> {
  for (const row of FAULT_ROWS) {
    if (shape.packed && row.breaksDevice === true) continue;
    const ours = runFaultRow(row, shape, model);
    const theirs = runFaultRow(row, shape, reference, ours);
    const isEqual = describeFault(ours) === describeFault(theirs);
    yield { row, model: ours, reference: theirs, isEqual };
  }
}
