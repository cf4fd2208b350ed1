/** An architecture that no package knows: docs/ADDING-AN-ARCH.md, followed to the letter. */
import { readFileSync } from 'node:fs';
import {
  architectures,
  createSeededDisk,
  MachineError,
  parseScenario,
  runScenario,
} from '@pinhole/machine';
import { checkArchitecture, RULES } from '@pinhole/machine/testing';
import { describe, expect, test } from 'vitest';
import { banked } from './toy-arch/banked.js';

const disk = createSeededDisk(1, 2 ** 20);
const known = { architectures: [...architectures, banked] };

function run(set: readonly string[] = []): ReturnType<typeof runScenario> {
  const text = `
machine: { arch: banked, memory: 256MiB, settings: { banks: 4 } }
guest: { kernel: linux-6.12 }
devices: [{ type: virtio-blk, iommuPlatform: true }]
workload:
  - { write: { offset: 0, length: 256KiB, block: 64KiB } }
  - { read: { offset: 0, length: 512KiB, block: 64KiB } }
`;
  return runScenario(parseScenario(text, { ...known, set }), { ...known, disk });
}

describe('the published kit', () => {
  test.each(checkArchitecture(banked).map((check) => [check.name, check]))('%s', (_name, check) => {
    expect(check.ok, check.detail).toBe(true);
  });
});

test('scenarios name it, and the report tells of it', () => {
  const report = run();
  expect(report.verdict.outcome).toBe('works');
  expect(report.decision).toMatchObject({
    dmaOps: 'dma-banked',
    device: 'iommu_platform=on: bus of 4 banks',
  });
});

test('the 2018 hook gives a device without the flag bus addresses: it looks in the wrong bank', () => {
  const report = run(['devices[0].iommuPlatform=false', 'guest.policy=rfc-2018']);
  expect(report.verdict.outcome).toBe('fails');
  expect(report.warnings[0]).toMatch(/bus addresses differ from physical ones/);
  expect(run(['devices[0].iommuPlatform=false']).verdict.outcome).toBe('works');
});

test('its own setting is checked, and an error says where', () => {
  for (const bad of ['3', '"two"', 'true']) {
    expect(() => run([`machine.settings.banks=${bad}`])).toThrow(MachineError);
    expect(() => run([`machine.settings.banks=${bad}`])).toThrow(
      /^machine\.settings\.banks: expected 2, 4, 8 or 16/,
    );
  }
});

test('who does not bring it along does not have it', () => {
  expect(() => parseScenario('machine: { arch: banked }')).toThrow(MachineError);
});

describe('docs/ADDING-AN-ARCH.md', () => {
  const doc = readFileSync(new URL('../../../../docs/ADDING-AN-ARCH.md', import.meta.url), 'utf8');
  const blocks = [...doc.matchAll(/^`([\w-]+\.ts)`:\n\n```ts\n(.*?)```$/gms)];

  test('shows the toy, file by file', () => {
    expect(blocks.map(([, file]) => file)).toEqual(['banked-bus.ts', 'banked-dma.ts', 'banked.ts']);
    for (const [, file, code] of blocks) {
      expect(code).toBe(readFileSync(new URL(`toy-arch/${file}`, import.meta.url), 'utf8'));
    }
  });

  test('and every rule of the kit', () => {
    for (const [rule, sentence] of Object.entries(RULES)) {
      expect(doc).toContain(`| \`${rule}\` | ${sentence} |`);
    }
  });
});
