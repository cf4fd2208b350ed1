/** The console device's formats. [VIRTIO v1.2 §5.3 "Console Device"] */
import {
  type ConfigPart,
  type ConfigRow,
  configParts,
  decodeConfig,
  encodeConfig,
} from './config-layout.js';

/** Feature bits. [VIRTIO v1.2 §5.3.3 "Feature bits"] */
/** `cols` and `rows` are valid. */
export const VIRTIO_CONSOLE_F_SIZE = 0;
/** More ports than one, and control queues. */
export const VIRTIO_CONSOLE_F_MULTIPORT = 1;
/** `emergWr` can be written. */
export const VIRTIO_CONSOLE_F_EMERG_WRITE = 2;

/** Events of control messages. [VIRTIO v1.2 §5.3.6.2 "Multiport Device Operation"] */
/** The driver is ready, or failed. */
export const VIRTIO_CONSOLE_DEVICE_READY = 0;
/** The device has another port: DEVICE_ADD in the specification, PORT_ADD in all code. */
export const VIRTIO_CONSOLE_PORT_ADD = 1;
/** A port is gone. */
export const VIRTIO_CONSOLE_PORT_REMOVE = 2;
/** The driver is ready to use the port, or failed. */
export const VIRTIO_CONSOLE_PORT_READY = 3;
/** The port is a console. */
export const VIRTIO_CONSOLE_CONSOLE_PORT = 4;
/** The console's size. */
export const VIRTIO_CONSOLE_RESIZE = 5;
/** Either side opens (1) or closes (0) the port. */
export const VIRTIO_CONSOLE_PORT_OPEN = 6;
/** The port's name follows. */
export const VIRTIO_CONSOLE_PORT_NAME = 7;

/** Queues: of port 0, then the control queues, then of port 1 and so on. [VIRTIO v1.2 §5.3.2 "Virtqueues"] */
export const VIRTIO_CONSOLE_CONTROL_RX = 2;
/** The control queue that the driver sends on. */
export const VIRTIO_CONSOLE_CONTROL_TX = 3;

/** The receive queue of a port; the transmit queue is the next. [VIRTIO v1.2 §5.3.2 "Virtqueues"] */
export function consoleRxQueue(port: number): number {
  return port === 0 ? 0 : 2 * (port + 1);
}

/** Bytes of a control message, without what may follow. */
export const VIRTIO_CONSOLE_CONTROL_SIZE = 8;

/** `struct virtio_console_control`. [VIRTIO v1.2 §5.3.6.2 "Multiport Device Operation"] */
export interface ConsoleControl {
  readonly id: number;
  readonly event: number;
  readonly value: number;
}

/** Writes a control message, with `more` after it. */
export function encodeConsoleControl(
  { id, event, value }: ConsoleControl,
  more: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const bytes = new Uint8Array(VIRTIO_CONSOLE_CONTROL_SIZE + more.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, id, true);
  view.setUint16(4, event, true);
  view.setUint16(6, value, true);
  bytes.set(more, VIRTIO_CONSOLE_CONTROL_SIZE);
  return bytes;
}

/** Reads a control message; `undefined`: it is too short. */
export function decodeConsoleControl(bytes: Uint8Array): ConsoleControl | undefined {
  if (bytes.length < VIRTIO_CONSOLE_CONTROL_SIZE) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return {
    id: view.getUint32(0, true),
    event: view.getUint16(4, true),
    value: view.getUint16(6, true),
  };
}

/** The configuration space. [VIRTIO v1.2 §5.3.4 "Device configuration layout"] */
export interface ConsoleConfig {
  readonly cols: number;
  readonly rows: number;
  readonly maxNrPorts: number;
  /** The driver writes characters here, even before the device is set up. */
  readonly emergWr: number;
}

/** Where `emergWr` stands. */
export const VIRTIO_CONSOLE_CONFIG_EMERG_WR = 8;

/** `struct virtio_console_config`, a field a row. [VIRTIO v1.2 §5.3.4 "Device configuration layout"] */
const LAYOUT: readonly ConfigRow<keyof ConsoleConfig>[] = [
  ['cols', 0, 2, VIRTIO_CONSOLE_F_SIZE],
  ['rows', 2, 2, VIRTIO_CONSOLE_F_SIZE],
  ['maxNrPorts', 4, 4, VIRTIO_CONSOLE_F_MULTIPORT],
  ['emergWr', VIRTIO_CONSOLE_CONFIG_EMERG_WR, 4, VIRTIO_CONSOLE_F_EMERG_WRITE],
];

/** Writes the configuration space; fields beyond `size` are left out. */
export function encodeConsoleConfig(config: Partial<ConsoleConfig>, size: number): Uint8Array {
  return encodeConfig(LAYOUT, config, size);
}

/** Reads the configuration space; what lies beyond its end is 0. */
export function decodeConsoleConfig(bytes: Uint8Array): ConsoleConfig {
  return decodeConfig(LAYOUT, bytes);
}

/** Where the fields are that exist with these features. */
export function consoleConfigParts(features: bigint): ConfigPart[] {
  return configParts(LAYOUT, features);
}
