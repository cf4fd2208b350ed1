// The typed catalogue against the files: `meta.json`, and the traces themselves. The events are
// counted with `split` and regular expressions, not with the readers of @pinhole/trace, which are
// tested against these counts.
import { readdirSync, readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { deviceTrees, findRecording, RECORDING_NAMES, recordings } from '../src/index.js';

const text = (url: URL): string => gunzipSync(readFileSync(url)).toString('latin1');

function count(names: Iterable<string>): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}

test('every folder with a run is in the catalogue', () => {
  const folders = readdirSync(new URL('../data/', import.meta.url));
  expect(folders.filter((name) => name.startsWith('linux')).sort()).toEqual(
    [...RECORDING_NAMES].sort(),
  );
  expect(recordings.map(({ name }) => name)).toEqual(RECORDING_NAMES);
});

describe.each(recordings.map((recording) => [recording.name, recording] as const))(
  '%s',
  (_, recording) => {
    const { files, meta } = recording;
    const log = text(files.qemuTrace);

    test('meta.json says the same', () => {
      expect(JSON.parse(readFileSync(files.meta, 'utf8'))).toEqual(meta);
    });

    test('the log of QEMU has the events counted', () => {
      const lines = log.split('\n');
      expect(lines.pop()).toBe('');
      expect(count(lines.map((line) => line.slice(0, line.indexOf(' '))))).toEqual(meta.qemuEvents);
    });

    test('the trace of the guest has the events counted', () => {
      const matches = text(files.guestTrace).matchAll(/^ *\S+-\d+ +\[\d+\] \S+ +[\d.]+: (\w+):/gm);
      expect(count(Array.from(matches, (match) => match[1] as string))).toEqual(meta.guestEvents);
    });

    test('the log of QEMU has the boots counted', () => {
      // Each boot is a QEMU of its own: its devices live at other addresses.
      const devices = new Set(Array.from(log.matchAll(/ vdev (0x\w+)/g), (match) => match[1]));
      const perBoot = meta.qemuCommand.match(/-device virtio-/g)?.length ?? 0;
      expect(devices.size).toBe(perBoot * recording.boots);
    });

    test('the console is of this kernel and this command line', () => {
      const console = text(files.console);
      expect(console).toContain(`Linux version ${meta.linux.split(' ')[0]}`);
      expect(console).toContain(`ommand line: ${meta.kernelCommandLine}`);
      expect(console).toContain('=== DONE');
    });
  },
);

test('a recording is found by its name', () => {
  expect(findRecording('linux6.12-pinhole').meta.machine).toBe('pseries');
  expect(findRecording('no such run')).toBeUndefined();
});

test.each(deviceTrees)('$name is a device tree blob', ({ url, isGzipped }) => {
  const bytes = readFileSync(url);
  const blob = isGzipped ? gunzipSync(bytes) : bytes;
  expect(blob.readUInt32BE(0)).toBe(0xd00dfeed);
  expect(blob.readUInt32BE(4)).toBe(blob.length);
});
