import { createHash } from 'node:crypto';
import { createSeededDisk, type DiskSource } from '@pinhole/machine';
import { openImage } from './files.js';
import type { LoadedScenario } from './scenarios.js';

/** The disks of the points: an image each that is named, or made ones. */
export class Disks {
  readonly #image: string | undefined;
  readonly #open = new Map<string, ReturnType<typeof openImage>>();
  readonly #made = new Map<number, DiskSource>();

  constructor(image: string | undefined) {
    this.#image = image;
  }

  open({ scenario, imagePath }: LoadedScenario): DiskSource {
    const path = this.#image ?? imagePath;
    if (path === undefined) {
      const made = this.#made.get(scenario.seed) ?? createSeededDisk(scenario.seed);
      // One is kept: they are large, and the seed seldom changes.
      this.#made.clear();
      this.#made.set(scenario.seed, made);
      return made;
    }
    const image = this.#open.get(path) ?? openImage(path);
    this.#open.set(path, image);
    return image.disk;
  }

  /** Of what is on an image; `null` for a made disk, which the seed determines. */
  digest(loaded: LoadedScenario): string | null {
    if ((this.#image ?? loaded.imagePath) === undefined) return null;
    const disk = this.open(loaded);
    const hash = createHash('sha256');
    const piece = new Uint8Array(2 ** 20);
    for (let at = 0; at < disk.size; at += piece.length) {
      const part = piece.subarray(0, Math.min(piece.length, disk.size - at));
      disk.read(at, part);
      hash.update(part);
    }
    return `sha256:${hash.digest('hex')}`;
  }

  close(): void {
    for (const image of this.#open.values()) image.close();
  }
}
