/** What a guest's console adds to a replay. Keeps the first of each kind, and counts. */
import type { ConsoleFact } from '@pinhole/trace';

type Fact<K extends ConsoleFact['kind']> = Extract<ConsoleFact, { kind: K }>;

/** Takes the facts of a console; of several boots in one file the last one counts. */
export class ConsoleDigest {
  release: string | undefined;
  commandLine = '';
  pageSize: number | undefined;
  cpus: number | undefined;
  memory: number | undefined;
  /** The IOMMU forgets at once what is unmapped. */
  isStrict: boolean | undefined;
  /** Of bounce buffers. */
  pool: Fact<'swiotlb'> | undefined;
  poolAreas: number | undefined;
  /** Creations of a second window that failed, and those that worked. */
  readonly failedCreates: Fact<'ddw-create'>[] = [];
  readonly creates: Fact<'ddw-create'>[] = [];
  /** "direct DMA is limited by". */
  dmaLimit: Fact<'dma-limit'> | undefined;
  allocFailures = 0;
  firstAllocFailure: Fact<'iommu-alloc-failed'> | undefined;

  fact(fact: ConsoleFact): void {
    switch (fact.kind) {
      case 'kernel':
        this.#boot(fact.release);
        break;
      case 'command-line':
        this.commandLine = fact.commandLine;
        break;
      case 'page-size':
        this.pageSize = fact.bytes;
        break;
      case 'cpus':
        this.cpus = fact.cpus;
        break;
      case 'iommu-policy':
        this.isStrict = fact.isStrict;
        break;
      case 'swiotlb':
        this.pool = fact;
        break;
      case 'swiotlb-areas':
        this.poolAreas = fact.areas;
        break;
      case 'memory':
        this.memory = fact.totalBytes;
        break;
      case 'ddw-create': {
        const list = fact.status === 0 ? this.creates : this.failedCreates;
        // dmesg at the end of a console says everything twice.
        const isNew = list.every(({ t }) => t === undefined || t !== fact.t);
        if (isNew && list.length < 64) list.push(fact);
        break;
      }
      case 'dma-limit':
        this.dmaLimit ??= fact;
        break;
      case 'iommu-alloc-failed':
        this.allocFailures += 1;
        this.firstAllocFailure ??= fact;
        break;
      default:
    }
  }

  #boot(release: string): void {
    this.release = release;
    this.failedCreates.length = 0;
    this.creates.length = 0;
    this.dmaLimit = undefined;
    this.isStrict = undefined;
    this.pool = undefined;
    this.poolAreas = undefined;
  }
}
