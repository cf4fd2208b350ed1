import { describe, expect, test } from 'vitest';
import { commandLine, type LiveQemuOptions } from './options.js';

const files = { ram: '/r', firmware: '/f' };
const line = (options: LiveQemuOptions): string =>
  commandLine({ memory: 2 ** 28, ...options }, files).join(' ');

describe('the command line', () => {
  test('memory is the file, and may be extended', () => {
    expect(line({})).toContain(
      '-m size=268435456B -object memory-backend-file,id=ram0,size=268435456B,mem-path=/r,share=on',
    );
    expect(line({ maxMemory: 2 ** 32 })).toContain('-m size=268435456B,slots=8,maxmem=4294967296B');
  });

  test('properties of the machine come after ours: they win', () => {
    const machine = line({ machine: 'pseries-4.1,cap-ibs=workaround' });
    expect(machine).toMatch(/-machine pseries-4\.1,.*cap-ibs=broken,.*,cap-ibs=workaround -accel/);
  });

  test('host bridges come before the devices on them', () => {
    const bridges = [{ index: 3, ddw: false, pgsz: 0x11000, id: 'x', dma_win_size: 2n ** 31n }];
    expect(line({ phbs: bridges, args: ['-device', 'foo'] })).toMatch(
      /-device spapr-pci-host-bridge,id=x,index=3,ddw=off,pgsz=69632,dma_win_size=2147483648 -device foo$/,
    );
    expect(line({ phbs: 2 })).toMatch(
      /-device spapr-pci-host-bridge,id=phb1,index=1 -device spapr-pci-host-bridge,id=phb2,index=2$/,
    );
  });
});
