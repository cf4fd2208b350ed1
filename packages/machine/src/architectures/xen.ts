import { ModelError } from '@pinhole/base';
import { type DeviceDma, GuestPages, hasRestrictedVirtioAccess } from '@pinhole/guest';
import {
  createGuestMemory,
  createSystemMemorySpace,
  type DmaSpace,
  DmaStatus,
  type GuestMemory,
} from '@pinhole/memory';
import {
  type Architecture,
  defineArchitecture,
  type Platform,
  type PlatformOptions,
} from '../architecture.js';
import type { GuestConfig, MachineConfig } from '../scenario-config.js';
import { checkIommu, directDma, physicalDma } from './iommu-bus.js';
import { createGrantDmaOps } from './xen-grant-dma.js';
import { GrantTable, XEN_PAGE_SIZE } from './xen-grant-table.js';

const MIB = 2 ** 20;
const MIN_MEMORY = 256 * MIB;
/** What lies below the hole for devices. */
const MAX_MEMORY = 3 * 2 ** 30;
/** Below this the kernel image and what firmware left; pages come from above. */
const KERNEL_BASE = 16 * MIB;
/**
 * Xen's default: 64 frames of 512 entries.
 * UNVERIFIED: the number of frames is from memory (gnttab_max_frames).
 */
const GRANT_ENTRIES = 64 * 512;

/**
 * A guest of Xen, whose virtio devices are somewhere in another domain. With `settings.grants` that
 * domain gets at nothing but what is granted to it, whatever the flag says; else it may map all of the
 * guest. Grants are bus addresses for kernels with CONFIG_XEN_VIRTIO, which Debian's do not have; older
 * kernels give physical addresses. [linux v6.1 drivers/xen/Kconfig XEN_VIRTIO]
 */
export const xen: Architecture = defineArchitecture({
  id: 'xen',
  title: 'guest of Xen',
  variants: [
    { id: 'xen', title: 'backend maps guest memory', machine: { memory: '2GiB' } },
    {
      id: 'xen-grants',
      title: 'backend maps grants',
      machine: { memory: '2GiB', settings: { grants: true } },
    },
  ],
  build: buildXen,
});

function buildXen(options: PlatformOptions): Platform {
  const { machine, guest, kernel, rng, tracer } = options;
  const { grants, backendHolds } = checkMachine(machine, guest);
  const memory = createGuestMemory({ regions: [{ base: 0, size: machine.memory }] });
  const half = Math.floor(machine.memory / 2 / MIB) * MIB;
  const pages = new GuestPages({
    pageSize: XEN_PAGE_SIZE,
    kernel: { base: KERNEL_BASE, size: half - KERNEL_BASE },
    user: { base: half, size: machine.memory - half },
    rng,
  });
  const table = grants ? new GrantTable({ memory, size: GRANT_ENTRIES, backendHolds }) : undefined;
  const isRestricted = hasRestrictedVirtioAccess(kernel, 'xen', grants);
  const dma: DeviceDma =
    table !== undefined && isRestricted
      ? {
          ops: createGrantDmaOps({
            table,
            memory,
            pages,
            onBroken: (message) => {
              if (tracer.on) tracer.event('guest', 'guest_warn', { message });
            },
          }),
          isBounced: false,
          hasBusOffset: true,
          because: 'xen-grant-dma: a grant for each page, whose number is the bus address',
          steps: [
            {
              what: 'xen_virtio_restricted_mem_acc: whose backend is it?',
              fact: 'another domain, by the grant-dma node: grants are its bus addresses',
              source: '[linux v6.1 drivers/xen/grant-dma-ops.c xen_virtio_restricted_mem_acc]',
            },
          ],
        }
      : directDma({
          guestMemory: memory,
          pages,
          because: grants
            ? 'dma-direct: the kernel knows no grants as bus addresses'
            : 'dma-direct: bus addresses are physical addresses',
        });
  const systemMemory = table === undefined ? createSystemMemorySpace(memory) : foreign(memory);
  return {
    guestMemory: memory,
    hypervisorMemory: memory,
    systemMemory,
    busSpace: table ?? systemMemory,
    pages,
    dma,
    hook: {
      answer: false,
      because: 'Xen has a rule of its own',
      dma: physicalDma(memory, pages),
    },
    alwaysDmaApi: 'the guest runs on Xen',
    hasRestrictedMemoryAccess: isRestricted,
    counters: () => ({
      hcalls: {},
      tcesLive: table?.live ?? 0,
      tcesPeak: table?.peak ?? 0,
      translations: table?.translations ?? 0,
      iommu: { maps: table?.granted ?? 0, unmaps: table?.ended ?? 0, commands: 0 },
      bytesBounced: 0,
      bytesShared: 0,
      ciphertextBytesRead: 0,
      privateBytesWriteRefused: 0,
    }),
    reach: (space) => {
      const granted = space === table ? (table?.reachablePages() ?? 0) * XEN_PAGE_SIZE : 0;
      const bytes = table === undefined ? machine.memory : granted;
      return { addressable: bytes, plaintext: bytes };
    },
  };
}

/** Guest-physical addresses of a guest that the backend has no right to map. */
function foreign(memory: GuestMemory): DmaSpace {
  const space = createSystemMemorySpace(memory);
  return {
    name: 'guest memory, which the backend may not map',
    isIdentity: true,
    translate: (hi, lo, length, access, out) =>
      space.translate(hi, lo, length, access, out) === DmaStatus.OK
        ? DmaStatus.NO_PERMISSION
        : DmaStatus.NOTHING_THERE,
    covers: () => false,
  };
}

function checkMachine(
  machine: MachineConfig,
  guest: GuestConfig,
): { grants: boolean; backendHolds: boolean } {
  const fail = (path: string, message: string): never => {
    throw new ModelError('E_MACHINE', message, { details: { path } });
  };
  const { memory, settings } = machine;
  if (memory < MIN_MEMORY || memory > MAX_MEMORY || memory % MIB !== 0) {
    fail(
      'machine.memory',
      `expected a multiple of 1 MiB from 256 MiB to 3 GiB, found ${memory} bytes`,
    );
  }
  if (guest.secure) fail('guest.secure', 'a secure guest of Xen is not modelled');
  if (machine.maxMemory !== undefined) {
    fail('machine.maxMemory', 'hotplug is modelled for pseries only');
  }
  if (machine.dmaRanges !== undefined) {
    fail('machine.dmaRanges', 'devices of a guest of Xen find memory where it is: leave this out');
  }
  checkIommu(machine.iommu, 'xen', ['none']);
  const { grants = false, backendHolds = false } = settings;
  for (const [name, value] of Object.entries({ grants, backendHolds })) {
    if (typeof value !== 'boolean') {
      fail(`machine.settings.${name}`, `expected true or false, found ${JSON.stringify(value)}`);
    }
  }
  if (backendHolds === true && grants !== true) {
    fail('machine.settings.backendHolds', 'expected grants: there is nothing else to hold');
  }
  return { grants: grants === true, backendHolds: backendHolds === true };
}
