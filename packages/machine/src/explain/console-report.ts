/** What a guest's console proves. */
import { formatSize } from '@pinhole/base';
import { kernelProfileForRelease } from '@pinhole/guest';
import type { ConsoleFact } from '@pinhole/trace';
import { ExplainError } from './errors.js';
import type { ExplanationStep, Finding, PathId } from './explanation.js';
import type { ConfidentialKind, DeviceFacts, Fact, MachineFacts, PlatformId } from './facts.js';
import { TRANSITIONAL_PCI_IDS, VIRTIO_KINDS } from './virtio-models.js';

type Kind<K extends ConsoleFact['kind']> = Extract<ConsoleFact, { kind: K }>;

const GIB = 2 ** 30;
const MEMORY_BLOCK = 256 * 2 ** 20;
const ACCESS_PLATFORM = 1n << 33n;
/** 0x1040 and the number of its type. [VIRTIO 1.2 §4.1.2 "PCI Device Discovery", §5.13 "IOMMU Device"] */
const VIRTIO_IOMMU_ID = 0x1057;
/** One mapping of the bounce pool. [linux v6.1 include/linux/swiotlb.h IO_TLB_SEGSIZE] */
const SWIOTLB_MAX = 256 * 1024;
const IOMMU = '[linux v6.12 arch/powerpc/platforms/pseries/iommu.c enable_ddw]';

/** Everything that the console is good for. */
export interface ConsoleReport {
  /** As of `uname -r`; undefined when the log does not have it. */
  readonly release: string | undefined;
  readonly machine: MachineFacts;
  readonly devices: readonly DeviceFacts[];
  /** Bit 33 of each features string, in order. */
  readonly flags: readonly boolean[];
  /** The path that the log proves, with its lines. */
  readonly observed:
    | { readonly path: PathId; readonly steps: readonly ExplanationStep[] }
    | undefined;
  readonly findings: readonly Finding[];
  readonly notes: readonly string[];
  readonly notUnderstood: readonly [];
}

/** @throws ExplainError `E_CONSOLE` for a log that has nothing to say. */
export function describeConsole(all: readonly ConsoleFact[]): ConsoleReport {
  const facts = withoutRepeats(all);
  if (facts.length === 0) {
    throw new ExplainError(
      'E_CONSOLE',
      'expected the console log of a Linux guest (dmesg), found no line in it that says anything about the kernel, its devices or DMA',
    );
  }
  return new ConsoleDescriber(facts).describe();
}

// A console that prints dmesg at its end says everything twice; the first time is enough.
function withoutRepeats(facts: readonly ConsoleFact[]): ConsoleFact[] {
  const seen = new Set<string>();
  return facts.filter((fact) => {
    const { line: _line, ...rest } = fact;
    const key = JSON.stringify(rest, (_key, value: unknown) =>
      typeof value === 'bigint' ? `${value}n` : value,
    );
    if (fact.t !== undefined && seen.has(key)) return false;
    seen.add(key);
    return true;
  });
}

class ConsoleDescriber {
  readonly #all: readonly ConsoleFact[];
  readonly #facts: Fact[] = [];

  constructor(all: readonly ConsoleFact[]) {
    this.#all = all;
  }

  describe(): ConsoleReport {
    const kernel = this.#last('kernel');
    const release = kernel?.release;
    if (kernel) this.#fact('kernel', kernel.release, kernel);
    const parameters = this.#last('command-line');
    if (parameters) this.#fact('kernel parameters', parameters.commandLine, parameters);
    const flags = this.#of('virtio-features').map(
      ({ features }) => (features & ACCESS_PLATFORM) !== 0n,
    );
    for (const fact of this.#of('virtio-features')) {
      const isOn = (fact.features & ACCESS_PLATFORM) !== 0n;
      this.#fact(
        `${fact.device ?? 'a device'}: bit 33`,
        isOn ? 'negotiated' : 'not negotiated',
        fact,
      );
    }
    const machine = this.#machine(parameters?.commandLine ?? '');
    const notes: string[] = [];
    const profile = release === undefined ? undefined : kernelProfileForRelease(release);
    if (release !== undefined && profile === undefined) {
      notes.push(`there is no profile of a kernel as old as ${release}`);
    }
    return {
      release,
      machine,
      devices: this.#devices(flags),
      flags,
      observed: this.#observed(flags, machine.platform),
      findings: this.#findings(),
      notes,
      notUnderstood: [],
    };
  }

  #of<K extends ConsoleFact['kind']>(kind: K): Kind<K>[] {
    return this.#all.filter((fact): fact is Kind<K> => fact.kind === kind);
  }

  #last<K extends ConsoleFact['kind']>(kind: K): Kind<K> | undefined {
    return this.#of(kind).at(-1);
  }

  #fact(what: string, value: string, fact: ConsoleFact): void {
    this.#facts.push({ what, value, from: `console line ${fact.line}` });
  }

  #machine(parameters: string): MachineFacts {
    const platform = this.#platform();
    const memory = this.#memory();
    const create = this.#last('ddw-create');
    const isMade = create?.status === 0;
    const window = isMade ? 2 ** create.windowShift : 0;
    // A window larger than memory was made for memory that can be added.
    const hasRoom = isMade && window >= 2 * memory;
    return {
      platform,
      machineType: platform === 'pseries' ? 'pseries' : platform,
      memory,
      maxMemory: hasRoom ? window : undefined,
      cpus: this.#last('cpus')?.cpus ?? 1,
      accel: 'other',
      qemu: isMade && !hasRoom ? '10.0' : '7.2',
      bridges: [{ index: 0, ddw: this.#of('ddw-query').length > 0 || isMade }],
      viommu: platform === 'pseries' ? undefined : this.#viommu(platform, parameters),
      confidential: this.#confidential(platform),
      grants: platform === 'xen' ? this.#grants() : undefined,
      kernelParameters: parameters,
      refusals: [],
      facts: this.#facts,
    };
  }

  #platform(): PlatformId {
    const hypervisor = this.#last('hypervisor');
    if (hypervisor?.name.startsWith('Xen') === true) {
      this.#fact('hypervisor', hypervisor.name, hypervisor);
      return 'xen';
    }
    const release = this.#last('kernel')?.release ?? '';
    if (/ppc64|powerpc/.test(release)) return 'pseries';
    if (/s390/.test(release)) return 's390x';
    if (/arm64|aarch64/.test(release)) return 'arm64';
    if (/amd64|x86_64/.test(release)) return 'x86';
    const isPapr = this.#all.some(({ kind }) => /^(ddw-|direct-mapping|iommu-table)/.test(kind));
    return isPapr || this.#of('iommu-alloc-failed').length > 0 ? 'pseries' : 'x86';
  }

  // What the kernel counts as its memory is a little less than there is.
  #memory(): number {
    const fact = this.#of('memory').findLast(({ totalBytes }) => totalBytes > 0);
    if (fact === undefined) return 2 * GIB;
    const memory = Math.ceil(fact.totalBytes / MEMORY_BLOCK) * MEMORY_BLOCK;
    this.#fact('memory', `about ${formatSize(memory)}`, fact);
    return memory;
  }

  // The log has groups, and not whose: only some machines leave no choice.
  #viommu(platform: PlatformId, parameters: string): string | undefined {
    if (this.#of('iommu-group').length === 0) return undefined;
    const isVirtio = this.#of('pci-device').some(
      ({ vendor, device }) => vendor === 0x1af4 && device === VIRTIO_IOMMU_ID,
    );
    if (isVirtio) return 'virtio-iommu';
    const isIntel = platform === 'x86' && /\bintel_iommu=on\b/.test(parameters);
    return isIntel ? 'intel-iommu' : 'the IOMMU that the log shows';
  }

  // PV guests cannot work virtio devices without them, nor would another guest refuse one.
  #grants(): boolean | undefined {
    const isPv = this.#last('hypervisor')?.name === 'Xen PV';
    return isPv || this.#last('virtio-required') !== undefined ? true : undefined;
  }

  #confidential(platform: PlatformId): MachineFacts['confidential'] {
    const fact = this.#last('memory-encryption');
    const refused = this.#last('virtio-required');
    const from = `console line ${(fact ?? refused)?.line ?? 0}`;
    if (fact !== undefined) {
      this.#fact('memory encryption', fact.features, fact);
      const kind: ConfidentialKind = /TDX/.test(fact.features) ? 'tdx' : 'sev';
      return { kind, from };
    }
    // Only a guest with private memory refuses a device for this.
    if (refused === undefined || platform === 'xen') return undefined;
    const kinds: Partial<Record<PlatformId, ConfidentialKind>> = { s390x: 's390-pv', arm64: 'cca' };
    return { kind: kinds[platform] ?? 'sev', from };
  }

  #devices(flags: readonly boolean[]): DeviceFacts[] {
    const seen = new Map<string, Kind<'pci-device'>>();
    for (const fact of this.#of('pci-device')) {
      if (fact.vendor !== 0x1af4) continue;
      const key = fact.address.replace(/^\w{4}:/, '').replace(/^ +/, '');
      seen.set(key, seen.get(key) ?? fact);
    }
    const devices = [...seen.values()].flatMap((fact) => this.#pciDevice(fact));
    const named = devices.length > 0 ? devices : this.#namedDevices(flags.length);
    return named.map((device, at) => ({
      ...device,
      iommuPlatform: flags[at] ?? (this.#of('virtio-required').length > 0 ? false : undefined),
      flagBecause:
        flags[at] === undefined ? 'the log does not say' : 'the features string of the log',
    }));
  }

  #pciDevice(fact: Kind<'pci-device'>): DeviceFacts[] {
    const transitional = TRANSITIONAL_PCI_IDS.get(fact.device);
    const known = VIRTIO_KINDS.get(transitional ?? fact.device - 0x1040);
    if (known === undefined || known.kind === 'IOMMU') return [];
    return [
      {
        ...this.#blank(fact.address),
        driver: `${known.base}-pci`,
        kind: known.kind,
        mode: transitional === undefined ? 'modern' : 'transitional',
        modeBecause: `PCI id 1af4:${fact.device.toString(16)}, console line ${fact.line}`,
      },
    ];
  }

  // A log that lists no PCI device names devices in its messages.
  #namedDevices(count: number): DeviceFacts[] {
    const names = new Set([
      ...this.#of('virtio-required').map(({ device }) => device),
      ...this.#of('virtio-refused').map(({ device }) => device),
      ...this.#of('virtio-features').flatMap(({ device }) =>
        device === undefined ? [] : [device],
      ),
      ...this.#of('direct-mapping').map(({ device }) => device),
      ...this.#of('swiotlb-full').map(({ device }) => device),
    ]);
    const list = [...names].slice(0, Math.max(1, count, names.size));
    return list.map((name) => this.#blank(name));
  }

  #blank(name: string): DeviceFacts {
    return {
      name,
      driver: 'virtio',
      kind: 'disk',
      transport: 'pci',
      place: 'as the log shows',
      bridge: 0,
      isPastViommu: false,
      mode: undefined,
      modeBecause: 'the log does not say',
      iommuPlatform: undefined,
      flagBecause: 'the log does not say',
      packed: false,
      indirect: true,
      eventIdx: true,
      worker: 'qemu',
      ats: false,
    };
  }

  #observed(flags: readonly boolean[], platform: PlatformId): ConsoleReport['observed'] {
    const steps: ExplanationStep[] = [];
    const add = (text: string, fact: ConsoleFact, source = IOMMU): void => {
      steps.push({ side: 'guest', text, fact: `console line ${fact.line}`, source });
    };
    const required = this.#last('virtio-required');
    if (required !== undefined) {
      const source = '[linux v6.12 drivers/virtio/virtio.c virtio_features_ok]';
      add(`the driver gives up: "device must provide ${required.feature}"`, required, source);
      return { path: 'refused', steps };
    }
    if (platform !== 'pseries') return undefined;
    const create = this.#last('ddw-create');
    for (const fact of this.#of('ddw-create')) {
      add(
        fact.status === 0
          ? `a second window of 2^${fact.windowShift} bytes was made at 0x${fact.address.toString(16)}, with pages of 2^${fact.pageShift}`
          : `a second window of 2^${fact.windowShift} bytes was refused: ${fact.status}`,
        fact,
        '[linux v6.12 arch/powerpc/platforms/pseries/iommu.c create_ddw]',
      );
    }
    for (const fact of this.#of('ddw-note')) add(fact.message, fact);
    const direct = this.#last('direct-mapping');
    if (direct !== undefined) {
      add(`in the end the device is ${direct.directMapping ? '' : 'not '}mapped directly`, direct);
    }
    const limit = this.#last('dma-limit');
    if (limit !== undefined) {
      const source = '[linux v6.12 arch/powerpc/kernel/dma-iommu.c dma_iommu_dma_supported]';
      add(`direct DMA is limited by 0x${limit.limit.toString(16)}`, limit, source);
    }
    if (flags.length > 0 && flags.every((isOn) => !isOn)) return { path: 'physical', steps };
    if (!flags.includes(true)) return steps.length > 0 ? { path: 'unknown', steps } : undefined;
    const isDirect = direct?.directMapping ?? create?.status === 0;
    if (isDirect) return { path: 'second-window', steps };
    const isLeaking = limit !== undefined && limit.limit < 4096n;
    return { path: isLeaking ? 'default-window-leak' : 'default-window', steps };
  }

  #findings(): Finding[] {
    return [
      ...this.#lostWindow(),
      ...this.#limited(),
      ...this.#allocFailed(),
      ...this.#bounceFull(),
      ...this.#refused(),
    ];
  }

  #lostWindow(): Finding[] {
    const lost = this.#of('ddw-create').find(({ status }) => status !== 0);
    const query = this.#of('ddw-query').find(({ status }) => status !== 0);
    const findings: Finding[] = [];
    if (lost !== undefined) {
      const isNothing = lost.windowShift < lost.pageShift;
      findings.push({
        id: 'ddw-lost',
        severity: 'warning',
        text: isNothing
          ? `The second window was lost: the kernel asked for 2^${lost.windowShift} bytes, less than a page of 2^${lost.pageShift}, and QEMU answered ${lost.status}. The kernel sizes the window by ibm,lrdr-capacity, which QEMU 7.2 leaves at 0 without maxmem. Every buffer with bit 33 now costs a hypercall to map and one to unmap.`
          : `The second window was refused with ${lost.status}.`,
        line: lost.line,
        fix: isNothing ? '-m SIZE,slots=2,maxmem=LARGER, or a newer QEMU' : null,
        source: '[linux commit 6aa989ab2bd0]',
      });
    }
    if (query !== undefined) {
      findings.push({
        id: 'ddw-query-failed',
        severity: 'warning',
        text: `The question for a second window was answered ${query.status}: there will be none on this host bridge.`,
        line: query.line,
        fix: null,
        source: '[linux v6.12 arch/powerpc/platforms/pseries/iommu.c query_ddw]',
      });
    }
    const lsa = this.#of('direct-mapping').find((fact) => fact.lsaRequired && !fact.lsaEnabled);
    if (lsa !== undefined) {
      findings.push({
        id: 'mask-below-64',
        severity: 'warning',
        text: `${lsa.device} asks for less than 64 bits of address, and the platform has no limited address mode (ddw-extensions index 3): no second window for it, and the bridge goes on the list of failures for the others, too.`,
        line: lsa.line,
        fix: 'put it on a host bridge of its own',
        source: '[linux commit 67dfc11982f7]',
      });
    }
    return findings;
  }

  #limited(): Finding[] {
    const limit = this.#of('dma-limit').find((fact) => fact.limit < 4096n);
    if (limit === undefined) return [];
    return [
      {
        id: 'leak',
        severity: 'error',
        text: `Direct DMA is "limited by ${limit.limit.toString(16)}" though there is no second window: the kernel takes every unmap for a direct one, so TCEs are never cleared. The window fills up ("iommu_alloc failed"), and the device keeps access to every buffer it ever had.`,
        line: limit.line,
        fix: '-m SIZE,slots=2,maxmem=LARGER, so that the second window can be made; or disable_ddw on the kernel command line',
        source: '[linux commit 1471c517cf7d]',
      },
    ];
  }

  #allocFailed(): Finding[] {
    const failed = this.#of('iommu-alloc-failed');
    const [first] = failed;
    if (first === undefined) return [];
    const left = this.#of('suppressed').reduce((sum, { count }) => sum + count, 0);
    const most = Math.max(...failed.map(({ npages }) => npages));
    return [
      {
        id: 'window-full',
        severity: 'error',
        text: `The DMA window has no room for ${most} pages in a row: ${failed.length} such lines${left > 0 ? `, and ${left} more that were not printed` : ''}. Virtio tries again for ever, so I/O hangs without an error. Small mappings take 16 entries of address space each; a window that is small, leaking or shared by many devices runs out.`,
        line: first.line,
        fix: 'a second window (ddw, maxmem), or a larger dma_win_size',
        source: '[linux v6.12 arch/powerpc/kernel/iommu.c iommu_range_alloc]',
      },
    ];
  }

  #bounceFull(): Finding[] {
    const full = this.#of('swiotlb-full');
    const largest = full.toSorted((a, b) => b.bytes - a.bytes)[0];
    if (largest === undefined) return [];
    const pool = formatSize(largest.totalSlots * 2048);
    const used = formatSize(largest.usedSlots * 2048);
    const isTooLarge = largest.bytes > SWIOTLB_MAX;
    return [
      {
        id: isTooLarge ? 'swiotlb-too-large' : 'swiotlb-full',
        severity: 'error',
        text: isTooLarge
          ? `swiotlb buffer is full for a mapping of ${largest.bytes} bytes with ${used} of ${pool} in use: one mapping is 256 KiB at most, so a bigger pool does not help; ${largest.device}'s driver has to ask for smaller ones (kernels before 5.17 did not pass the limit on to virtio).`
          : `swiotlb buffer is full for a mapping of ${largest.bytes} bytes: ${used} of ${pool} in use. The pool is too small for what is in flight, or its free slots do not lie together.`,
        line: largest.line,
        fix: isTooLarge
          ? 'a newer kernel in the guest, or smaller requests (max_sectors_kb)'
          : `a larger pool: swiotlb=${largest.totalSlots * 2} on the kernel command line (slots of 2 KiB: ${formatSize(largest.totalSlots * 4096)})`,
        source: '[linux v6.12 kernel/dma/swiotlb.c swiotlb_tbl_map_single]',
      },
    ];
  }

  #refused(): Finding[] {
    const required = this.#of('virtio-required').map(
      (fact): Finding => ({
        id: 'feature-required',
        severity: 'error',
        text: `${fact.device}: the guest's memory is private and the device does not offer ${fact.feature}: the driver refuses it, and the disk or network is not found.`,
        line: fact.line,
        fix: 'disable-legacy=on,iommu_platform=on for each virtio device',
        source: '[linux v6.12 drivers/virtio/virtio.c virtio_features_ok]',
      }),
    );
    const refused = this.#of('virtio-refused').map(
      (fact): Finding => ({
        id: 'features-refused',
        severity: 'error',
        text: `${fact.device}: the device did not accept the driver's features (status 0x${fact.status.toString(16)}). QEMU does so when it offers bit 33 and the driver does not take it.`,
        line: fact.line,
        fix: 'a driver that knows VIRTIO_F_ACCESS_PLATFORM, or iommu_platform=off',
        source: '[qemu v7.2 hw/virtio/virtio.c virtio_validate_features]',
      }),
    );
    return [...required, ...refused];
  }
}
