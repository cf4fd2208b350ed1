/** IOVAs of a trace that has an IOMMU's `map` and `unmap`, and not what they were for: before 6.12. */
import { hex } from '@pinhole/base';
import type { Disagreement } from './address-model.js';
import type { IommuRange } from './guest-operations.js';
import type { IovaForecast } from './iova-forecast.js';

/** Maps of one allocation at most: a ring of single pages is no longer. */
const MAX_PIECES = 512;

/**
 * Predicts each map's IOVA. Coherent memory is one range of the bus and several maps, one behind the
 * other: what the allocator would give for all of them tells.
 */
export class RangeAddresses {
  /** Maps at the predicted address. */
  predicted = 0;
  readonly #forecast: IovaForecast;
  /** Maps of an allocation that is not whole yet. */
  #pieces: IommuRange[] = [];
  /** The trace begins later than its domain: nothing can be said. */
  #isLate = false;

  constructor(forecast: IovaForecast) {
    this.#forecast = forecast;
  }

  take(range: IommuRange): Disagreement | undefined {
    if (this.#isLate) return undefined;
    const { kind, iova, size } = range;
    if (kind === 'unmap') {
      const wrong = this.end();
      this.#forecast.end({ dmaAddr: iova, size });
      return wrong;
    }
    const last = this.#pieces.at(-1);
    const isNext = last !== undefined && last.end === iova && this.#pieces.length < MAX_PIECES;
    const wrong = isNext ? undefined : this.end();
    this.#pieces.push(range);
    const [first] = this.#pieces as [IommuRange];
    const bytes = Number(iova - first.iova) + size;
    if (!this.#forecast.isGiven({ dmaAddr: first.iova, size: bytes })) return wrong;
    this.predicted += this.#pieces.length;
    this.#pieces = [];
    return wrong;
  }

  /** What no allocation explains. */
  end(): Disagreement | undefined {
    const [first] = this.#pieces;
    if (first === undefined) return undefined;
    this.#pieces = [];
    if (this.predicted === 0) {
      this.#isLate = true;
      return undefined;
    }
    const wrong = this.#forecast.begin({ dmaAddr: first.iova, size: first.size });
    return wrong ?? { what: 'address', recorded: hex(first.iova), model: 'another' };
  }
}
