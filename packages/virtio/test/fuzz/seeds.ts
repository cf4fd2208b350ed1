import {
  DEVICE_EVENT_IDX,
  DEVICE_IN_ORDER,
  DEVICE_IOMMU,
  DEVICE_WINDOWS,
  DeviceOp,
} from './device-op.js';
import { byteOfSize } from './device-rings.js';
import { DRIVER_EVENT_IDX, DRIVER_IN_ORDER, DRIVER_INDIRECT, DriverOp } from './driver-op.js';
import { byteOfLength, STEP } from './program.js';

/** One line of `vectors/qemu7.2-chains.ndjson`. */
interface RecordedChain {
  readonly features: string;
  readonly head: number;
  readonly desc: string;
  readonly descriptors: string;
  readonly table: string;
}

const INDIRECT = 4;
const EVENT_IDX = 1n << 29n;

/** What a recorded address is in a program: a page or a far place, and an offset. */
function addressBytes(address: bigint): readonly [page: number, offset: number] {
  if (address >= 1n << 48n) return [address >= 1n << 63n ? 254 : 248, 0];
  if (address >= 0xfff_0000n) return [242, 0];
  // The recorded table, and what is beside it.
  if (address >> 12n === 0x40n) return [16, address & 0xfffn ? 6 : 0];
  if (address === 0n) return [32, 0];
  const page = 32 + Number((address >> 12n) & 31n);
  return [page, (address & 0xff0n) === 0xff0n ? 2 : (address & 0x10n) > 0n ? 1 : 0];
}

function descriptorSteps(hex: string, place: number, packed: boolean): number[] {
  const bytes = Buffer.from(hex, 'hex');
  const steps: number[] = [];
  for (let at = 0; at + 16 <= bytes.length; at += 16) {
    const [page, offset] = addressBytes(bytes.readBigUInt64LE(at));
    const flags = bytes.readUInt16LE(at + 12);
    const next = bytes.readUInt16LE(at + 14);
    const length = byteOfLength(bytes.readUInt32LE(at + 8));
    const high = packed && place === 0 ? 1 : 0;
    const table = (flags & INDIRECT) !== 0 && page === 16;
    steps.push(DeviceOp.WRITE_DESC, place + at / 16, flags & 7, high, Math.min(next, 255));
    steps.push(page, table ? 0 : offset, length);
  }
  return steps;
}

/** What a device half sees of the rings that QEMU was shown. */
export function chainSeeds(ndjson: string, isPacked: boolean): Uint8Array[] {
  return ndjson
    .trimEnd()
    .split('\n')
    .map((line, index) => {
      const recorded = JSON.parse(line) as RecordedChain;
      const hasEvents = (BigInt(recorded.features) & EVENT_IDX) !== 0n;
      const flags =
        (hasEvents ? DEVICE_EVENT_IDX : 0) |
        (index % 4 === 0 ? DEVICE_IN_ORDER : 0) |
        (index % 3 === 0 ? DEVICE_IOMMU : 0) |
        (index % 2 === 0 ? DEVICE_WINDOWS : 0);
      const where = BigInt(recorded.desc) === 0x1_0000n ? 0 : index % 2 === 0 ? 5 : 8;
      const { head } = recorded;
      const exposes = isPacked ? [] : [DeviceOp.EXPOSE, head & 255, head >> 8, 0, 0, 0, 0, 0];
      const usesTable = recorded.descriptors.slice(24, 32) === '04000000' || index % 5 === 0;
      return Uint8Array.from([
        ...[flags, 0, byteOfSize(8), where, 0, 0, 0, 0],
        ...descriptorSteps(recorded.descriptors, 0, isPacked),
        ...(usesTable ? descriptorSteps(recorded.table, 0x80, isPacked) : []),
        ...exposes,
        ...[DeviceOp.AVAIL_BYTES, 22, 22, 0, 0, 0, 0, 0],
        ...[DeviceOp.DRAIN, 8, 0, 0, 0, 0, 0, 0],
      ]);
    });
}

/** The requests of a recorded guest: `dma_map_page` lines, a buffer's pieces and then its table. */
function recordedBuffers(trace: string): { out: number; inn: number; isIndirect: boolean }[] {
  const buffers: { out: number; inn: number; isIndirect: boolean }[] = [];
  let out = 0;
  let inn = 0;
  let lastSize = 0;
  const end = (): void => {
    // A table is the last piece, and holds 16 bytes for each of the others.
    const isIndirect = lastSize === 16 * (out + inn - 1) && out + inn > 2;
    if (out + inn > 0) buffers.push({ out: isIndirect ? out - 1 : out, inn, isIndirect });
    out = 0;
    inn = 0;
  };
  for (const line of trace.split('\n')) {
    const map = /dma_map_page: .*dir=(\w+) .* size=(\d+)/.exec(line);
    if (map === null) {
      end();
      continue;
    }
    lastSize = Number(map[2]);
    if (map[1] === 'TO_DEVICE') out += 1;
    else inn += 1;
  }
  end();
  return buffers;
}

/** What a recorded driver did, in a device's and in a driver's program. */
export function traceSeeds(trace: string): { device: Uint8Array; driver: Uint8Array } {
  const device = [DEVICE_EVENT_IDX | DEVICE_IOMMU, 0, byteOfSize(256), 0, 0, 0, 0, 0];
  const driver = [DRIVER_EVENT_IDX, 7, 0, 0, 0, 0, 0, 0];
  for (const { out, inn, isIndirect } of recordedBuffers(trace)) {
    if (isIndirect) driver[0]! |= DRIVER_INDIRECT;
    device.push(DeviceOp.OFFER, out | (inn << 2) | (isIndirect ? 16 : 0), 0, 0, 0, 0, 0, 0);
    device.push(DeviceOp.DRAIN, 1, 0, 0, 0, 0, 0, 0);
    driver.push(DriverOp.ADD, out | (inn << 3), 0, 0, 0, 0, 0, 0);
    driver.push(DriverOp.KICK, 0, 0, 0, 0, 0, 0, 0);
    driver.push(DriverOp.USE, 0, 1, 0, 0, 0, 0, 0);
    driver.push(DriverOp.NOTE_INTERRUPT, 0, 0, 0, 0, 0, 0, 0);
    driver.push(DriverOp.DISABLE, 0, 0, 0, 0, 0, 0, 0);
    driver.push(DriverOp.GET, 0, 0, 0, 0, 0, 0, 0);
    driver.push(DriverOp.ENABLE, 0, 0, 0, 0, 0, 0, 0);
  }
  return { device: Uint8Array.from(device), driver: Uint8Array.from(driver) };
}

/** Long ways that chance seldom finds: laps around the ring, in order, with everything on. */
export function lapSeeds(): { device: Uint8Array; driver: Uint8Array } {
  const device = [DEVICE_EVENT_IDX | DEVICE_IN_ORDER, 0, byteOfSize(4), 0, 0xfd, 0xff, 0, 0];
  const driver = [DRIVER_EVENT_IDX | DRIVER_IN_ORDER | DRIVER_INDIRECT, 3, 0, 0, 0, 0, 0, 0];
  for (let lap = 0; lap < 5; lap += 1) {
    device.push(DeviceOp.OFFER, 5, lap, 0, 0, 0, 0, 0, DeviceOp.OFFER, 20, lap, 0, 0, 0, 0, lap);
    device.push(DeviceOp.POP, 1, 0, 0, 0, 0, 0, 0, DeviceOp.SAVE, lap & 1, 0, 0, 0, 0, 0, 0);
    device.push(DeviceOp.BATCH, 1, 1, 16, 0, 0, 0, 0, DeviceOp.SHOULD_NOTIFY, 0, 0, 0, 0, 0, 0, 0);
    driver.push(DriverOp.ADD, 1, lap, 0, 0, 0, 0, 0, DriverOp.ADD, 9, lap, 0, 0, 0, 0, 0);
    driver.push(DriverOp.USE, 1, 1, 0, 0, 0, 0, 0, DriverOp.GET, 1, 0, 0, 0, 0, 0, 0);
  }
  if (device.length % STEP !== 0) throw new Error('a step is incomplete');
  return { device: Uint8Array.from(device), driver: Uint8Array.from(driver) };
}
