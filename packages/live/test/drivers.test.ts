/** The guest's drivers on the model's devices; test/live/drivers.test.ts has them on a real QEMU's. */
import { describe } from 'vitest';
import { createModelVirtioSide } from '../src/index.js';
import { driverSuite } from './support/driver-suite.js';

describe("the guest's drivers on the model", () => driverSuite(createModelVirtioSide));
