import type { VirtioCcwDevice } from './ccw-device.js';
import type { VirtioMmioDevice } from './mmio-device.js';
import type { VirtioPciDevice } from './pci-device-types.js';
import type { MsiMessage, PciInterrupts } from './pci-interrupts.js';

/** Where this platform's messages go: an address that nothing else has. */
const MESSAGE_ADDRESS = 0xfee0_0000n;

/**
 * The interrupts of a modelled function as a platform delivers them: one handler at a time. What
 * comes in while a handler runs is delivered after it, once, as to a CPU that has interrupts off.
 */
export function connectPciInterrupts(device: VirtioPciDevice): PciInterrupts {
  const lineHandlers: (() => void)[] = [];
  let vectorHandlers: (() => void)[] = [];
  const line = oneAtATime(() => {
    for (const handler of lineHandlers) handler();
  });
  device.onInterrupt((interrupt) => {
    if (interrupt.kind === 'msix') vectorHandlers[interrupt.data]?.();
    else if (interrupt.asserted) line();
  });
  return {
    onLine: (handler) => {
      lineHandlers.push(handler);
    },
    allocateVectors: (count, handler): readonly MsiMessage[] => {
      const vectors = Array.from({ length: count }, (_, vector) => vector);
      vectorHandlers = vectors.map((vector) => oneAtATime(() => handler(vector)));
      return vectors.map((data) => ({ address: MESSAGE_ADDRESS, data }));
    },
  };
}

/** The same for a device behind memory-mapped I/O, which has a line only. */
export function connectMmioInterrupts(device: VirtioMmioDevice): Pick<PciInterrupts, 'onLine'> {
  const handlers: (() => void)[] = [];
  const line = oneAtATime(() => {
    for (const handler of handlers) handler();
  });
  device.onInterrupt((isAsserted) => {
    if (isAsserted) line();
  });
  return {
    onLine: (handler) => {
      handlers.push(handler);
    },
  };
}

/** The same for a device behind a subchannel, whose interrupts say no more than that there is one. */
export function connectCcwInterrupts(device: VirtioCcwDevice): Pick<PciInterrupts, 'onLine'> {
  const handlers: (() => void)[] = [];
  device.onInterrupt(
    oneAtATime(() => {
      for (const handler of handlers) handler();
    }),
  );
  return {
    onLine: (handler) => {
      handlers.push(handler);
    },
  };
}

/** Runs `act`; a call in the meantime has it run once more. */
function oneAtATime(act: () => void): () => void {
  let isRunning = false;
  let isDue = false;
  return () => {
    isDue = true;
    if (isRunning) return;
    isRunning = true;
    try {
      while (isDue) {
        isDue = false;
        act();
      }
    } finally {
      isRunning = false;
    }
  };
}
