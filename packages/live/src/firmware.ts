import {
  addi,
  assemble,
  b,
  beq,
  bne,
  cmpdi,
  ld,
  ldbrx,
  li,
  lwsync,
  mfmsr,
  mtmsrd,
  or,
  sc1,
  sldi,
  std,
  stdbrx,
} from './assembler.js';
import {
  DEVICE_TREE,
  DOORBELL,
  ENTRY_POINT,
  MAILBOX,
  READY,
  RECORD_BYTES,
  RECORD_REGISTERS,
  RECORDS,
  STARTS,
} from './layout.js';

// QEMU's hypercalls see r3 to r12 and nothing else. [qemu v7.2 hw/ppc/spapr_hcall.c spapr_hypercall]
const MAILBOX_AT = 31;
const RECORD_AT = 30;
const LEFT = 29;
/** FIRST_OFFSET + i holds 8 * i: byte-reversing loads and stores take their offset from a register. */
const FIRST_OFFSET = 16;
const registers = Array.from({ length: RECORD_REGISTERS }, (_, i) => i);

/**
 * The firmware of a live machine, as QEMU's `-bios` loads it at address 0: waits for the doorbell,
 * carries out the hypercalls of the records, clears the doorbell.
 *
 * The CPU enters in 32-bit real mode, big-endian, interrupts off, with the address of the device
 * tree in r3. [qemu v7.2 hw/ppc/spapr.c spapr_machine_reset] Memory keeps its contents in a reset:
 * a doorbell that was rung before must not be answered after it.
 */
export function mailboxFirmware(): Uint8Array {
  const code = assemble([
    // MSR[SF] = 1: 64-bit mode.
    mfmsr(5),
    li(6, 1),
    sldi(6, 6, 63),
    or(5, 5, 6),
    mtmsrd(5),
    li(MAILBOX_AT, MAILBOX),
    ...registers.map((i) => li(FIRST_OFFSET + i, 8 * i)),
    // One more start: whoever finds the doorbell cleared from here on knows why.
    std(3, DEVICE_TREE, MAILBOX_AT),
    ld(4, STARTS, MAILBOX_AT),
    addi(4, 4, 1),
    std(4, STARTS, MAILBOX_AT),
    lwsync(),
    li(0, 0),
    std(0, DOORBELL, MAILBOX_AT),
    // Ready: a doorbell that is rung from here on is heard.
    lwsync(),
    std(4, READY, MAILBOX_AT),
    { label: 'wait' },
    ld(LEFT, DOORBELL, MAILBOX_AT),
    cmpdi(LEFT, 0),
    beq('wait'),
    // The records were written before the doorbell.
    lwsync(),
    li(RECORD_AT, RECORDS),
    { label: 'record' },
    ...registers.map((i) => ldbrx(3 + i, RECORD_AT, FIRST_OFFSET + i)),
    sc1(),
    ...registers.map((i) => stdbrx(3 + i, RECORD_AT, FIRST_OFFSET + i)),
    addi(RECORD_AT, RECORD_AT, RECORD_BYTES),
    addi(LEFT, LEFT, -1),
    cmpdi(LEFT, 0),
    bne('record'),
    // The answers are written before the doorbell is cleared.
    lwsync(),
    std(LEFT, DOORBELL, MAILBOX_AT),
    b('wait'),
  ]);
  const image = new Uint8Array(ENTRY_POINT + code.length * 4);
  const view = new DataView(image.buffer);
  code.forEach((instruction, i) => {
    view.setUint32(ENTRY_POINT + i * 4, instruction);
  });
  return image;
}
