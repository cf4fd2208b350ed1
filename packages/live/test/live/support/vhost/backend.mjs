// The model's vhost data plane as the back-end of a real QEMU's vhost-user-blk.
//   node backend.mjs SOCKET DISK QUEUES    (QEMU connects to SOCKET; DISK is a raw image)
//
// Standard output has one line for each IOTLB message, in the order in which they were sent and
// received; lines with # are about the rest. A line on standard input is answered with that line behind #
// when there is nothing left to do. Ends with QEMU's connection, or with standard input.
//
// QEMU enables the queues of a device before it pushes the pages of their used rings, and a data plane
// that is quick asks for them first. Here the device starts when a line of standard input waits, by when
// QEMU is through: what is compared must not be a race.
import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { ByteMemory, createSystemMemorySpace } from '@pinhole/memory';
import { VirtioBlk } from '@pinhole/qemu';
import { acceptOn, listenAt, waitFor } from './libc.mjs';
import {
  describe,
  iotlbMessage,
  memoryTable,
  PROTOCOL_FEATURES,
  Request,
  readMessage,
  reply,
  sendMiss,
  u64,
  VHOST_USER_F_PROTOCOL_FEATURES,
  vringAddr,
  vringFd,
  vringState,
} from './protocol.mjs';

const [, , socketPath, diskPath, queueCount] = process.argv;
const QUEUES = Number(queueCount);
/** vhost-user-blk's default. [qemu v7.2 hw/block/vhost-user-blk.c] */
const QUEUE_SIZE = 128;
/** How long QEMU may take to say whether it has a translation. */
const ANSWER_MS = 10_000;
const ACCESS_PLATFORM = 1n << 33n;
/** ACKNOWLEDGE, DRIVER, FEATURES_OK; DRIVER_OK. */
const NEGOTIATED = 0x0b;
const DRIVER_OK = 0x04;
/** Where a new queue starts: split; packed, with its wrap counters. */
const FRESH = [0, 0x8000, 0x8000_8000];
const STDIN = 0;

const log = (line) => writeSync(1, `${line}\n`);

/** Guest memory as QEMU shares it: files, read and written in place. */
class SharedMemory extends ByteMemory {
  constructor(table, fds) {
    super();
    this.table = table.map((region, i) => ({ ...region, fd: fds[i] }));
    this.regions = table.map(({ gpa, size }) => ({ base: gpa, size }));
  }

  isBacked(gpa, length) {
    return this.#find(gpa, length) !== undefined;
  }

  read(gpa, into) {
    const { fd, offset, gpa: base } = this.#at(gpa, into.length);
    readSync(fd, into, 0, into.length, offset + gpa - base);
  }

  write(gpa, from) {
    const { fd, offset, gpa: base } = this.#at(gpa, from.length);
    writeSync(fd, from, 0, from.length, offset + gpa - base);
  }

  /** From an address in QEMU. */
  toGpa(address) {
    const at = this.table.find(
      ({ uaddr, size }) => address >= uaddr && address < uaddr + BigInt(size),
    );
    if (at === undefined) throw new Error(`QEMU's address 0x${address.toString(16)} is no memory`);
    return at.gpa + Number(address - at.uaddr);
  }

  close() {
    for (const { fd } of this.table) closeSync(fd);
  }

  #find(at, length) {
    return this.table.find(({ gpa, size }) => at >= gpa && at + length <= gpa + size);
  }

  #at(gpa, length) {
    const region = this.#find(gpa, length);
    if (region === undefined) throw new Error(`no ${length} bytes at 0x${gpa.toString(16)}`);
    return region;
  }
}

const disk = openSync(diskPath, 'r+');
const diskBackend = {
  size: fstatSync(disk).size,
  read: (offset, into) => readSync(disk, into, 0, into.length, offset),
  write: (offset, from) => writeSync(disk, from, 0, from.length, offset),
  flush: () => {},
};

const newQueue = () => ({
  size: QUEUE_SIZE,
  base: 0,
  rings: undefined,
  kick: -1,
  call: -1,
  on: false,
});
const queues = Array.from({ length: QUEUES }, newQueue);
let memory = new SharedMemory([], []);
let features = 0n;
let requests = -1;
/** The device while it runs. */
let blk;
/** Answers that QEMU owes. */
let owed = 0;
/** Queues that QEMU wants to stop while a request waits for a translation. */
const deferred = [];
/** Translations that come before the device runs: QEMU pushes the used rings. */
const early = [];
/** Lines of standard input that were not answered yet. */
const waiting = [];

function createDevice(iommuPlatform) {
  return new VirtioBlk({
    backend: diskBackend,
    memory,
    systemMemory: createSystemMemorySpace(memory),
    iommuPlatform,
    packed: true,
    queueSize: QUEUE_SIZE,
    numQueues: QUEUES,
    vhost: { frontEnd: askFrontEnd },
  });
}
/** What is offered, and the configuration. */
const template = createDevice(true).core;

// Waits for QEMU's answer, and goes on to serve what QEMU wants meanwhile: it would wait for us, else.
// Who stops a queue ends the wait first: there is no translation then.
function askFrontEnd(message) {
  if (deferred.length > 0) return;
  log(describe(message));
  sendMiss(requests, message);
  owed += 1;
  while (owed > 0 && deferred.length === 0) {
    const ready = waitFor([main, requests], ANSWER_MS);
    if (ready.length === 0) throw new Error(`no answer to: ${describe(message)}`);
    if (ready.includes(main)) takeMessage(true);
    else takeAnswer();
  }
}

function takeAnswer() {
  const answer = readMessage(requests);
  if (answer === undefined) finish('QEMU closed the channel for requests');
  owed -= 1;
}

function finish(why) {
  log(`# end: ${why}`);
  process.exit(0);
}

function takeMessage(isWaiting = false) {
  const message = readMessage(main);
  if (message === undefined) finish('QEMU closed the connection');
  if (isWaiting && message.request === Request.GET_VRING_BASE) deferred.push(message);
  else handle(message);
}

function handle(message) {
  const answer = answerTo(message);
  if (answer !== undefined) reply(main, message, answer);
  else if (message.needsReply) reply(main, message, u64(0n));
  for (const fd of message.fds) closeSync(fd);
}

/** Payload of the reply, if there is one. Descriptors that are kept are taken out of the message. */
function answerTo({ request, payload, fds }) {
  switch (request) {
    case Request.GET_FEATURES:
      return u64(template.offeredFeatures | VHOST_USER_F_PROTOCOL_FEATURES);
    case Request.SET_FEATURES:
      features = payload.readBigUInt64LE(0);
      log(`# features 0x${features.toString(16)}`);
      return undefined;
    case Request.GET_PROTOCOL_FEATURES:
      return u64(PROTOCOL_FEATURES);
    case Request.GET_QUEUE_NUM:
      return u64(BigInt(QUEUES));
    case Request.GET_CONFIG: {
      const [offset, size] = vringState(payload);
      const config = new Uint8Array(Math.max(offset + size, template.configSize));
      template.readConfig(0, config.subarray(0, template.configSize));
      return Buffer.concat([payload.subarray(0, 12), config.subarray(offset, offset + size)]);
    }
    case Request.SET_MEM_TABLE:
      memory.close();
      memory = new SharedMemory(memoryTable(payload), fds.splice(0));
      return undefined;
    case Request.SET_SLAVE_REQ_FD:
      requests = fds.shift();
      return undefined;
    case Request.IOTLB_MSG: {
      const iotlb = iotlbMessage(payload, (address) => memory.toGpa(address));
      log(describe(iotlb));
      early.push(iotlb);
      if (blk !== undefined) deliver();
      return undefined;
    }
    case Request.SET_VRING_NUM:
    case Request.SET_VRING_BASE: {
      const [index, value] = vringState(payload);
      queues[index][request === Request.SET_VRING_NUM ? 'size' : 'base'] = value;
      return undefined;
    }
    case Request.SET_VRING_ADDR: {
      const { index, ...rings } = vringAddr(payload);
      queues[index].rings = rings;
      return undefined;
    }
    case Request.SET_VRING_KICK:
    case Request.SET_VRING_CALL: {
      const [index, hasFd] = vringFd(payload);
      const which = request === Request.SET_VRING_KICK ? 'kick' : 'call';
      if (queues[index][which] >= 0) closeSync(queues[index][which]);
      queues[index][which] = hasFd ? fds.shift() : -1;
      return undefined;
    }
    case Request.SET_VRING_ENABLE: {
      const [index, isOn] = vringState(payload);
      queues[index].on = isOn !== 0;
      return undefined;
    }
    case Request.GET_VRING_BASE:
      return stopQueue(payload.readUInt32LE(0));
    default:
      return undefined;
  }
}

function deliver() {
  const { backend } = blk.vhost;
  for (const message of early.splice(0)) {
    if (backend.receive(message) !== 0) throw new Error(`refused: ${describe(message)}`);
  }
}

const mayStart = () => {
  const used = queues.filter(({ rings, kick }) => rings !== undefined && kick >= 0);
  return blk === undefined && used.length > 0 && used.every(({ on }) => on);
};

function start() {
  const hasIotlb = (features & ACCESS_PLATFORM) !== 0n;
  blk = createDevice(hasIotlb);
  const { core } = blk;
  core.setFeatures(features);
  core.setStatus(NEGOTIATED);
  // Without an IOTLB these are addresses in QEMU.
  const place = (address) => (hasIotlb ? address : BigInt(memory.toGpa(address)));
  for (const [index, { size, base, rings }] of queues.entries()) {
    if (rings === undefined) continue;
    const { desc, avail, used } = rings;
    core.setQueueSize(index, size);
    core.setQueueRings(index, { desc: place(desc), avail: place(avail), used: place(used) });
    if (!FRESH.includes(base))
      throw new Error(`queue ${index} goes on at ${base}: expected a new one`);
  }
  core.onInterrupt((_cause, index) => {
    const call = queues[index]?.call ?? -1;
    if (call >= 0) writeSync(call, u64(1n));
  });
  if (blk.vhost.backend !== undefined) deliver();
  // The kick that QEMU makes at the start: the model's device looks at its queues itself then.
  const kicked = queues.filter(({ kick }) => kick >= 0 && waitFor([kick], 0).length > 0);
  for (const { kick } of kicked) readSync(kick, Buffer.alloc(8));
  log(`# start, ${kicked.length} of ${queues.length} queues kicked`);
  core.setStatus(NEGOTIATED | DRIVER_OK);
}

function stopQueue(index) {
  const queue = queues[index];
  const base = blk?.core.queues[index]?.lastAvailIdx ?? queue.base;
  for (const fd of [queue.kick, queue.call]) if (fd >= 0) closeSync(fd);
  queues[index] = newQueue();
  if (blk !== undefined && queues.every(({ kick }) => kick < 0)) {
    log(`# stop, ${blk.vhost.counters.stalls} stalls`);
    blk.core.setStatus(0);
    blk = undefined;
  }
  const state = Buffer.alloc(8);
  state.writeUInt32LE(index, 0);
  state.writeUInt32LE(base, 4);
  return state;
}

function takeControl() {
  const bytes = Buffer.alloc(256);
  const length = readSync(STDIN, bytes);
  if (length === 0) finish('nobody is left to serve');
  waiting.push(...bytes.toString('utf8', 0, length).trim().split('\n'));
}

/** One thing to do, if there is any: QEMU first, then kicks, then who waits for all to be done. */
function work() {
  const message = deferred.shift();
  if (message !== undefined) return handle(message);
  const kicks = blk === undefined ? [] : queues.filter(({ kick }) => kick >= 0);
  const fds = [main, ...(owed > 0 ? [requests] : []), ...kicks.map(({ kick }) => kick), STDIN];
  const [first] = waitFor(fds, waiting.length > 0 ? 0 : -1);
  if (first === undefined) {
    if (mayStart()) start();
    else log(`# ${waiting.shift()}`);
    return;
  }
  if (first === main) return takeMessage();
  if (first === requests) return takeAnswer();
  if (first === STDIN) return takeControl();
  readSync(first, Buffer.alloc(8));
  blk.core.notifyQueue(queues.findIndex(({ kick }) => kick === first));
}

const listener = listenAt(socketPath);
log('# ready');
const [first] = waitFor([listener, STDIN], -1);
if (first === STDIN) finish('nobody came');
const main = acceptOn(listener);
for (;;) work();
