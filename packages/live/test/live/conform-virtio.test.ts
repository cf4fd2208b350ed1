/** The model's virtio devices against those of a real QEMU. */
import { expect, test } from 'vitest';
import {
  createModelVirtioSide,
  startVirtioMachine,
  VIRTIO_SHAPES,
  VirtioCampaign,
} from '../../src/index.js';
import { describeLive, QEMU } from './support/live.js';

describeLive('virtio devices, the model against a real QEMU', () => {
  test('the table of faults row by row, and 1500 random requests', () => {
    const shapes = VIRTIO_SHAPES;
    const reference = startVirtioMachine(shapes, { qemu: QEMU });
    const model = createModelVirtioSide(shapes);
    const campaign = new VirtioCampaign({ seed: 11, count: 1500, shapes, model, reference });
    try {
      const steps = campaign.run();
      while (steps.next().done !== true);
    } finally {
      reference.close();
    }
    const { findings, requests, faults, devices } = campaign.result;
    expect(findings).toEqual([]);
    expect(requests).toBeGreaterThanOrEqual(1500);
    expect(devices.length).toBeGreaterThan(20);
    expect(faults).toHaveLength(64);
  });
});
