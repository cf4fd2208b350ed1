/** Where a network device's frames go to, and come from. Ethernet frames without checksum. */
export interface NetBackend {
  /** The device sends a frame; the bytes are good until the call returns. */
  send(frame: Uint8Array): void;
  /** Registers who takes frames that come in, in place of whoever did before. */
  onReceive(receive: (frame: Uint8Array) => void): void;
}
