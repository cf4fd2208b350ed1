// What is run: which kernel on which machine with which disks, and what the guest does with each disk.
import { createHash } from 'node:crypto';
import { KERNELS, MACHINES } from './machines.mjs';

const DISK_SIZE = 2 ** 20;

/** Every boot: a kernel on a machine, with the cells that differ by flag and ring: a disk each. */
export function boots({ matrixCells }) {
  return Object.entries(MACHINES).flatMap(([platform, machine]) =>
    Object.keys(KERNELS)
      .filter((policy) => (machine.policies ?? [policy]).includes(policy))
      .map((policy) => ({
        name: `${policy}/${platform}`,
        policy,
        platform,
        machine,
        cells: matrixCells({
          platforms: [platform],
          policies: [policy],
          secure: false,
          vhost: false,
          ...(machine.flag === undefined ? {} : { flag: machine.flag }),
        })
          // An architecture may have the name of one of its machines.
          .filter((cell) => cell.platform === platform),
      })),
  );
}

/** The workload for the guest, the image before and after it, and what each read must give. */
export function planOf(workload) {
  const before = anyBytes(1, DISK_SIZE);
  const after = Buffer.from(before);
  const steps = workload.map((operation, at) => {
    const isRead = 'read' in operation;
    const { offset, length, block } = operation.read ?? operation.write;
    const step = `${isRead ? 'r' : 'w'}${at}`;
    const line = `${isRead ? 'rd' : 'wr'} ${step} ${block} ${offset} ${length / block}`;
    const data = isRead ? undefined : anyBytes(2 + at, length);
    data?.copy(after, offset);
    const sum = createHash('md5')
      .update(after.subarray(offset, offset + length))
      .digest('hex');
    return { step, line, data, sum, isRead };
  });
  return {
    script: `${steps.map(({ line }) => line).join('\n')}\n`,
    reads: steps.filter(({ isRead }) => isRead).map(({ step, sum }) => [step, sum]),
    writes: steps.filter(({ isRead }) => !isRead).map(({ step, data }) => [step, data]),
    before,
    after,
  };
}

// Any bytes would do: the same ones at every run.
function anyBytes(seed, length) {
  const blocks = Array.from({ length: Math.ceil(length / 32) }, (_, at) =>
    createHash('sha256').update(`${seed} ${at}`).digest(),
  );
  return Buffer.concat(blocks).subarray(0, length);
}
