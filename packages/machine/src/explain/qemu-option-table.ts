/** What an option of QEMU has to do with DMA. */
type OptionEffect =
  /** It is read. */
  | 'read'
  /** It changes nothing about how virtio devices reach memory. */
  | 'none'
  /** It can change the machine in ways that the command line alone does not show. */
  | 'may-matter';

/** An option of QEMU. */
export interface QemuOption {
  readonly hasValue: boolean;
  readonly effect: OptionEffect;
}

const names = (text: string): string[] => text.trim().split(/\s+/);

/** Options that are read, with a value each. */
const READ = names(`
  machine M cpu accel smp global m device object drive blockdev netdev nic net chardev append kernel
  virtfs vga hda hdb hdc hdd cdrom set`);

const READ_FLAGS = names('enable-kvm nodefaults');

/** Options with a value that have no effect on DMA. */
const NONE = names(`
  numa add-fd boot mem-path k audio audiodev name uuid fda fdb mtdblock sd fsdev iscsi usbdevice
  display spice rotate g vnc acpitable smbios tpmdev bios pflash initrd compat fw_cfg serial parallel
  monitor qmp qmp-pretty mon debugcon pidfile overcommit gdb d D dfilter seed L action option-rom rtc
  icount watchdog watchdog-action echr chroot runas run-with prom-env semihosting-config sandbox trace
  plugin qtest qtest-log msg dump-vmstate tb-size soundhw xen-domid`);

const NONE_FLAGS = names(`
  help h version mem-prealloc audio-help snapshot usb nographic portrait full-screen win2k-hack
  no-fd-bootchk no-acpi no-hpet singlestep preconfig S s no-reboot no-shutdown daemonize
  only-migratable semihosting old-param no-user-config nouserconfig async-teardown enable-sync-profile
  curses no-quit realtime enable-fips xen-attach xen-domid-restrict`);

/** Options that bring in what is written elsewhere. */
const MAY_MATTER = names('readconfig incoming loadvm dtb');

const rows = (
  list: readonly string[],
  hasValue: boolean,
  effect: OptionEffect,
): [string, QemuOption][] => list.map((name) => [name, { hasValue, effect }]);

/** QEMU's options by name, without dashes. [qemu v7.2 qemu-options.hx] and a few of later versions. */
export const QEMU_OPTIONS: ReadonlyMap<string, QemuOption> = new Map([
  ...rows(READ, true, 'read'),
  ...rows(READ_FLAGS, false, 'read'),
  ...rows(NONE, true, 'none'),
  ...rows(NONE_FLAGS, false, 'none'),
  ...rows(MAY_MATTER, true, 'may-matter'),
]);
