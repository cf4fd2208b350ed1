/** The guest's drivers, unchanged, on the devices of a real QEMU. */
import { startVirtioMachine } from '../../src/index.js';
import { driverSuite } from '../support/driver-suite.js';
import { describeLive, QEMU } from './support/live.js';

describeLive("the guest's drivers on a real QEMU", () => {
  driverSuite((shapes) => startVirtioMachine(shapes, { qemu: QEMU }));
});
