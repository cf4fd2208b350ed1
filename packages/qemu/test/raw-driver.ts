/** A driver without manners: any buffers, on any queue, over the real ring. */
import { hiOf, loOf } from '@pinhole/base';
import type { DmaOps, GuestMemory } from '@pinhole/memory';
import {
  createDriverQueue,
  type DriverQueue,
  type Segment,
  type VirtioDeviceCore,
} from '@pinhole/virtio';
import { direct } from './direct-transport.js';

export interface RawDriver {
  /** Offers these pieces on a queue and kicks. */
  add(queue: number, out: readonly Segment[], inn: readonly Segment[]): void;
  /**
   * Offers new pieces of these lengths, and kicks: readable ones with `bytes` in them, writable ones
   * full of `stale` (default 0).
   */
  send(
    queue: number,
    out: readonly number[],
    inn: readonly number[],
    bytes?: Uint8Array,
    stale?: number,
  ): void;
  /** The used lengths that came back on a queue since the last call. */
  used(queue: number): number[];
  /** The writable pieces of the last `send`. */
  readonly lastIn: readonly Segment[];
  /** The bytes of these pieces. */
  read(pieces: readonly Segment[]): Uint8Array;
  /** The bytes of the writable pieces of the last `send`. */
  readIn(): Uint8Array;
}

/** All queues of the device, set up. */
export function createRawDriver(memory: GuestMemory, device: VirtioDeviceCore): RawDriver {
  const transport = direct(device);
  let next = 0x8_0000;
  const allocate = (length: number): number => {
    const gpa = Math.ceil(next / 4096) * 4096;
    next = gpa + length;
    return gpa;
  };
  const dma: DmaOps = {
    name: 'physical',
    maxMappingSize: Number.MAX_SAFE_INTEGER,
    map(gpa, _length, _direction, out): boolean {
      out.hi = hiOf(gpa);
      out.lo = loOf(gpa);
      return true;
    },
    unmap(): void {},
    allocCoherent(length, out): number {
      const gpa = allocate(length);
      out.hi = hiOf(gpa);
      out.lo = loOf(gpa);
      return gpa;
    },
    freeCoherent(): void {},
  };
  const queues: DriverQueue<null>[] = [];
  for (let index = 0; transport.queueMaxSize(index) > 0; index += 1) {
    const queue = createDriverQueue<null>({
      memory,
      dma,
      tables: { allocate, free: () => {} },
      size: transport.queueMaxSize(index),
      layoutAlign: 128,
      hasIndirect: false,
      hasEventIdx: false,
      notify: () => transport.notifyQueue(index),
    });
    if (queue === undefined) throw new Error('no room for the ring');
    transport.setupQueue(index, queue.setup);
    queues.push(queue);
  }
  const at = (index: number): DriverQueue<null> => {
    const queue = queues[index];
    if (queue === undefined) throw new Error(`no queue ${index}`);
    return queue;
  };
  let lastIn: Segment[] = [];
  const add = (index: number, out: readonly Segment[], inn: readonly Segment[]): void => {
    const queue = at(index);
    const result = queue.add(out, inn, null);
    if (result !== 'ok') throw new Error(result);
    queue.kick();
  };
  const read = (pieces: readonly Segment[]): Uint8Array =>
    Buffer.concat(
      pieces.map(({ gpa, length }) => {
        const part = new Uint8Array(length);
        memory.read(gpa, part);
        return part;
      }),
    );
  return {
    add,
    send(index, out, inn, bytes = new Uint8Array(0), stale = 0) {
      let done = 0;
      const readable = out.map((length) => {
        const gpa = allocate(length);
        const part = bytes.subarray(done, done + length);
        memory.fill(gpa, length, 0);
        memory.write(gpa, part);
        done += part.length;
        return { gpa, length };
      });
      lastIn = inn.map((length) => {
        const gpa = allocate(length);
        memory.fill(gpa, length, stale);
        return { gpa, length };
      });
      add(index, readable, lastIn);
    },
    used(index) {
      const lengths: number[] = [];
      for (;;) {
        const used = at(index).getUsed();
        if (used === undefined) return lengths;
        if (used.kind === 'bad-ring') throw new Error(used.message);
        lengths.push(used.length);
      }
    },
    get lastIn() {
      return lastIn;
    },
    read,
    readIn: () => read(lastIn),
  };
}
