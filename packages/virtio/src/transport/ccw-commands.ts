import type { Gpa } from '@pinhole/base';

/** Channel commands. [VIRTIO v1.2 §4.3.1.1 "Channel Commands for Virtio"] */
export const Ccw = {
  SET_VQ: 0x13,
  VDEV_RESET: 0x33,
  SET_IND: 0x43,
  SET_CONF_IND: 0x53,
  SET_IND_ADAPTER: 0x73,
  READ_FEAT: 0x12,
  WRITE_FEAT: 0x11,
  READ_CONF: 0x22,
  WRITE_CONF: 0x21,
  WRITE_STATUS: 0x31,
  READ_VQ_CONF: 0x32,
  READ_STATUS: 0x72,
  SET_VIRTIO_REV: 0x83,
} as const;

/** The control unit type of every virtio-ccw device. [VIRTIO v1.2 §4.3.1 "Basic Concepts"] */
export const CCW_CU_TYPE = 0x3832;
/** READ_STATUS is there from this revision on. [VIRTIO v1.2 §4.3.2.1 "Setting the Virtio Revision"] */
export const CCW_REV_MAX = 2;
/** Classic indicators are one 64-bit value: more queues cannot be told apart. */
export const CCW_MAX_QUEUES = 64;
/** Bytes of configuration that a driver makes room for. [linux v6.1 drivers/s390/virtio/virtio_ccw.c VIRTIO_CCW_CONFIG_SIZE] */
export const CCW_CONFIG_SIZE = 256;

/** Bytes of the communication blocks. [VIRTIO v1.2 §4.3.2 "Device Initialization"] */
export const CcwSize = {
  REV_INFO: 4,
  VQ_CONFIG: 4,
  VQ_INFO: 32,
  FEATURES: 5,
  INDICATORS: 8,
  THININT_AREA: 25,
  STATUS: 1,
} as const;

/** A channel command word: what to do, with which bytes of guest memory. */
export interface ChannelCommand {
  readonly code: number;
  /** Where the payload is: below 2 GiB; 0: there is none. */
  readonly address: Gpa;
  /** Bytes of the payload. */
  readonly count: number;
  /** The SLI flag: a payload that is too long is no error. Default false. */
  readonly suppressesLength?: boolean;
}

/**
 * How a command ended. `command-reject` is a unit check: the device does not do that, or not now.
 * `program-check` is every other: a length or an address that cannot be.
 */
export type ChannelStatus =
  | {
      readonly ok: true;
      /** Bytes of the count that were not used. */
      readonly residual: number;
    }
  | { readonly ok: false; readonly reason: 'command-reject' | 'program-check' };

/** A virtio device behind a subchannel, at the level of single channel commands. */
export interface ChannelDevice {
  /** SENSE ID: control unit type and model, which is the type of the virtio device. */
  readonly senseId: { readonly cuType: number; readonly cuModel: number };
  /** START SUBCHANNEL with a program of one command, and its end. */
  start(command: ChannelCommand): ChannelStatus;
  /**
   * Diagnose 0x500, subcode 3: a kick. `data` is the queue's number, or with NOTIFICATION_DATA all of
   * the value. Returns the host's cookie, or an error below 0. [VIRTIO v1.2 §4.3.3.2 "Guest->Host Notification"]
   */
  notify(data: number, cookie: number): number;
}
