/** The format: what both sides agree on. */
import {
  type ConfigPart,
  type ConfigRow,
  configParts,
  decodeConfig,
  encodeConfig,
} from '@pinhole/virtio';

/** A type that the specification has not given away. */
export const ECHO_ID = 63;
/** The device can turn letters into capitals. */
export const ECHO_F_LOUD = 0;

export interface EchoConfig {
  /** The longest message. */
  readonly maxLength: number;
  /** The driver writes 1: capitals. */
  readonly loud: number;
}

const LAYOUT: readonly ConfigRow<keyof EchoConfig>[] = [
  ['maxLength', 0, 4],
  ['loud', 4, 1, ECHO_F_LOUD],
];
export const ECHO_CONFIG_SIZE = 5;
export const ECHO_CONFIG_LOUD = 4;

export const encodeEchoConfig = (config: EchoConfig): Uint8Array =>
  encodeConfig(LAYOUT, config, ECHO_CONFIG_SIZE);
export const decodeEchoConfig = (bytes: Uint8Array): EchoConfig => decodeConfig(LAYOUT, bytes);
export const echoConfigParts = (features: bigint): ConfigPart[] => configParts(LAYOUT, features);
