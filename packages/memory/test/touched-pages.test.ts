import { describe, expect, test } from 'vitest';
import { createGuestMemory, HypervisorView, PageOwnership } from '../src/index.js';

const PAGE = 4096;

describe('which private pages the hypervisor touched', () => {
  function view(): { view: HypervisorView; ownership: PageOwnership } {
    const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 32 }] });
    const ownership = new PageOwnership({ pageSize: PAGE });
    return { view: new HypervisorView(memory, ownership), ownership };
  }

  test('by reading and by writing, each once, by its first byte; shared ones are not among them', () => {
    const { view: outside, ownership } = view();
    ownership.share(2 * PAGE, PAGE);
    outside.read(2 * PAGE - 1, new Uint8Array(PAGE + 2));
    outside.write(3 * PAGE + 8, new Uint8Array(4));
    outside.read(2 * PAGE, new Uint8Array(PAGE));
    expect([...outside.privatePagesTouched]).toEqual([PAGE, 3 * PAGE]);
  });

  test('a page that was shared in time was not touched while private', () => {
    const { view: outside, ownership } = view();
    ownership.share(0, PAGE);
    outside.read(0, new Uint8Array(8));
    ownership.unshare(0, PAGE);
    expect(outside.privatePagesTouched.size).toBe(0);
    outside.read(0, new Uint8Array(8));
    expect(outside.privatePagesTouched.size).toBe(1);
  });

  test('a device that walks all of memory fills no more than is kept', () => {
    const { view: outside } = view();
    const byte = new Uint8Array(1);
    for (let page = 0; page < 70_000; page += 1) outside.read(page * PAGE, byte);
    expect(outside.privatePagesTouched.size).toBe(65_536);
    expect(outside.ciphertextBytesRead).toBe(70_000);
  });
});
