// What Node has no call for: sockets that pass file descriptors, and waiting for several descriptors at
// once without an event loop. Structures are those of 64-bit Linux.
import { closeSync, writeSync } from 'node:fs';
import koffi from 'koffi';

const libc = koffi.load(null);
const socket = libc.func('int socket(int, int, int)');
const bind = libc.func('int bind(int, void *, int)');
const listen = libc.func('int listen(int, int)');
const accept4 = libc.func('int accept4(int, void *, void *, int)');
const recvmsg = libc.func('long recvmsg(int, void *, int)');
const poll = libc.func('int poll(void *, unsigned long, int)');

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0x8_0000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const POLLIN = 1;
/** `sizeof(struct sockaddr_un)`: the family and 108 bytes of path. */
const SOCKADDR_UN = 110;
/** `sizeof(struct cmsghdr)`, and room for eight descriptors behind it. */
const CMSGHDR = 16;
const CONTROL = CMSGHDR + 4 * 8;

function check(result, call) {
  if (result >= 0) return result;
  const number = koffi.errno();
  const [name] = Object.entries(koffi.os.errno).find(([, value]) => value === number) ?? [number];
  throw new Error(`${call}: ${name}`);
}

/** A socket that listens at `path`, for one connection. */
export function listenAt(path) {
  if (Buffer.byteLength(path) >= SOCKADDR_UN - 2) throw new Error(`too long for a socket: ${path}`);
  const fd = check(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), 'socket');
  const address = Buffer.alloc(SOCKADDR_UN);
  address.writeUInt16LE(AF_UNIX, 0);
  address.write(path, 2);
  check(bind(fd, address, SOCKADDR_UN), `bind ${path}`);
  check(listen(fd, 1), 'listen');
  return fd;
}

/** Takes the connection, and listens no more. */
export function acceptOn(fd) {
  const connection = check(accept4(fd, null, null, SOCK_CLOEXEC), 'accept4');
  closeSync(fd);
  return connection;
}

/** Fills `into` from a socket. Which descriptors came with it; nothing if the other side has closed. */
export function receive(fd, into) {
  const fds = [];
  const control = Buffer.alloc(CONTROL);
  const piece = Buffer.alloc(16);
  const header = Buffer.alloc(56);
  for (let done = 0; done < into.length; ) {
    const rest = into.subarray(done);
    piece.writeBigUInt64LE(koffi.address(rest), 0);
    piece.writeBigUInt64LE(BigInt(rest.length), 8);
    header.fill(0);
    header.writeBigUInt64LE(koffi.address(piece), 16);
    header.writeBigUInt64LE(1n, 24);
    header.writeBigUInt64LE(koffi.address(control), 32);
    header.writeBigUInt64LE(BigInt(control.length), 40);
    const count = Number(check(recvmsg(fd, header, MSG_CMSG_CLOEXEC), 'recvmsg'));
    if (count === 0) return undefined;
    done += count;
    if (Number(header.readBigUInt64LE(40)) < CMSGHDR) continue;
    const isRights =
      control.readInt32LE(8) === SOL_SOCKET && control.readInt32LE(12) === SCM_RIGHTS;
    const end = isRights ? Number(control.readBigUInt64LE(0)) : 0;
    for (let at = CMSGHDR; at < end; at += 4) fds.push(control.readInt32LE(at));
  }
  return fds;
}

/** Sends all of `from`. */
export function send(fd, from) {
  for (let done = 0; done < from.length; ) done += writeSync(fd, from, done);
}

/** Waits for one of these to have something to read, or to be closed. Which have; none: time is up. */
export function waitFor(fds, milliseconds) {
  const entries = Buffer.alloc(8 * fds.length);
  for (const [i, fd] of fds.entries()) {
    entries.writeInt32LE(fd, 8 * i);
    entries.writeInt16LE(POLLIN, 8 * i + 4);
  }
  check(poll(entries, fds.length, milliseconds), 'poll');
  return fds.filter((_, i) => entries.readInt16LE(8 * i + 6) !== 0);
}
