/** `pinhole run` of a disk that vhost serves. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { pinhole, scenario, scratchFolder } from '../pinhole.js';

const folder = scratchFolder();
const file = join(folder, 'vhost.yaml');
writeFileSync(
  file,
  scenario((text) => text.replace('true }', 'true, vhost: on }')),
);

test('it says what the IOTLB had to ask for', () => {
  const { code, stdout } = pinhole(['run', file]);
  expect(code).toBe(0);
  expect(stdout).toContain(
    'vhost         4.00 misses and 4.00 invalidations a request; 17 updates, 0 evictions, 0 stalls in all\n',
  );
  expect(stdout).toContain('4 IOTLB misses and 4 invalidations a request');
});

test('without the flag there is none', () => {
  const { stdout } = pinhole(['run', file, '--set', 'devices[0].iommuPlatform=false']);
  expect(stdout).toContain('vhost         no IOTLB\n');
});

test('a trace shows the messages by name', () => {
  const { stderr } = pinhole(['run', file, '--trace', 'vhost_*']);
  const lines = stderr.split('\n').filter((line) => line !== '');
  expect(lines.slice(0, 3)).toEqual([
    'vhost_iotlb_miss vd0 step 1',
    expect.stringMatching(/^vhost_iotlb_update dev=vd0 iova=0x\w+ gpa=0x\w+ size=0x1000 perm=3$/),
    'vhost_iotlb_miss vd0 step 2',
  ]);
  expect(lines.filter((line) => line.startsWith('vhost_iotlb_invalidate'))).toHaveLength(16);
});
