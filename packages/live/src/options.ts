/**
 * Properties of one more `spapr-pci-host-bridge`, by QEMU's names; booleans are `on` and `off`. Its
 * `id` is `phb` and its index if not given; a device is on its bus with `bus=phb1.0`.
 */
export interface HostBridgeOptions {
  /** 1 to 30; the bridge at index 0 is always there. */
  readonly index: number;
  /** Whether there are dynamic DMA windows. */
  readonly ddw?: boolean;
  /** Page sizes that a dynamic window may have: a mask, bit n for 2^n bytes. */
  readonly pgsz?: number | bigint;
  /** Size of the default window, in bytes. */
  readonly dma_win_size?: number | bigint;
  /** Bus address of the second window. */
  readonly dma64_win_addr?: number | bigint;
  readonly [property: string]: string | number | bigint | boolean | undefined;
}

/** Options of `LiveQemu.start`. */
export interface LiveQemuOptions {
  /** Path or name of QEMU's program; `qemu-system-ppc64`, from the PATH, if not given. */
  readonly qemu?: string;
  /**
   * Size of the guest's memory in bytes: a multiple of 256 MiB, which is also what it is if not
   * given. Of the host's memory it takes what is written.
   */
  readonly memory?: number;
  /** Up to where memory could be plugged, in bytes: QEMU's `maxmem`. */
  readonly maxMemory?: number;
  /** Machine type, and properties after commas: `pseries-4.1,cap-htm=off`. `pseries` if not given. */
  readonly machine?: string;
  /**
   * More host bridges: how many, or the properties of each. With any, QEMU puts a device that names
   * no bus onto the last one; the first bridge's is `bus=pci.0`.
   */
  readonly phbs?: number | readonly HostBridgeOptions[];
  /** More arguments for QEMU: devices, drives, `-global`, `-trace`, `-d`. */
  readonly args?: readonly string[];
  /** Bound for each wait in milliseconds: 10,000 if not given. */
  readonly timeoutMs?: number;
}

/** Memory slots where `maxMemory` is given. */
const SLOTS = 8;

/**
 * The arguments for QEMU. The capabilities are those that TCG cannot provide; without naming them
 * so QEMU refuses to start, or warns. [qemu v7.2 hw/ppc/spapr_caps.c]
 */
export function commandLine(
  options: LiveQemuOptions & { memory: number },
  files: { readonly ram: string; readonly firmware: string },
): string[] {
  const { memory, maxMemory, phbs = 0, args = [] } = options;
  const [type, ...properties] = (options.machine ?? 'pseries').split(',');
  const caps = ['cap-cfpc=broken', 'cap-sbbc=broken', 'cap-ibs=broken', 'cap-ccf-assist=off'];
  const bridges = typeof phbs === 'number' ? numbered(phbs) : phbs;
  const maximum = maxMemory === undefined ? '' : `,slots=${SLOTS},maxmem=${maxMemory}B`;
  return [
    ...['-machine', [type, ...caps, 'memory-backend=ram0', ...properties].join(',')],
    ...['-accel', 'tcg', '-cpu', 'power9', '-smp', '1'],
    ...['-m', `size=${memory}B${maximum}`],
    '-object',
    `memory-backend-file,id=ram0,size=${memory}B,mem-path=${files.ram},share=on`,
    ...['-bios', files.firmware],
    ...['-no-user-config', '-nodefaults', '-display', 'none', '-vga', 'none'],
    ...['-chardev', 'stdio,id=pinhole,signal=off', '-mon', 'chardev=pinhole,mode=control'],
    ...bridges.flatMap((bridge) => [
      '-device',
      ['spapr-pci-host-bridge', ...bridgeProperties(bridge)].join(),
    ]),
    ...args,
  ];
}

const numbered = (count: number): HostBridgeOptions[] =>
  Array.from({ length: count }, (_, i) => ({ index: i + 1 }));

const bridgeProperties = (bridge: HostBridgeOptions): string[] =>
  Object.entries({ id: `phb${bridge.index}`, ...bridge }).flatMap(([name, value]) => {
    if (value === undefined) return [];
    return `${name}=${typeof value === 'boolean' ? (value ? 'on' : 'off') : value}`;
  });
