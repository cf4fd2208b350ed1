import { DeviceOp } from './device-op.js';

/** A program: its head, and its steps. */
const program = (head: readonly number[], ...steps: readonly (readonly number[])[]): Uint8Array => {
  const bytes = new Uint8Array(8 * (1 + steps.length));
  bytes.set(head);
  steps.forEach((step, i) => {
    bytes.set(step, 8 * (i + 1));
  });
  return bytes;
};

/** What was found once, as short as it gets. */
export const FINDINGS: readonly (readonly [target: string, what: string, program: Uint8Array])[] = [
  [
    'packed-device',
    'descriptors in flight that are made available again: more in flight than the ring holds',
    program(
      [0, 0, 2],
      [DeviceOp.OFFER],
      [DeviceOp.OFFER, 194],
      [DeviceOp.WRITE_DESC, 0, 0, 255],
      [DeviceOp.POP, 127],
    ),
  ],
  [
    'packed-device',
    'the same, saved: a state that was refused when the device was to go on from it',
    program([3], [DeviceOp.EXPOSE], [DeviceOp.POP], [DeviceOp.SAVE]),
  ],
  [
    'split-device',
    'in order, a bad chain, saved: a state that was refused',
    program([63], [DeviceOp.SET_INDEX, 17], [DeviceOp.POP], [DeviceOp.SAVE]),
  ],
  [
    'packed-device',
    'a smaller size without a reset: reads behind the ring',
    program([0, 0, 0, 0, 53], [DeviceOp.CONFIGURE, 193], [DeviceOp.AVAIL_BYTES]),
  ],
  [
    'packed-device',
    'a smaller size while buffers are in flight: writes behind the ring',
    program(
      [],
      [DeviceOp.OFFER],
      [DeviceOp.DRAIN, 0, 0, 5],
      [DeviceOp.OFFER, 9],
      [DeviceOp.POP],
      [DeviceOp.CONFIGURE, 241],
      [DeviceOp.BATCH, 0, 5],
      [DeviceOp.FILL],
    ),
  ],
  [
    'packed-device',
    'a smaller size, and a buffer is put back: reads before the ring',
    program(
      [],
      [DeviceOp.OFFER, 8],
      [DeviceOp.POP],
      [DeviceOp.CONFIGURE, 241],
      [DeviceOp.UNPOP],
      [DeviceOp.POP],
    ),
  ],
  [
    'split-device',
    'measuring: a table longer than the ring, then a chain in the ring that leads behind it',
    program(
      [0, 0, 3],
      [DeviceOp.OFFER],
      [DeviceOp.WRITE_DESC, 0, 4, 0, 0, 0, 0, 29],
      [DeviceOp.OFFER],
      [DeviceOp.WRITE_DESC, 6],
      [DeviceOp.WRITE_DESC, 5, 3, 0, 6],
      [DeviceOp.AVAIL_BYTES],
    ),
  ],
];
