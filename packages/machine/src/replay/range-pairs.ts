/** What the guest's trace says of its IOMMU, and what QEMU's log says that it was told: paired. */
import { hex } from '@pinhole/base';
import type { Disagreement } from './address-model.js';
import type { IommuRange } from './guest-operations.js';
import type { ToldRange } from './iommu-replay.js';

/** Who is told what a pairing finds. */
export interface RangeListener {
  /** The log has a range of the guest's. */
  rangePaired(): void;
  /** It has it in another way, or not at all. */
  rangeMismatch(
    guestLine: number | undefined,
    qemuLine: number | undefined,
    wrong: Disagreement,
  ): void;
}

/** Ranges that wait for the other file; more are not paired. */
const MAX_WAITING = 2 ** 18;

/**
 * Pairs `map` and `unmap` of the guest's trace with the commands of the log, in their order. One range
 * may be several commands, one behind the other: each maps an aligned part of it, or invalidates one.
 */
export class RangePairs {
  readonly #isPaired: (kind: 'map' | 'unmap') => boolean;
  readonly #listener: RangeListener;
  readonly #guest: IommuRange[] = [];
  readonly #told: ToldRange[] = [];
  /** Of the guest's first range, so much was in commands. */
  #done = 0n;
  #hasCommands = false;
  #isOver = false;

  /** `isPaired`: a translation that is new needs no command of an SMMU. */
  constructor(isPaired: (kind: 'map' | 'unmap') => boolean, listener: RangeListener) {
    this.#isPaired = isPaired;
    this.#listener = listener;
  }

  guest(range: IommuRange): void {
    if (!this.#isPaired(range.kind) || this.#isOver) return;
    this.#guest.push(range);
    this.#pair();
  }

  told(range: ToldRange): void {
    if (!this.#isPaired(range.kind) || this.#isOver) return;
    this.#hasCommands = true;
    this.#told.push(range);
    this.#pair();
  }

  /** Both files have ended: a guest may stop before it tells its IOMMU of the last unmappings. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const last = this.#guest.findLastIndex(({ kind }) => kind === 'map');
    const missing = this.#guest[0];
    // A log may be of other events.
    if (!this.#hasCommands || last < 0 || missing === undefined) return;
    this.#listener.rangeMismatch(missing.line, undefined, {
      what: missing.kind,
      recorded: hex(missing.iova),
      model: "a command in QEMU's log",
    });
  }

  #pair(): void {
    let [guest, told] = [0, 0];
    while (guest < this.#guest.length && told < this.#told.length) {
      const range = this.#guest[guest] as IommuRange;
      const command = this.#told[told] as ToldRange;
      told += 1;
      const wrong = this.#differs(range, command);
      if (wrong !== undefined) this.#listener.rangeMismatch(range.line, command.line, wrong);
      this.#done += command.size;
      if (wrong === undefined && this.#done < BigInt(range.size)) continue;
      if (wrong === undefined) this.#listener.rangePaired();
      this.#done = 0n;
      guest += 1;
    }
    if (guest > 0) this.#guest.splice(0, guest);
    if (told > 0) this.#told.splice(0, told);
    if (Math.max(this.#guest.length, this.#told.length) > MAX_WAITING) this.#isOver = true;
  }

  #differs(range: IommuRange, command: ToldRange): Disagreement | undefined {
    const at = range.iova + this.#done;
    const rows: [what: string, recorded: bigint | string, model: bigint | string][] = [
      ['command', command.kind, range.kind],
      ['command: address', command.iova, at],
      [
        'command: paddr',
        command.gpa ?? 0n,
        command.gpa === undefined ? 0n : range.gpa + this.#done,
      ],
    ];
    const left = BigInt(range.size) - this.#done;
    if (command.size > left) rows.push(['command: size', command.size, left]);
    const wrong = rows.find(([, recorded, model]) => recorded !== model);
    if (wrong === undefined) return undefined;
    const [what, recorded, model] = wrong;
    const show = (value: bigint | string): string =>
      typeof value === 'bigint' ? hex(value) : value;
    return { what, recorded: show(recorded), model: show(model) };
  }
}
