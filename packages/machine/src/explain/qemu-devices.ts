/** The virtio devices of a QEMU command line. */
import type { DeviceFacts, MachineFacts, NotUnderstood, Refusal } from './facts.js';
import { type Bus, Buses } from './qemu-buses.js';
import type { CommandDevice, QemuCommand } from './qemu-command.js';
import { lastValue, parseOnOff } from './qemu-opts.js';
import { findVirtioModel, type VirtioModel, type VirtioTransport } from './virtio-models.js';

/** Properties that are read here. */
const READ = new Set([
  'driver',
  'id',
  'bus',
  'iommu_platform',
  'disable-legacy',
  'disable-modern',
  'packed',
  'indirect_desc',
  'event_idx',
  'num-queues',
  'num_queues',
  'mq',
  'netdev',
  'drive',
  'chardev',
  'vhost',
  'vhost-user',
  'ats',
]);

/** Properties that change nothing about how memory is reached. [qemu v7.2: -device virtio-*-pci,help] */
const WITHOUT_EFFECT = new Set(
  `account-failed account-invalid acpi-index addr aer any_layout backend_defaults blob block-size
  boot_tpgt bootindex class cmd_per_lun config-wce cryptodev csum ctrl_guest_offloads ctrl_mac_addr
  ctrl_rx ctrl_rx_extra ctrl_vlan ctrl_vq cyls deflate-on-oom devno discard discard_granularity display
  duplex edid emergency-write evdev failover failover_pair_id free-page-hint free-page-reporting fsdev
  gso guest-cid guest-stats guest-stats-polling-interval guest_announce guest_csum guest_ecn
  guest_rsc_ext guest_tso4 guest_tso6 guest_ufo hash head heads host_ecn host_mtu host_tso4 host_tso6
  host_ufo hotplug ioeventfd iothread lcyls lheads logical_block_size lsecs mac max-bytes
  max-discard-sectors max-write-zeroes-sectors max_hostmem max_outputs max_ports max_sectors memaddr
  memdev migratable migrate-extra min_io_size modern-pio-notify mount_tag mrg_rxbuf multifunction name
  node notify_on_empty num-request-queues opt_io_size page-per-vq page-poison param_change period
  physical_block_size prealloc queue-size queue_reset report-discard-granularity request-merging
  requested-size rerror rng rombar romfile romsize rsc_interval rss rx_queue_size scsi secs
  seg-max-adjust seg_max_adjust seqpacket serial share-rw size speed status t10_pi tag tx tx_queue_size
  unplugged-inaccessible use-disabled-flag use-started vectors vhostfd virtqueue_size werror write-cache
  write-zeroes wwpn xres yres mq`.split(/\s+/),
);

/** Devices without a queue of their own, and hardware that is read elsewhere. */
const HELPERS =
  /^(scsi-|ide-|usb-|pci-bridge|pcie-|pxb|ioh3420|x3130|xio3130|i82801b11|spapr-pci-host-bridge|virtserialport|virtconsole|intel-iommu|amd-iommu|virtio-iommu|arm-smmuv3|nvdimm|pc-dimm|isa-|hda-|tpm-|VGA|qxl|cirrus|secondary-vga|bochs|ramfb|i6300esb|pvpanic|.*-cpu$|power|host-)/;

const PLUGGED = '[qemu v7.2 hw/virtio/virtio-pci.c virtio_pci_device_plugged]';
const REALIZE = '[qemu v7.2 hw/virtio/virtio-pci.c virtio_pci_realize]';

/** The devices, and what of them was not understood. */
export function describeQemuDevices(
  command: QemuCommand,
  machine: MachineFacts,
): { devices: DeviceFacts[]; notUnderstood: NotUnderstood[] } {
  const buses = new Buses(command, machine.platform, machine.machineType);
  const names = new Map<string, number>();
  const notUnderstood: NotUnderstood[] = [];
  const devices = [...command.devices, ...defaultDevices(command, machine)].flatMap((device) => {
    const driver = driverOf(device, machine);
    const model = driver === undefined ? undefined : findVirtioModel(driver);
    if (driver === undefined || model === undefined) {
      if (driver !== undefined && !HELPERS.test(driver)) {
        notUnderstood.push({
          text: device.text.slice(0, 60),
          effect: 'none',
          why: 'no virtio device: it does DMA through its bus like any other, whatever virtio does',
        });
      }
      return [];
    }
    const reader = new DeviceReader(device, driver, model, command, machine);
    notUnderstood.push(...reader.strangeProperties());
    const facts = reader.describe(buses);
    const count = (names.get(facts.name) ?? 0) + 1;
    names.set(facts.name, count);
    return [count === 1 ? facts : { ...facts, name: `${facts.name} #${count}` }];
  });
  notUnderstood.push(
    ...command.globals
      .filter(({ isUsed }) => !isUsed)
      .map(({ driver, property, value }) => ({
        text: `-global ${driver}.${property}=${value}`.slice(0, 60),
        effect: /virtio|vhost|pci|iommu/.test(driver) ? ('may-matter' as const) : ('none' as const),
        why: 'a property that is not read, or of a device that is not there',
      })),
  );
  return { devices, notUnderstood };
}

// What there is without being asked for. [qemu v7.2 hw/arm/virt.c create_pcie, hw/s390x/s390-virtio-ccw.c]
function defaultDevices(command: QemuCommand, machine: MachineFacts): CommandDevice[] {
  const devices: CommandDevice[] = [];
  const add = (driver: string, text: string): void => {
    devices.push({ text, opts: [{ key: 'driver', value: driver, isShort: false }] });
  };
  const hasNic = command.hasNicOption || command.netdevs.length > 0;
  const isVirtioByDefault = machine.platform === 'arm64' || machine.platform === 's390x';
  if (command.hasDefaults && !hasNic && isVirtioByDefault) {
    add('virtio-net', 'the network card that is there without -nodefaults');
  }
  if (command.vga === 'virtio') add('virtio-vga', '-vga virtio');
  return devices;
}

function driverOf(device: CommandDevice, machine: MachineFacts): string | undefined {
  const driver = lastValue(device.opts, 'driver') ?? '';
  const isVirtioByDefault = machine.platform === 'arm64' || machine.platform === 's390x';
  if (driver === 'default-disk') return isVirtioByDefault ? 'virtio-blk' : undefined;
  if (driver === 'default-nic') return isVirtioByDefault ? 'virtio-net' : undefined;
  return driver;
}

/** A value, and why it has it. */
interface Given {
  readonly value: string;
  readonly from: string;
}

class DeviceReader {
  readonly #device: CommandDevice;
  readonly #driver: string;
  readonly #model: VirtioModel;
  readonly #command: QemuCommand;
  readonly #machine: MachineFacts;
  readonly #transport: VirtioTransport;

  constructor(
    device: CommandDevice,
    driver: string,
    model: VirtioModel,
    command: QemuCommand,
    machine: MachineFacts,
  ) {
    this.#device = device;
    this.#driver = driver;
    this.#model = model;
    this.#command = command;
    this.#machine = machine;
    this.#transport =
      model.transport ??
      (machine.platform === 's390x'
        ? 'ccw'
        : /^(microvm|xenpvh)$/.test(machine.machineType)
          ? 'mmio'
          : 'pci');
  }

  describe(buses: Buses): DeviceFacts {
    const busName = lastValue(this.#device.opts, 'bus');
    const bus = this.#transport === 'pci' ? buses.find(busName) : undefined;
    const flag = this.#flag();
    const mode = this.#mode(bus);
    const refusal = this.#refusal(bus, busName, flag, mode);
    return {
      name: this.#name(),
      driver: this.#driver,
      kind: this.#model.kind,
      transport: this.#transport,
      place: this.#place(bus, busName),
      bridge: bus?.bridge ?? 0,
      isPastViommu: bus?.isPastViommu ?? false,
      mode: mode.mode,
      modeBecause: mode.because,
      iommuPlatform: flag.isOn,
      flagBecause: flag.because,
      refusal,
      packed: this.#isOn('packed', false),
      indirect: this.#isOn('indirect_desc', true),
      eventIdx: this.#isOn('event_idx', true),
      queues: this.#queues(),
      worker: this.#worker(),
      ats: this.#isOn('ats', false),
    };
  }

  strangeProperties(): NotUnderstood[] {
    return this.#device.opts
      .filter(({ key }) => !READ.has(key) && !WITHOUT_EFFECT.has(key) && !key.startsWith('x-'))
      .map(({ key, value }) => ({
        text: `${this.#driver}: ${key}=${value}`.slice(0, 60),
        effect: 'may-matter' as const,
        why: 'no property of virtio devices that is known here; QEMU may refuse it',
      }));
  }

  #name(): string {
    const { opts } = this.#device;
    const id = lastValue(opts, 'id');
    if (id !== undefined) return id;
    const backend = lastValue(opts, 'drive') ?? lastValue(opts, 'netdev');
    return backend === undefined ? this.#driver : `${this.#driver} ${backend}`;
  }

  #place(bus: Bus | undefined, busName: string | undefined): string {
    if (this.#transport === 'ccw') return 'channel subsystem (ccw)';
    if (this.#transport === 'mmio') return 'virtio-mmio';
    if (bus === undefined) return `bus ${busName ?? ''}, which does not exist`;
    const what = {
      conventional: 'conventional PCI',
      'express-root': 'root complex, no port',
      port: 'PCI Express port',
    }[bus.kind];
    const bridge = this.#machine.platform === 'pseries' ? ` of host bridge ${bus.bridge}` : '';
    return `bus ${bus.name}${bridge} (${what})`;
  }

  /**
   * A property: as given to the device, by `-global`, by the machine, or its default.
   * [qemu v7.2 hw/core/qdev-properties.c qdev_prop_set_globals]
   */
  #property(key: string, classes: readonly string[]): Given | undefined {
    const own = this.#device.opts.findLast((opt) => opt.key === key);
    if (own !== undefined) return { value: own.value, from: `${key}=${own.value}` };
    const names = [this.#driver, ...classes];
    const globals = this.#command.globals.filter(
      ({ driver, property }) => property === key && names.includes(driver),
    );
    for (const global of globals) global.isUsed = true;
    const last = globals.at(-1);
    if (last === undefined) return undefined;
    return { value: last.value, from: `-global ${last.driver}.${key}=${last.value}` };
  }

  get #backendClasses(): string[] {
    const { base } = this.#model;
    return [
      'device',
      'pci-device',
      'virtio-device',
      `${base}-device`,
      `${base}-pci`,
      `${base}-ccw`,
      `${base}-pci-base`,
    ];
  }

  #isOn(key: string, byDefault: boolean): boolean {
    const given = this.#property(key, [...this.#backendClasses, 'virtio-pci']);
    return parseOnOff(given?.value ?? '') ?? byDefault;
  }

  // [qemu v7.2 include/hw/virtio/virtio.h DEFINE_VIRTIO_COMMON_FEATURES, hw/core/machine.c machine_run_board_init]
  #flag(): { isOn: boolean; because: string; invalid?: string } {
    const given = this.#property('iommu_platform', this.#backendClasses);
    if (given !== undefined) {
      const isOn = parseOnOff(given.value);
      return isOn === undefined
        ? { isOn: false, because: given.from, invalid: given.value }
        : { isOn, because: given.from };
    }
    if (this.#machine.confidential !== undefined) {
      return { isOn: true, because: `set by ${this.#machine.confidential.from}` };
    }
    return { isOn: false, because: 'iommu_platform is off by default' };
  }

  #mode(bus: Bus | undefined): {
    mode: DeviceFacts['mode'];
    because: string;
    hasNeither?: true;
    /** A value of `disable-legacy` that is none. */
    invalid?: string;
  } {
    if (this.#transport === 'ccw') {
      return { mode: 'modern', because: 'ccw: the guest chooses the revision' };
    }
    if (this.#transport === 'mmio') return { mode: 'modern', because: 'virtio-mmio' };
    if (this.#model.isModernOnly) {
      return { mode: 'modern', because: `${this.#model.base} has no legacy form` };
    }
    if (this.#model.variant !== 'generic') {
      const mode = this.#model.variant === 'transitional' ? 'transitional' : 'modern';
      return { mode, because: `its name ends in -${this.#model.variant}` };
    }
    const isOld = /-[12]\.(\d+)$/.exec(this.#machine.machineType);
    // [qemu v7.2 hw/core/machine.c hw_compat_2_6]
    const isLegacyByType = isOld !== null && Number(isOld[1]) <= 6;
    const legacy = this.#disableLegacy(bus, isLegacyByType);
    const modern = this.#property('disable-modern', ['virtio-pci', ...this.#backendClasses]);
    const isModernOff = parseOnOff(modern?.value ?? '') ?? isLegacyByType;
    const because = [
      legacy.because,
      ...(isModernOff ? [modern?.from ?? `disable-modern=on in ${this.#machine.machineType}`] : []),
    ].join(', ');
    if (legacy.invalid !== undefined) {
      return { mode: 'transitional', because, invalid: legacy.invalid };
    }
    if (isModernOff && legacy.isOff) return { mode: 'legacy', because, hasNeither: true };
    if (isModernOff) return { mode: 'legacy', because };
    return { mode: legacy.isOff ? 'modern' : 'transitional', because };
  }

  #disableLegacy(
    bus: Bus | undefined,
    isLegacyByType: boolean,
  ): { isOff: boolean; because: string; invalid?: string } {
    const given = this.#property('disable-legacy', ['virtio-pci', ...this.#backendClasses]);
    // [qemu v7.2 qapi/common.json OnOffAuto]: no other words here.
    if (given?.value === 'on' || given?.value === 'off') {
      return { isOff: given.value === 'on', because: given.from };
    }
    if (given !== undefined && given.value !== 'auto') {
      return { isOff: false, because: given.from, invalid: given.value };
    }
    if (this.#machine.confidential !== undefined) {
      return {
        isOff: true,
        because: `disable-legacy=on set by ${this.#machine.confidential.from}`,
      };
    }
    if (isLegacyByType) {
      return { isOff: false, because: `disable-legacy=off in ${this.#machine.machineType}` };
    }
    const isPort = bus?.kind === 'port';
    return {
      isOff: isPort,
      because: isPort
        ? 'disable-legacy=auto behind a PCI Express port is on'
        : 'disable-legacy=auto on a bus that is no PCI Express port is off',
    };
  }

  #refusal(
    bus: Bus | undefined,
    busName: string | undefined,
    flag: { isOn: boolean; invalid?: string },
    mode: { mode: DeviceFacts['mode']; hasNeither?: true; invalid?: string },
  ): Refusal | undefined {
    if (this.#transport === 'ccw' && this.#machine.platform !== 's390x') {
      return {
        message: `'${this.#driver}' is not a valid device model name`,
        source: '[qemu v7.2 softmmu/qdev-monitor.c qdev_get_device_class]',
      };
    }
    if (this.#transport === 'mmio' && !/^(arm64|x86|xen)$/.test(this.#machine.platform)) {
      return {
        message: `No 'virtio-bus' bus found for device '${this.#driver}'`,
        source: '[qemu v7.2 softmmu/qdev-monitor.c qdev_device_add_from_qdict]',
      };
    }
    if (this.#transport === 'pci' && bus === undefined) {
      return {
        message: `Bus '${busName ?? ''}' not found`,
        source: '[qemu v7.2 softmmu/qdev-monitor.c qbus_find]',
      };
    }
    if (flag.invalid !== undefined) {
      return {
        message: `Parameter 'iommu_platform' expects 'on' or 'off', found '${flag.invalid}'`,
        source: '[qemu v7.2 qapi/qapi-util.c qapi_bool_parse]',
      };
    }
    if (mode.invalid !== undefined) {
      return {
        message: `Parameter 'disable-legacy' does not accept value '${mode.invalid}'`,
        source: '[qemu v7.2 qapi/qapi-util.c qapi_enum_parse]',
      };
    }
    if (bus?.isForBridges === true) {
      return {
        message: 'PCI: Only PCI/PCIe bridges can be plugged into pxb-pcie',
        source: '[qemu v7.2 hw/pci/pci.c do_pci_register_device]',
      };
    }
    if (mode.hasNeither === true) {
      return {
        message: 'device cannot work as neither modern nor legacy mode is enabled',
        source: REALIZE,
      };
    }
    if (this.#transport === 'pci' && flag.isOn && mode.mode !== 'modern') {
      return {
        message: 'VIRTIO_F_IOMMU_PLATFORM was supported by neither legacy nor transitional device',
        source: PLUGGED,
      };
    }
    return undefined;
  }

  #queues(): number | undefined {
    const given =
      this.#property('num-queues', this.#backendClasses) ??
      this.#property('num_queues', this.#backendClasses);
    const netdev = this.#netdev();
    const value = Number(given?.value ?? (netdev && lastValue(netdev, 'queues')) ?? Number.NaN);
    return Number.isSafeInteger(value) && value > 0 ? value : undefined;
  }

  #netdev(): QemuCommand['netdevs'][number] | undefined {
    const id = lastValue(this.#device.opts, 'netdev');
    if (id === undefined) return undefined;
    return this.#command.netdevs.find((netdev) => lastValue(netdev, 'id') === id);
  }

  #worker(): DeviceFacts['worker'] {
    if (this.#model.backend !== 'qemu') return this.#model.backend;
    const opts = this.#netdev() ?? this.#device.opts;
    const type = lastValue(opts, 'type');
    if (type === 'vhost-user' || lastValue(opts, 'vhost-user') === 'on') return 'vhost-user';
    if (type === 'vhost-vdpa') return 'vhost-vdpa';
    const isVhost =
      parseOnOff(lastValue(opts, 'vhost') ?? '') === true ||
      parseOnOff(lastValue(opts, 'vhostforce') ?? '') === true;
    return isVhost ? 'vhost' : 'qemu';
  }
}
