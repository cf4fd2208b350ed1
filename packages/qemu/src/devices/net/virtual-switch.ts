import type { NetBackend } from './net-backend.js';

/** Options of {@link createVirtualSwitch}. */
export interface VirtualSwitchOptions {
  /** Addresses that are learned at most. Default 1024. */
  readonly maxAddresses?: number;
  /** Frames on their way at most; more are dropped. Default 4096. */
  readonly maxFrames?: number;
}

/** A switch between network devices. */
export interface VirtualSwitch {
  /** A new port, for one device. */
  createPort(): NetBackend;
  /** How many addresses the switch knows. */
  readonly addresses: number;
  /** How many frames were dropped. */
  readonly dropped: number;
}

interface Port {
  receive: ((frame: Uint8Array) => void) | undefined;
}

const ADDRESSES_END = 12;

/**
 * A learning switch: a frame goes to the port where its destination was last heard from, else to all
 * but its own. Addresses do not age; when the table is full the oldest goes. A frame that is sent
 * while another is delivered waits for its turn.
 */
export function createVirtualSwitch(options: VirtualSwitchOptions = {}): VirtualSwitch {
  const { maxAddresses = 1024, maxFrames = 4096 } = options;
  const ports: Port[] = [];
  const table = new Map<string, Port>();
  const queue: { from: Port; frame: Uint8Array }[] = [];
  let isDelivering = false;
  let dropped = 0;

  function learn(frame: Uint8Array, port: Port): void {
    // A group address is nobody's own.
    if (((frame[6] ?? 0) & 1) !== 0) return;
    const source = addressOf(frame, 6);
    table.delete(source);
    if (table.size >= maxAddresses) {
      for (const oldest of table.keys()) {
        table.delete(oldest);
        break;
      }
    }
    if (maxAddresses > 0) table.set(source, port);
  }

  function deliver(from: Port, frame: Uint8Array): void {
    const isGroup = ((frame[0] ?? 0) & 1) !== 0;
    const known = isGroup ? undefined : table.get(addressOf(frame, 0));
    const to = known === undefined ? ports : [known];
    for (const port of to) if (port !== from) port.receive?.(frame);
  }

  function send(from: Port, frame: Uint8Array): void {
    if (frame.length < ADDRESSES_END || queue.length >= maxFrames) {
      dropped += 1;
      return;
    }
    queue.push({ from, frame: frame.slice() });
    if (isDelivering) return;
    isDelivering = true;
    try {
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
        learn(next.frame, next.from);
        deliver(next.from, next.frame);
      }
    } finally {
      isDelivering = false;
    }
  }

  return {
    createPort() {
      const port: Port = { receive: undefined };
      ports.push(port);
      return {
        send: (frame) => send(port, frame),
        onReceive: (receive) => {
          port.receive = receive;
        },
      };
    },
    get addresses() {
      return table.size;
    },
    get dropped() {
      return dropped;
    },
  };
}

function addressOf(frame: Uint8Array, at: number): string {
  return frame.subarray(at, at + 6).join('.');
}
