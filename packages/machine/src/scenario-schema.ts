import { ModelError, parseSize } from '@pinhole/base';
import { findKernelProfile, KERNEL_PROFILES, VIRTIO_DMA_POLICIES } from '@pinhole/guest';
import { QEMU_PROFILES } from '@pinhole/hcall';
import { z } from 'zod';
import { architectureNames, architectures } from './architectures/index.js';
import { OUTCOMES } from './outcome.js';
import { IOMMUS, type MachineConfig, type Scenario } from './scenario-config.js';

/** A number of bytes: `4096`, `64KiB`, `0x1000`. */
const size = z
  .union([z.number(), z.string()], { error: 'expected a size such as 4096, "64KiB" or "2GiB"' })
  .transform((value, context) => {
    try {
      return parseSize(value);
    } catch (error) {
      const message = error instanceof ModelError ? error.message : 'expected a size';
      context.addIssue({ code: 'custom', message });
      return z.NEVER;
    }
  });

/** A 64-bit value: a safe number, or `0x...`. */
const u64 = z
  .union([z.number().int().nonnegative(), z.string().regex(/^0x[0-9a-f]{1,16}$/i)], {
    error: 'expected a number below 2^53 or a hexadecimal string "0x..." of up to 16 digits',
  })
  .transform((value) => BigInt(value));

const sectors = size.refine((value) => value % 512 === 0, 'expected a multiple of 512 bytes');

const transfer = z.strictObject({
  offset: sectors.describe('Where on the disk; a multiple of 512.'),
  length: sectors.describe('How much in all; a multiple of 512.'),
  block: sectors
    .refine((value) => value > 0, 'expected at least 512 bytes')
    .describe('Bytes of one direct I/O.'),
});

const operation = z.union(
  [
    z.strictObject({ read: transfer }),
    z.strictObject({
      write: transfer.extend({
        fill: z
          .number()
          .int()
          .min(0)
          .max(255)
          .optional()
          .describe('The byte to write; default: bytes that the seed determines.'),
      }),
    }),
  ],
  { error: 'expected {read: {offset, length, block}} or {write: {offset, length, block, fill?}}' },
);

/** A key of which only one value is modelled yet. */
const only = <T extends string | number | boolean>(value: T, what: string) =>
  z
    .literal(value, { error: `expected ${JSON.stringify(value)}: ${what} not modelled yet` })
    .default(value as never)
    .describe(`Only ${JSON.stringify(value)}: ${what} not modelled yet.`);

const names = <T extends { readonly id: string }>(items: readonly T[]): [string, ...string[]] =>
  items.map(({ id }) => id) as [string, ...string[]];

/** What a PCI host bridge of a pseries machine can be told. */
const hostBridge = {
  ddw: z
    .boolean()
    .optional()
    .describe('Dynamic DMA windows; default: as the machine type has it. pseries only.'),
  dmaWindowSize: size.prefault('1GiB').describe('The default window. pseries only.'),
  dmaWindowAddress: u64
    .optional()
    .describe('Where it starts on the bus; default: 0. pseries only.'),
  dma64WindowAddress: u64
    .optional()
    .describe('Where a second window starts on the bus; default: 2^59. pseries only.'),
  pageSizes: u64
    .optional()
    .describe("Page sizes of windows: QEMU's pgsz; default: the machine type's. pseries only."),
  limitedAddressMode: z
    .boolean()
    .default(false)
    .describe('The limited-address mode of LoPAR 2.13, which QEMU does not have. pseries only.'),
};

const machine = z.strictObject({
  arch: z
    .string(`expected ${architectureNames(architectures)}`)
    .max(64)
    .describe('The platform.'),
  memory: size.prefault('2GiB').describe('Guest memory.'),
  maxMemory: size.optional().describe("Room for hotplug: QEMU's maxmem. pseries only."),
  cpus: only(1, 'more CPUs are'),
  qemu: z
    .enum(QEMU_PROFILES.map(({ id }) => id))
    .default('7.2')
    .describe('The QEMU whose habits are modelled.'),
  type: z
    .string()
    .regex(
      /^pseries(-\d{1,3}\.\d{1,3}(-sxxm)?)?$/,
      'expected pseries, pseries-7.2, pseries-2.6 or so',
    )
    .default('pseries')
    .describe("QEMU's machine type: decides what host bridges can do. pseries only."),
  tceHandler: z
    .enum(['qemu', 'kvm'])
    .default('qemu')
    .describe("Who answers TCE hypercalls: QEMU, or KVM in the host's kernel. pseries only."),
  kvmTceVfio: z
    .boolean()
    .default(true)
    .describe(
      'With tceHandler kvm: the host has KVM_CAP_SPAPR_TCE_VFIO, so vhost hears of no unmap. pseries only.',
    ),
  ...hostBridge,
  hostBridges: z
    .array(z.strictObject({ index: z.number().int().min(1).max(30), ...hostBridge }))
    .max(30)
    .default([])
    .describe('More PCI host bridges, without devices. pseries only.'),
  vio: z
    .array(
      z.strictObject({
        reg: z.number().int().min(0).max(0xffff_ffff).describe('Its unit address and LIOBN.'),
        name: z
          .string()
          .max(31)
          .default('vdevice')
          .describe('As in the device tree: l-lan, v-scsi.'),
        windowSize: size.prefault('256MiB').describe('Its DMA window; 0: none.'),
      }),
    )
    .max(64)
    .default([])
    .describe('Devices of the virtual I/O bus. pseries only.'),
  dmaRanges: z
    .array(
      z.strictObject({
        cpu: size.describe('Where memory is.'),
        bus: u64.describe('Where devices find it.'),
        size: size,
      }),
    )
    .optional()
    .describe('Where the bus shows memory. arm64 only; default: everything where it is.'),
  iommu: z
    .enum(IOMMUS)
    .default('none')
    .describe('An IOMMU that the machine is given. x86-64 and arm64 only.'),
  settings: z
    .record(z.string().max(64), z.union([z.string().max(256), z.number(), z.boolean()]))
    .default({})
    .describe("What an architecture of one's own asks for. xen: grants, backendHolds."),
});

const guest = z
  .strictObject({
    kernel: z.enum(names(KERNEL_PROFILES)).default('linux-6.12'),
    policy: z
      .enum(names(VIRTIO_DMA_POLICIES))
      .optional()
      .describe("Who decides whether virtio uses the DMA API; default: the kernel's own rule."),
    secure: z.boolean().default(false).describe('Memory is private unless shared. Not on xen.'),
    cmdline: z
      .string()
      .max(4096, 'expected at most 4096 characters')
      .default('')
      .describe(
        'Kernel parameters: disable_ddw, multitce=off, swiotlb=, iommu=, iommu.strict=, iommu.passthrough= and intel_iommu= act; others do nothing here.',
      ),
  })
  .transform(({ policy, ...rest }) => ({
    ...rest,
    policy: policy ?? findKernelProfile(rest.kernel)?.vring.policy ?? 'upstream',
  }));

/** [qemu v7.2 include/hw/virtio/virtio.h VIRTIO_QUEUE_MAX] */
const MAX_QUEUES = 1024;

const device = z.strictObject({
  type: z.literal('virtio-blk'),
  iommuPlatform: z.boolean().default(false).describe('VIRTIO_F_ACCESS_PLATFORM is offered.'),
  packed: z.boolean().default(false).describe('VIRTIO_F_RING_PACKED is offered.'),
  indirect: z.boolean().default(true),
  eventIdx: z.boolean().default(true),
  queues: z
    .number()
    .int('expected a whole number')
    .min(1, 'expected at least 1')
    .max(MAX_QUEUES, `expected at most ${MAX_QUEUES}`)
    .default(1)
    .describe('`num-queues`; a guest uses one for each of its CPUs.'),
  vhost: z
    .enum(['off', 'on'])
    .default('off')
    .describe('The data plane is vhost, with an IOTLB where the bus has an IOMMU; off: QEMU.'),
  image: z
    .string()
    .optional()
    .describe('A raw disk image, next to the scenario; default: a made 16 MiB disk.'),
});

/** The scenario file. */
export const scenarioSchema: z.ZodType<Scenario> = z.strictObject({
  title: z.string().default('').describe('One line for people.'),
  machine,
  guest: guest.prefault({}),
  devices: z.array(device).length(1, 'expected exactly one device'),
  workload: z
    .array(operation)
    .min(1, 'expected at least 1 operation')
    .max(10_000, 'expected at most 10000 operations'),
  expect: z.enum(OUTCOMES).optional().describe('How the run must end.'),
  seed: z.number().int().nonnegative().default(1),
});

/** A machine alone. */
export const machineOnlySchema: z.ZodType<{ readonly machine: MachineConfig }> = z.strictObject({
  machine,
});

/** The JSON Schema of scenario files, for editors. */
export function scenarioJsonSchema(): Record<string, unknown> {
  const schema = z.toJSONSchema(scenarioSchema, {
    io: 'input',
    target: 'draft-2020-12',
    override: ({ path, jsonSchema }) => {
      if (path.join('.') === 'properties.machine.properties.arch') {
        jsonSchema.enum = architectures.map(({ id }) => id);
      }
    },
  });
  return {
    title: 'Pinhole scenario',
    ...schema,
  };
}
