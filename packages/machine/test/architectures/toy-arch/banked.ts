/** An architecture that no package knows. */
import { ModelError } from '@pinhole/base';
import { type DeviceDma, GuestPages } from '@pinhole/guest';
import { type Architecture, defineArchitecture, type MachineConfig } from '@pinhole/machine';
import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import { type Banks, createBankedSpace } from './banked-bus.js';
import { createBankedDmaOps } from './banked-dma.js';

/** What firmware and the kernel's image take. */
const FIRST_FREE = 2 ** 20;

export const banked: Architecture = defineArchitecture({
  id: 'banked',
  title: 'a bus that numbers banks backwards',
  variants: [
    { id: 'banked', title: 'two banks', machine: { memory: '256MiB' } },
    {
      id: 'banked-8',
      title: 'eight banks',
      machine: { memory: '256MiB', settings: { banks: 8 } },
    },
  ],
  build({ machine, guest, kernel, rng }) {
    if (guest.secure) refuse('guest.secure', 'it has no secure guests');
    const banks = readBanks(machine);
    const memory = createGuestMemory({ regions: [{ base: 0, size: machine.memory }] });
    const half = machine.memory / 2;
    const pages = new GuestPages({
      pageSize: kernel.pageSize,
      // No ring lies at 0: a device takes that for none.
      kernel: { base: FIRST_FREE, size: half - FIRST_FREE },
      user: { base: half, size: half },
      rng,
    });
    const dma: DeviceDma = {
      ops: createBankedDmaOps(memory, pages, banks),
      isBounced: false,
      hasBusOffset: true,
      because: 'the bus numbers banks backwards',
      steps: [],
    };
    return {
      guestMemory: memory,
      hypervisorMemory: memory,
      systemMemory: createSystemMemorySpace(memory),
      busSpace: createBankedSpace(memory, banks),
      pages,
      dma,
      hook: { answer: true, because: 'its bus numbers banks backwards', dma },
      counters: () => ({
        hcalls: {},
        tcesLive: 0,
        tcesPeak: 0,
        translations: 0,
        iommu: { maps: 0, unmaps: 0, commands: 0 },
        bytesBounced: 0,
        bytesShared: 0,
        ciphertextBytesRead: 0,
        privateBytesWriteRefused: 0,
      }),
      reach: () => ({ addressable: machine.memory, plaintext: machine.memory }),
    };
  },
});

function readBanks({ memory, settings, iommu }: MachineConfig): Banks {
  const { banks: count = 2 } = settings;
  if (typeof count !== 'number' || ![2, 4, 8, 16].includes(count)) {
    refuse('machine.settings.banks', `expected 2, 4, 8 or 16, found ${String(count)}`);
  }
  if (memory % (count * 2 ** 20) !== 0 || memory < 2 ** 26 || memory > 2 ** 40) {
    refuse('machine.memory', `expected banks of whole MiB, 64 MiB to 1 TiB, found ${memory}`);
  }
  if (iommu !== 'none') refuse('machine.iommu', `expected "none", found "${iommu}"`);
  return { count, size: memory / count };
}

function refuse(path: string, message: string): never {
  throw new ModelError('E_MACHINE', message, { details: { path } });
}
