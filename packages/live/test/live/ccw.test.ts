/** Virtio over channel I/O: channel programs on a real QEMU and on the model, side by side. */
import { createRng } from '@pinhole/base';
import {
  createGuestMemory,
  createSystemMemorySpace,
  type GuestMemory,
  type SparseMemory,
} from '@pinhole/memory';
import { createMemoryBackend, VirtioBlk } from '@pinhole/qemu';
import {
  Ccw,
  type ChannelCommand,
  type ChannelStatus,
  createVirtioCcw,
  featureBits,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
  type VirtioCcwDevice,
  VirtioDeviceCore,
} from '@pinhole/virtio';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  type LiveSubchannel,
  MEMORY_SIZE,
  type ProgramCommand,
  S390xMachine,
  statusOf,
} from '../support/s390x-machine.js';
import { PAYLOADS, PAYLOADS_SIZE, randomProgram } from '../support/s390x-programs.js';
import { describeS390x, QEMU_S390X } from './support/s390x.js';

const PROGRAMS = 1500;
const EINVAL = -22;
const VIRTIO_QUEUE_MAX = 1024;
const DISK_SIZE = 2 ** 20;
const VIRTIO_ID_GPU = 16;
const VIRTIO_GPU_F_EDID = 1;

interface Device {
  readonly name: string;
  /** Takes revision 0, which the model has not. */
  readonly isTransitional: boolean;
  /** Needs ACCESS_PLATFORM. */
  readonly refusesFeatures: boolean;
  /** Arguments for QEMU. */
  readonly args: readonly string[];
  create(memory: SparseMemory): VirtioDeviceCore;
}

function disk(name: string, iommuPlatform: boolean): Device {
  const id = iommuPlatform ? 'd1' : 'd0';
  const properties = `drive=${id},queue_reset=off,iommu_platform=${iommuPlatform ? 'on' : 'off'}`;
  return {
    name,
    isTransitional: true,
    refusesFeatures: iommuPlatform,
    args: [
      ...['-blockdev', `driver=null-co,node-name=${id},read-zeroes=on,size=${DISK_SIZE}`],
      ...['-device', `virtio-blk-ccw,${properties}`],
    ],
    create: (memory) => {
      const systemMemory = createSystemMemorySpace(memory);
      const backend = createMemoryBackend(new Uint8Array(DISK_SIZE));
      return new VirtioBlk({ memory, systemMemory, iommuPlatform, backend }).core;
    },
  };
}

const DEVICES: readonly Device[] = [
  disk('a disk', false),
  disk('a disk with iommu_platform=on', true),
  {
    // Its type has no legacy interface. One screen, and it offers EDID.
    name: 'a graphics card',
    isTransitional: false,
    refusesFeatures: false,
    args: ['-device', 'virtio-gpu-ccw,queue_reset=off'],
    create: (memory) =>
      new VirtioDeviceCore({
        deviceId: VIRTIO_ID_GPU,
        features: featureBits(
          VIRTIO_GPU_F_EDID,
          VIRTIO_RING_F_INDIRECT_DESC,
          VIRTIO_RING_F_EVENT_IDX,
        ),
        config: Uint8Array.from([...new Array(8).fill(0), 1, ...new Array(7).fill(0)]),
        memory,
        space: createSystemMemorySpace(memory),
        queues: [64, 16].map((maxSize) => ({ maxSize, handleOutput: () => {} })),
        usesEventFds: false,
      }),
  },
];

describeS390x('channel programs', () => {
  let machine: S390xMachine;
  beforeAll(() => {
    machine = new S390xMachine(
      QEMU_S390X,
      DEVICES.flatMap(({ args }) => args),
    );
  });
  afterAll(() => machine?.close());

  describe.each(DEVICES.map((device, number) => [device.name, device, number] as const))(
    '%s',
    (_name, device, number) => {
      let pair: Pair;
      beforeAll(() => {
        pair = new Pair(machine, device, number);
      });

      test(`${PROGRAMS} random programs and kicks: the same status, residual count and bytes of memory`, () => {
        const seen = new Set<string>();
        for (let seed = 0; seed < PROGRAMS; seed += 1) {
          const { program, real, model } = pair.step(seed);
          expect({ seed, program, ...real }).toEqual({ seed, program, ...model });
          const { status } = model;
          seen.add(`${program[model.commands - 1]?.code} ${status.ok ? 'ok' : status.reason}`);
        }
        for (const code of Object.values(Ccw)) {
          expect(seen).toContain(`${code} ok`);
          if (code !== Ccw.VDEV_RESET) expect(seen).toContain(`${code} program-check`);
        }
        for (const code of [Ccw.SET_VIRTIO_REV, Ccw.SET_IND, Ccw.SET_IND_ADAPTER]) {
          expect(seen).toContain(`${code} command-reject`);
        }
        // The device refuses features, and a modern one every command before the revision.
        const refuses = device.refusesFeatures || !device.isTransitional;
        expect(seen.has(`${Ccw.WRITE_STATUS} command-reject`)).toBe(refuses);
      });

      test('what the specification forbids and QEMU 7.2 does, the model does not', () => {
        const { real, model } = pair;
        const both = (command: ChannelCommand): (string | undefined)[] => {
          return [real.start(command), model.start(command)].map((s) => (s.ok ? 'ok' : s.reason));
        };
        const payload = (...bytes: number[]): void => pair.write(Uint8Array.from(bytes));
        const revision = { code: Ccw.SET_VIRTIO_REV, address: PAYLOADS, count: 4 };
        const readStatus = { code: Ccw.READ_STATUS, address: PAYLOADS, count: 1 };
        // A revision with data: "any invalid combination of revision, length and data".
        pair.restart();
        payload(0, 1, 0, 1, 9);
        expect(both({ ...revision, count: 5 })).toEqual(['ok', 'command-reject']);
        // READ_STATUS is no part of revision 1.
        pair.restart();
        payload(0, 1, 0, 0);
        expect(both(revision)).toEqual(['ok', 'ok']);
        expect(both(readStatus)).toEqual(['ok', 'command-reject']);
        // Nor does QEMU notice that there is no memory for the status.
        pair.restart();
        payload(0, 2, 0, 0);
        expect(both(revision)).toEqual(['ok', 'ok']);
        expect(both({ ...readStatus, address: MEMORY_SIZE })).toEqual(['ok', 'program-check']);
      });

      test('diagnose 0x500: 0 for the number of any queue that there could be', () => {
        for (const index of [0, 1, 2, 1023, 1024, 4095, 65_535]) {
          expect([index, pair.real.notify(index, 7)]).toEqual([index, pair.kickModel(index, 7)]);
        }
      });
    },
  );
});

/** What became of a program. */
interface Outcome {
  readonly status: ChannelStatus;
  /** Commands that were begun. */
  readonly commands: number;
  /** What a kick after it gave. */
  readonly kicked: number;
  /** The bytes of the programs' memory. */
  readonly memory: string;
}

/** A device on a real QEMU, and the model's. */
class Pair {
  readonly real: LiveSubchannel;
  readonly model: VirtioCcwDevice;
  readonly #machine: S390xMachine;
  readonly #memory: SparseMemory;
  readonly #device: Device;
  readonly #core: VirtioDeviceCore;
  /** QEMU refuses a kick of a queue that is not there: 10.0 does, 7.2 does not. */
  readonly #looksForQueues: boolean;
  /** The residual count that the subchannel has. */
  #count = 0;

  constructor(machine: S390xMachine, device: Device, number: number) {
    this.#machine = machine;
    this.#device = device;
    this.#memory = createGuestMemory({ regions: [{ base: 0, size: MEMORY_SIZE }] });
    this.#core = device.create(this.#memory);
    this.model = createVirtioCcw({ device: this.#core, memory: this.#memory });
    this.real = machine.subchannel(number);
    this.#looksForQueues = this.real.notify(VIRTIO_QUEUE_MAX - 1, 0) === EINVAL;
    machine.memory.write(PAYLOADS, new Uint8Array(PAYLOADS_SIZE));
    this.restart();
    expect(this.real.senseId).toEqual(this.model.senseId);
  }

  write(bytes: Uint8Array): void {
    this.#machine.memory.write(PAYLOADS, bytes);
    this.#memory.write(PAYLOADS, bytes);
  }

  restart(): void {
    this.#count = this.real.restart().residual;
    this.model.reset();
  }

  /** What the model answers, or would if it were as new as this QEMU. */
  kickModel(queue: number, data: number): number {
    const isThere = this.#core.queueSize(queue) !== 0;
    const answer = this.model.notify(queue, data);
    return isThere || !this.#looksForQueues ? answer : EINVAL;
  }

  /** One random program on both. */
  step(seed: number): { program: readonly ProgramCommand[]; real: Outcome; model: Outcome } {
    const rng = createRng(seed);
    if (rng.below(20) === 0) this.restart();
    const limits = {
      revision: this.model.save().revision,
      isTransitional: this.#device.isTransitional,
    };
    const program = randomProgram(rng, limits, [this.#machine.memory, this.#memory]);
    const end = this.real.run(program);
    const queue = rng.below(3) > 0 ? rng.below(2) : rng.below(1030);
    const model = { ...this.#runModel(program), kicked: this.kickModel(queue, 0) };
    // After an error it is whatever the command had got to.
    if (!model.status.ok) this.#count = end.residual;
    const real = {
      status: statusOf(end),
      commands: end.commands,
      kicked: this.real.notify(queue, 0),
      memory: payloadsOf(this.#machine.memory),
    };
    return { program, real, model };
  }

  #runModel(program: readonly ProgramCommand[]): Omit<Outcome, 'kicked'> {
    let status: ChannelStatus = { ok: true, residual: 0 };
    let commands = 0;
    for (const command of program) {
      status = this.model.start(command);
      commands += 1;
      if (!status.ok) break;
      this.#count = qemuCount(command, status.residual, this.#count);
      status = { ok: true, residual: this.#count };
    }
    return { status, commands, memory: payloadsOf(this.#memory) };
  }
}

function payloadsOf(memory: GuestMemory): string {
  const bytes = Buffer.alloc(PAYLOADS_SIZE);
  memory.read(PAYLOADS, bytes);
  return bytes.toString('hex');
}

/**
 * The count that QEMU leaves where `residual` is right and `before` was there: some commands set
 * none, and SET_VQ always 0. [qemu v7.2 hw/s390x/virtio-ccw.c virtio_ccw_cb, virtio_ccw_handle_set_vq]
 */
function qemuCount({ code }: ProgramCommand, residual: number, before: number): number {
  if (code === Ccw.SET_VQ) return 0;
  const setsNone: readonly number[] = [Ccw.VDEV_RESET, Ccw.SET_VIRTIO_REV, Ccw.READ_CONF];
  return setsNone.includes(code) ? before : residual;
}
