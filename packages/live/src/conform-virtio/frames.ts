import type { Rng } from '@pinhole/base';
import {
  VIRTIO_NET_CTRL_MAC,
  VIRTIO_NET_CTRL_MAC_ADDR_SET,
  VIRTIO_NET_CTRL_MAC_TABLE_SET,
  VIRTIO_NET_CTRL_RX,
  VIRTIO_NET_CTRL_VLAN,
  VIRTIO_NET_HDR_SIZE,
} from '@pinhole/virtio';
import type { NamedRequest } from './requests.js';
import { hubOf, macOf, type VirtioShape } from './shapes.js';

const RX = 0;
const TX = 1;
const CTRL = 2;
/** Buffers that a device has at most: more would not fit its queue. */
const MAX_BUFFERS = 60;
const HEADERS = [VIRTIO_NET_HDR_SIZE];

/** The devices on the hub of `shape`, that one first. */
export function networkOf(shape: VirtioShape, shapes: readonly VirtioShape[]): VirtioShape[] {
  const others = shapes.filter(
    (other) => other !== shape && other.type === 'net' && hubOf(other) === hubOf(shape),
  );
  return [shape, ...others];
}

/** Makes up what the devices of a network send, get buffers for, and are told to filter. */
export class FrameGenerator {
  readonly #rng: Rng;
  readonly #macs: readonly Uint8Array[];
  /** Buffers that each device may still have. */
  readonly #buffers: number[];

  constructor(rng: Rng, shapes: readonly VirtioShape[]) {
    this.#rng = rng;
    this.#macs = shapes.map((shape) => macBytes(macOf(shape)));
    this.#buffers = shapes.map(() => 0);
  }

  /** Buffers for the receivers, then a command or some frames of one sender. */
  batch(): NamedRequest[] {
    const sender = this.#below(this.#macs.length);
    const buffers: NamedRequest[] = [];
    for (let member = 0; member < this.#macs.length; member += 1) {
      for (let n = 0; n < 4 && (this.#buffers[member] ?? 0) < MAX_BUFFERS; n += 1) {
        this.#buffers[member] = (this.#buffers[member] ?? 0) + 1;
        buffers.push(this.#buffer(member));
      }
    }
    if (this.#chance(0.2)) return [...buffers, this.#command(sender)];
    // Frames of up to 1514 bytes: each takes at most three buffers of 600 bytes and more.
    const frames = Array.from({ length: 1 + this.#below(2) }, () => this.#frame(sender));
    for (let member = 0; member < this.#buffers.length; member += 1) {
      this.#buffers[member] = Math.max(0, (this.#buffers[member] ?? 0) - frames.length);
    }
    return [...buffers, ...frames];
  }

  #buffer(member: number): NamedRequest {
    const length = this.#pick([1526, 2048, 600 + this.#below(1000), 4096]);
    const pieces = this.#chance(0.3) ? [VIRTIO_NET_HDR_SIZE, length] : [length];
    return { name: 'buffer', member, queue: RX, out: [], inn: pieces };
  }

  #frame(sender: number): NamedRequest {
    const length = this.#pick([14, 60, 61, 1000, 1514, 14 + this.#below(1500)]);
    const bytes = new Uint8Array(VIRTIO_NET_HDR_SIZE + length).map(() => this.#rng.nextU32());
    bytes.fill(0, 0, VIRTIO_NET_HDR_SIZE);
    bytes.set(this.#destination(sender), VIRTIO_NET_HDR_SIZE);
    bytes.set(this.#macs[sender] ?? [], VIRTIO_NET_HDR_SIZE + 6);
    if (this.#chance(0.2) && length >= 18) {
      // A VLAN tag.
      bytes.set([0x81, 0, this.#below(2), this.#below(4)], VIRTIO_NET_HDR_SIZE + 12);
    }
    const cuts = [...(this.#chance(0.5) ? HEADERS : []), 1 + this.#below(bytes.length - 1)];
    return { name: 'frame', member: sender, queue: TX, out: cut(bytes, cuts), inn: [] };
  }

  #destination(sender: number): Uint8Array {
    const kinds = [
      () => this.#macs[(sender + 1) % this.#macs.length] ?? new Uint8Array(6),
      () => this.#macs[(sender + 1) % this.#macs.length] ?? new Uint8Array(6),
      () => new Uint8Array(6).fill(0xff),
      () => Uint8Array.of(0x01, 0x00, 0x5e, 0, 0, this.#below(3)),
      () => Uint8Array.of(0x52, 0x54, 0, 0, 0xff, this.#below(3)),
    ];
    return this.#pick(kinds)();
  }

  #command(member: number): NamedRequest {
    const kinds: (() => { of: number; command: number; data: Uint8Array })[] = [
      () => ({
        of: VIRTIO_NET_CTRL_RX,
        command: this.#below(7),
        data: Uint8Array.of(this.#below(2)).subarray(0, this.#chance(0.1) ? 0 : 1),
      }),
      () => ({
        of: VIRTIO_NET_CTRL_VLAN,
        command: this.#below(3),
        data: Uint8Array.of(this.#below(4), this.#chance(0.1) ? 0x20 : 0),
      }),
      () => ({
        of: VIRTIO_NET_CTRL_MAC,
        command: VIRTIO_NET_CTRL_MAC_TABLE_SET,
        data: this.#macTable(),
      }),
      () => ({
        of: VIRTIO_NET_CTRL_MAC,
        command: VIRTIO_NET_CTRL_MAC_ADDR_SET,
        data: (this.#macs[member] ?? new Uint8Array(6)).slice(0, this.#pick([6, 6, 5])),
      }),
      () => ({ of: 7 + this.#below(3), command: this.#below(3), data: new Uint8Array(1) }),
    ];
    const { of, command, data } = this.#pick(kinds)();
    const out = [Uint8Array.of(of, command), ...(data.length > 0 ? [data] : [])];
    return { name: 'command', member, queue: CTRL, out, inn: [1] };
  }

  #macTable(): Uint8Array {
    const tables = [this.#below(3), this.#below(3)].map((count, multicast) => {
      const table = new Uint8Array(4 + 6 * count);
      new DataView(table.buffer).setUint32(0, this.#chance(0.1) ? 1000 : count, true);
      for (let i = 0; i < count; i += 1) {
        const mac = multicast === 1 ? [0x01, 0, 0x5e, 0, 0, i] : [0x52, 0x54, 0, 0, 0xff, i];
        table.set(mac, 4 + 6 * i);
      }
      return table;
    });
    return concat(tables);
  }

  #below(n: number): number {
    return this.#rng.below(n);
  }

  #chance(p: number): boolean {
    return this.#rng.nextU32() < p * 2 ** 32;
  }

  #pick<T>(from: readonly T[]): T {
    return from[this.#below(from.length)] as T;
  }
}

/** The six bytes of `52:54:00:12:34:56`. */
export function macBytes(mac: string): Uint8Array {
  return Uint8Array.from(mac.split(':'), (byte) => Number.parseInt(byte, 16));
}

function cut(bytes: Uint8Array, at: readonly number[]): Uint8Array[] {
  const ends = [...new Set([0, ...at, bytes.length])].sort((a, b) => a - b);
  return ends.slice(1).map((end, i) => bytes.subarray(ends[i], end));
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
