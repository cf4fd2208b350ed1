import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LiveQemu } from '../live-qemu.js';
import type { LiveQemuOptions } from '../options.js';
import { diskContents, entropyContents } from './contents.js';
import { qemuOptions, shapeName, type VirtioShape } from './shapes.js';
import { LiveVirtioSide, MEMORY_SIZE } from './sides.js';

/**
 * Starts a real QEMU with these devices. Its disks are files in a folder of their own, which goes
 * when the side is closed.
 * @throws LiveError as `LiveQemu.start`.
 */
export function startVirtioMachine(
  shapes: readonly VirtioShape[],
  options: Pick<LiveQemuOptions, 'qemu' | 'timeoutMs'> & { readonly args?: readonly string[] } = {},
): LiveVirtioSide {
  const folder = mkdtempSync(join(tmpdir(), 'pinhole-virtio-'));
  const disk = (shape: VirtioShape): string => join(folder, `${shapeName(shape)}.img`);
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  try {
    for (const shape of shapes) {
      if (shape.type === 'blk') writeFileSync(disk(shape), diskContents());
    }
    const entropy = join(folder, 'entropy');
    writeFileSync(entropy, entropyContents());
    const { args = [], ...rest } = options;
    const machine = qemuOptions(shapes, { disk, entropy });
    const qemu = LiveQemu.start({
      ...rest,
      ...machine,
      memory: MEMORY_SIZE,
      args: [...(machine.args ?? []), ...args],
    });
    return new LiveVirtioSide(qemu, (shape) => readFileSync(disk(shape)), remove);
  } catch (error) {
    remove();
    throw error;
  }
}
