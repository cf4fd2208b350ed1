/** The device: gives back what it is sent. */
import {
  ElementBytes,
  type PluggedDevice,
  plugVirtioDevice,
  type VirtioDeviceSettings,
} from '@pinhole/qemu';
import type { DeviceQueue, VirtioDeviceCore } from '@pinhole/virtio';
import {
  decodeEchoConfig,
  ECHO_CONFIG_LOUD,
  ECHO_F_LOUD,
  ECHO_ID,
  encodeEchoConfig,
} from './echo-format.js';

/** Options of `VirtioEcho`. */
export interface VirtioEchoOptions extends VirtioDeviceSettings {
  readonly maxLength: number;
}

export class VirtioEcho {
  readonly core: VirtioDeviceCore;
  readonly mapper: PluggedDevice['mapper'];
  readonly #bytes: ElementBytes;
  readonly #maxLength: number;
  readonly #config: Uint8Array;

  constructor(options: VirtioEchoOptions) {
    this.#bytes = new ElementBytes(options.memory);
    this.#maxLength = options.maxLength;
    this.#config = encodeEchoConfig({ maxLength: options.maxLength, loud: 0 });
    const { core, mapper } = plugVirtioDevice(options, {
      deviceId: ECHO_ID,
      defaultId: 'echo0',
      features: [ECHO_F_LOUD],
      config: this.#config,
      queues: [{ maxSize: 16, handleOutput: (queue) => this.#handleOutput(queue) }],
      usesEventFds: false,
      hooks: {
        setConfig: (config) => {
          this.#config[ECHO_CONFIG_LOUD] = decodeEchoConfig(config).loud;
        },
        reset: () => {
          this.#config[ECHO_CONFIG_LOUD] = 0;
        },
      },
    });
    this.core = core;
    this.mapper = mapper;
  }

  #handleOutput(queue: DeviceQueue): void {
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      // The driver may offer anything: a message that is too long breaks its device.
      if (element.outBytes > this.#maxLength) {
        this.core.fail('virtio-echo message too long');
        queue.detach(element);
        return;
      }
      const message = new Uint8Array(element.outBytes);
      this.#bytes.readOut(element, 0, message);
      const answer = this.#config[ECHO_CONFIG_LOUD] === 0 ? message : message.map(capital);
      queue.push(element, this.#bytes.writeIn(element, 0, answer));
      this.core.notifyDriver(0);
    }
  }
}

const capital = (byte: number): number => (byte >= 0x61 && byte <= 0x7a ? byte - 32 : byte);
