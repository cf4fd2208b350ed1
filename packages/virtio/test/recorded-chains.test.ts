import { readFileSync } from 'node:fs';
import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import { expect, test } from 'vitest';
import { BOUNCED, createSpaceMapper, type DmaMapper, VIRTIO_ID_BLOCK } from '../src/index.js';
import { DirectDevice } from './support/direct-transport.js';

interface Recorded {
  readonly features: string;
  readonly head: number;
  readonly desc: string;
  readonly descriptors: string;
  readonly table: string;
  readonly atZero: string;
  readonly pops: readonly { readonly inNum: number; readonly outNum: number }[];
  readonly errors: readonly string[];
  readonly status?: number;
  readonly used?: string;
}

const file = new URL('./vectors/qemu7.2-chains.ndjson', import.meta.url);
const cases = readFileSync(file, 'utf8')
  .trimEnd()
  .split('\n')
  .map((line, index): [number, string, Recorded] => {
    const recorded = JSON.parse(line) as Recorded;
    return [index + 1, recorded.errors[0] ?? 'no error', recorded];
  });

/** As QEMU maps: what is no memory goes to one bounce buffer of a page, if it is free. */
function bouncing(inner: DmaMapper): DmaMapper {
  let isInUse = false;
  return {
    map(hi, lo, length, isDeviceWritable, out): boolean {
      if (inner.map(hi, lo, length, isDeviceWritable, out)) return true;
      if (isInUse) return false;
      isInUse = true;
      out.gpa = BOUNCED;
      out.length = Math.min(length, 4096);
      return true;
    },
    unmap(gpa): void {
      if (gpa === BOUNCED) isInUse = false;
    },
  };
}

const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'));

test.each(cases)('line %i: %s', (_line, _error, recorded) => {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 28 }] });
  memory.write(0, bytes(recorded.atZero));
  memory.write(0x1_0000, bytes(recorded.descriptors));
  memory.write(0x4_0000, bytes(recorded.table));
  memory.writeU16Le(0x2_0002, 1);
  memory.writeU16Le(0x2_0004, recorded.head);
  const space = createSystemMemorySpace(memory);
  const pops: { inNum: number; outNum: number }[] = [];
  const core = new DirectDevice({
    deviceId: VIRTIO_ID_BLOCK,
    features: BigInt(recorded.features),
    memory,
    space,
    mapper: bouncing(createSpaceMapper(space)),
    queues: [
      {
        maxSize: 256,
        handleOutput(queue): void {
          do {
            queue.setNotification(false);
            for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
              pops.push({ inNum: element.inNum, outNum: element.outNum });
            }
            queue.setNotification(true);
          } while (!queue.isEmpty());
        },
      },
    ],
  });
  for (const status of [1, 3]) core.writeStatus(status);
  core.writeDriverFeatures(BigInt(recorded.features));
  core.writeStatus(11);
  const [desc, avail, used] = [BigInt(recorded.desc), 0x2_0000n, 0x3_0000n];
  core.setupQueue(0, { size: 8, desc, avail, used });
  core.writeStatus(15);
  expect({ pops, errors: core.errors }).toEqual({
    pops: recorded.pops,
    errors: recorded.errors,
  });
  if (recorded.status !== undefined) expect(core.readStatus()).toBe(recorded.status);
  if (recorded.used !== undefined) {
    const ring = new Uint8Array(72);
    memory.read(0x3_0000, ring);
    expect(Buffer.from(ring).toString('hex')).toBe(recorded.used);
  }
});
