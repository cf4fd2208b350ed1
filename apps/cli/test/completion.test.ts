// What a user gets for a Tab: asked of the program. Real shells: slow/completion-shells.test.ts.

import { architectures, parseScenario } from '@pinhole/machine';
import { eventCatalogue } from '@pinhole/trace';
import type { Command } from 'commander';
import { describe, expect, test } from 'vitest';
import { complete, valueName } from '../src/completion.js';
import { isKnownValue } from '../src/completion-values.js';
import { createProgram } from '../src/program.js';
import { pinhole } from './pinhole.js';

const program = createProgram();
const valuesOf = async (...words: string[]): Promise<string[]> =>
  (await complete(program, words)).suggestions.map(({ value }) => value);

const all = (command: Command): Command[] => [command, ...command.commands.flatMap(all)];

describe('what fits', () => {
  test('commands, and those below them', async () => {
    expect(await valuesOf('r')).toEqual(expect.arrayContaining(['run', 'replay']));
    expect((await valuesOf('r')).every((name) => name.startsWith('r'))).toBe(true);
    expect(await valuesOf('conform', '')).toEqual(['hcalls', 'virtio', 'help']);
    expect(await valuesOf('help', 'conf')).toEqual(['conform', 'config']);
    expect(await valuesOf('')).not.toContain('complete');
  });

  test('scenarios; a file where none fits', async () => {
    expect(await valuesOf('run', '2')).toEqual(['2-pinhole']);
    const other = await complete(program, ['run', './my']);
    expect(other).toEqual({ suggestions: [], orFiles: true });
    expect(await valuesOf('run', '--seed', '7', '9')).toEqual(['9-offset-flag']);
    expect(await valuesOf('run', '--', '-')).toEqual([]);
    expect(await valuesOf('run', '1-bypass', '')).toEqual([]);
  });

  test('options of the command at hand', async () => {
    expect(await valuesOf('run', '--tr')).toEqual(['--trace', '--trace-file', '--trace-format']);
    expect(await valuesOf('list', '--tr')).toEqual([]);
    expect(await valuesOf('conform', 'virtio', '--dev')).toEqual(['--device']);
  });

  test('choices, after a space and after =', async () => {
    expect(await valuesOf('run', '1-bypass', '--format', '')).toEqual(['table', 'json']);
    expect(await valuesOf('run', '--format=j')).toEqual(['json']);
    expect(await valuesOf('completion', 'p')).toEqual(['powershell']);
  });

  test('keys of a scenario and their values', async () => {
    expect(await valuesOf('run', '--set', 'machine.a')).toEqual(['machine.arch=']);
    const ids = architectures.map(({ id }) => id);
    expect(await valuesOf('run', '--set', 'machine.arch=')).toEqual(
      ids.map((id) => `machine.arch=${id}`),
    );
    expect(await valuesOf('run', '--set=machine.arch=')).toEqual(ids);
    const packed = ['devices.0.packed=true', 'devices.0.packed=false'];
    expect(await valuesOf('run', '--set', 'devices.0.packed=')).toEqual(packed);
    expect(await valuesOf('run', '--set', 'devices[0].packed=t')).toEqual([
      'devices[0].packed=true',
    ]);
    expect(await valuesOf('run', '--set', 'no.such=')).toEqual([]);
  });

  test('every key that is offered can be set', async () => {
    const keys = await valuesOf('run', '--set', '');
    expect(keys.length).toBeGreaterThan(30);
    // A value that fits none: what is complained about is the value, not the key.
    const text = 'machine: { arch: pseries }\ndevices: [{ type: virtio-blk }]\nworkload: []\n';
    for (const key of keys) {
      expect(() => parseScenario(text, { set: [`${key}[[]]`] }), key).not.toThrow(
        /unknown one|nothing here that can be set/,
      );
    }
  });

  test('trace events, the last of a list', async () => {
    expect(await valuesOf('run', '--trace', '')).toEqual([
      ...eventCatalogue.map(({ name }) => name),
      'help',
    ]);
    expect(await valuesOf('run', '--trace', 'blk_*,spapr_iommu_ddw_q')).toEqual([
      'blk_*,spapr_iommu_ddw_query',
    ]);
  });

  test('kernels, accidents, devices', async () => {
    expect(await valuesOf('explain', '--kernel', 'linux-7')).toEqual(['linux-7.2']);
    expect(await valuesOf('conform', 'hcalls', '--include', 'rem')).toEqual(['remove-vio-window']);
    expect(await valuesOf('conform', 'virtio', '--device', 'rng-packed')).not.toEqual([]);
  });

  test('machines, policies, rings and cells of the matrix', async () => {
    expect(await valuesOf('matrix', '--arch', 'pseries,pseries-d')).toEqual([
      'pseries,pseries-ddw',
      'pseries,pseries-ddw-lost',
    ]);
    expect(await valuesOf('matrix', '--policy', 'rfc-2018-')).toEqual(['rfc-2018-direct-ops']);
    expect(await valuesOf('matrix', '--ring=p')).toEqual(['packed']);
    const [cell = ''] = await valuesOf('matrix', '--cell', 'pseries');
    expect(pinhole(['matrix', '--cell', cell, '--format', 'json']).stdout).toContain(cell);
  });

  test('costs and columns', async () => {
    expect(await valuesOf('run', '--costs=power9-')).toEqual(['power9-kvm', 'power9-tcg']);
    expect(await valuesOf('sweep', '--metric', 'hcallsP')).toEqual(['hcallsPerRequest']);
    expect(await valuesOf('sweep', '2-pinhole', '--set', 'machine.mem')).toEqual([
      'machine.memory=',
    ]);
  });

  test('hostile words', async () => {
    for (const words of [[], [''], ['-'], ['--'], ['=', '=='], ['run', '--set', '='], ['\0']]) {
      await expect(complete(program, words)).resolves.toBeDefined();
    }
  });
});

test('every value of the command line has a source, or is named as one that nobody can guess', () => {
  const unknown = all(program).flatMap((command) =>
    [...command.options, ...command.registeredArguments]
      .filter((of) => of.argChoices === undefined && command.name() !== 'complete')
      .map((of) => ({ name: valueName(of), option: 'long' in of ? of.long : undefined }))
      .filter(({ name, option }) => name !== '' && !isKnownValue(name, option))
      .map(({ name, option = '' }) => `${command.name()}: ${option} <${name}>`),
  );
  expect(unknown, 'add it to completion-values.ts').toEqual([]);
});

test('a shell that does not exist', () => {
  const { code, stderr } = pinhole(['completion', 'tcsh']);
  expect(code).toBe(2);
  expect(stderr).toContain('bash, zsh, fish, powershell');
});

test('each shell has a script that asks the program', () => {
  for (const shell of ['bash', 'zsh', 'fish', 'powershell']) {
    const { code, stdout } = pinhole(['completion', shell]);
    expect(code, shell).toBe(0);
    expect(stdout, shell).toMatch(/pinhole complete '?--/);
  }
});
