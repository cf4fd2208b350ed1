// The same work for the virtqueue of the npm package `v86`, as it is published: a minified bundle that
// exports the emulator and not the queue. Its text gets one more export, nothing else.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { CHAINS, LAPS, LAYOUT, RING_AT, SIZE, writeSplitRing } from './chains.mjs';

const MEMORY_SIZE = 2 ** 26;
const VIRTIO_F_RING_EVENT_IDX = 29;
const require = createRequire(import.meta.url);

/** The package's version, and the work over its own memory (WebAssembly) and over a plain array. */
export async function peerV86() {
  const bundle = require.resolve('v86');
  const { version } = JSON.parse(readFileSync(join(dirname(bundle), '..', 'package.json'), 'utf8'));
  const { V86, VirtQueue } = await importWithQueue(readFileSync(bundle, 'utf8'));
  const emulator = new V86({
    wasm_path: join(dirname(bundle), 'v86.wasm'),
    memory_size: MEMORY_SIZE,
    vga_memory_size: 2 ** 21,
    autostart: false,
    disable_speaker: true,
  });
  await new Promise((resolve) => emulator.add_listener('emulator-ready', resolve));
  const { cpu } = emulator.v86;
  const plain = new Uint8Array(MEMORY_SIZE);
  return {
    version: version.replace(/\+.*/, ''),
    ownMemory: work(VirtQueue, cpu, cpu.mem8),
    plainMemory: work(VirtQueue, plainCpu(plain.buffer), plain),
    end: () => emulator.destroy(),
  };
}

async function importWithQueue(text) {
  const name = /([\w$]+)\.prototype\.pop_request=/.exec(text)?.[1];
  if (name === undefined) throw new Error('v86: no virtqueue found in the bundle');
  const folder = mkdtempSync(join(tmpdir(), 'pinhole-v86-'));
  const file = join(folder, 'v86.mjs');
  try {
    writeFileSync(file, `${text}\nexport { ${name} as VirtQueue };\n`);
    return await import(pathToFileURL(file).href);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** What its queue needs of a processor: aligned accesses to memory. */
function plainCpu(buffer) {
  const halves = new Uint16Array(buffer);
  const words = new Int32Array(buffer);
  return {
    read16: (at) => halves[at >> 1],
    read32s: (at) => words[at >> 2],
    write16(at, value) {
      halves[at >> 1] = value;
    },
    write32(at, value) {
      words[at >> 2] = value;
    },
  };
}

function work(VirtQueue, cpu, bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset + RING_AT, 0x2000);
  writeSplitRing(view, undefined);
  const virtio = {
    is_feature_negotiated: (feature) => feature === VIRTIO_F_RING_EVENT_IDX,
    raise_irq() {},
  };
  const queue = new VirtQueue(cpu, virtio, { size_supported: SIZE, notify_offset: 0 });
  queue.desc_addr = RING_AT;
  queue.avail_addr = RING_AT + LAYOUT.avail;
  queue.used_addr = RING_AT + LAYOUT.used;
  queue.enable();
  let idx = 0;
  return () => {
    let length = 0;
    for (let lap = 0; lap < LAPS; lap += 1) {
      idx = (idx + CHAINS) & 0xffff;
      view.setUint16(LAYOUT.avail + 2, idx, true);
      while (queue.has_request()) {
        const chain = queue.pop_request();
        length += chain.length_readable + chain.length_writable;
        chain.length_written = 1;
        queue.push_reply(chain);
        queue.flush_replies();
      }
    }
    if (length !== 4113 * CHAINS * LAPS) throw new Error('v86: the chains were not walked');
    return CHAINS * LAPS;
  };
}
