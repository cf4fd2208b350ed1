// Messages of vhost-user. [qemu v7.2 docs/interop/vhost-user.rst]
import { receive, send } from './libc.mjs';

/** Requests of the front-end, which is QEMU. */
export const Request = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  SET_MEM_TABLE: 5,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  SET_SLAVE_REQ_FD: 21,
  IOTLB_MSG: 22,
  GET_CONFIG: 24,
  SET_CONFIG: 25,
};
/** The only one of the back-end that is used: VHOST_USER_SLAVE_IOTLB_MSG. */
const SLAVE_IOTLB_MSG = 1;

/** Bit 30 of the features: there are protocol features. */
export const VHOST_USER_F_PROTOCOL_FEATURES = 1n << 30n;
/** MQ, REPLY_ACK, SLAVE_REQ, CONFIG. */
export const PROTOCOL_FEATURES = (1n << 0n) | (1n << 3n) | (1n << 5n) | (1n << 9n);

const HEADER = 12;
const VERSION = 1;
const REPLY = 4;
const NEED_REPLY = 8;
/** Of a vring's descriptor: there is none. */
const VRING_NOFD = 0x100;
/** `sizeof(struct vhost_iotlb_msg)`: iova, size, uaddr, perm, type. */
const IOTLB_MSG_SIZE = 32;
/** Types of IOTLB messages. [linux v6.1.176 include/uapi/linux/vhost_types.h] */
const IOTLB_TYPES = ['', 'MISS', 'UPDATE', 'INVALIDATE', 'ACCESS_FAIL'];

/** The next message; nothing when the other side has closed. */
export function readMessage(fd) {
  const header = Buffer.alloc(HEADER);
  const fds = receive(fd, header);
  if (fds === undefined) return undefined;
  const payload = Buffer.alloc(header.readUInt32LE(8));
  const more = payload.length === 0 ? [] : receive(fd, payload);
  if (more === undefined) return undefined;
  const needsReply = (header.readUInt32LE(4) & NEED_REPLY) !== 0;
  return { request: header.readUInt32LE(0), needsReply, payload, fds: [...fds, ...more] };
}

function write(fd, request, flags, payload) {
  const header = Buffer.alloc(HEADER);
  header.writeUInt32LE(request, 0);
  header.writeUInt32LE(VERSION | flags, 4);
  header.writeUInt32LE(payload.length, 8);
  send(fd, Buffer.concat([header, payload]));
}

export const reply = (fd, { request }, payload) => write(fd, request, REPLY, payload);

export function u64(value) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}

/** `struct vhost_vring_state`: the queue and a number. */
export const vringState = (payload) => [payload.readUInt32LE(0), payload.readUInt32LE(4)];

/** The queue that a descriptor is for, and whether there is one. */
export function vringFd(payload) {
  const value = Number(payload.readBigUInt64LE(0));
  return [value & 0xff, (value & VRING_NOFD) === 0];
}

/** `struct vhost_vring_addr`: addresses in QEMU, or on the bus where there is an IOTLB. */
export function vringAddr(payload) {
  const [desc, used, avail] = [8, 16, 24].map((at) => payload.readBigUInt64LE(at));
  return { index: payload.readUInt32LE(0), desc, avail, used };
}

/** Guest memory: where in the guest, how much, where in QEMU, where in the file. */
export function memoryTable(payload) {
  return Array.from({ length: payload.readUInt32LE(0) }, (_, i) => {
    const field = (n) => payload.readBigUInt64LE(8 + 32 * i + 8 * n);
    return {
      gpa: Number(field(0)),
      size: Number(field(1)),
      uaddr: field(2),
      offset: Number(field(3)),
    };
  });
}

/** An IOTLB message of QEMU's as the model has it; `toGpa` leads from QEMU's addresses to the guest's. */
export function iotlbMessage(payload, toGpa) {
  const [iova, size, uaddr] = [0, 8, 16].map((at) => payload.readBigUInt64LE(at));
  const perm = payload[24];
  const type = IOTLB_TYPES[payload[25]] ?? `type ${payload[25]}`;
  if (type === 'UPDATE') return { type, iova, size, gpa: toGpa(uaddr), perm };
  return { type, iova, size };
}

/** Asks QEMU for a translation, and for an answer when it is done with it. */
export function sendMiss(fd, { iova, perm }) {
  const payload = Buffer.alloc(IOTLB_MSG_SIZE);
  payload.writeBigUInt64LE(iova, 0);
  payload[24] = perm;
  payload[25] = IOTLB_TYPES.indexOf('MISS');
  write(fd, SLAVE_IOTLB_MSG, NEED_REPLY, payload);
}

/** One line for each message, the same for QEMU's and the model's. */
export function describe(message) {
  const { type, iova, size, gpa, perm } = message;
  const hex = (value) => `0x${value.toString(16)}`;
  const access = ['-', 'r', 'w', 'rw'][perm] ?? `perm ${perm}`;
  if (type === 'MISS') return `miss ${hex(iova)} ${access}`;
  if (type === 'UPDATE') return `update ${hex(iova)} ${hex(size)} ${hex(gpa)} ${access}`;
  return `${type.toLowerCase()} ${hex(iova)} ${hex(size)}`;
}
