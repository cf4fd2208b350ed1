"""A vhost-user block device that serves no request: it times QEMU's answers to IOTLB misses.

usage: iotlb-backend.py SOCKET COUNT
Prints `ready` when QEMU may connect; once the device is started, COUNT times how long a miss took
from its message to its update, in nanoseconds, one a line; then it acknowledges what comes until QEMU
closes. Messages: docs/interop/vhost-user.rst of QEMU.
"""
import array
import os
import socket
import struct
import sys
import threading
import time

# Bits of features: INDIRECT_DESC, EVENT_IDX, PROTOCOL_FEATURES, VERSION_1, ACCESS_PLATFORM.
FEATURES = 1 << 28 | 1 << 29 | 1 << 30 | 1 << 32 | 1 << 33
# MQ, REPLY_ACK, SLAVE_REQ, CONFIG.
PROTOCOL = 1 << 0 | 1 << 3 | 1 << 5 | 1 << 9
NEED_REPLY = 8
GET_FEATURES, SET_MEM_TABLE, SET_VRING_ADDR, GET_VRING_BASE = 1, 5, 9, 11
GET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_VRING_ENABLE = 15, 17, 18
SET_SLAVE_REQ_FD, IOTLB_MSG, GET_CONFIG, SET_CONFIG = 21, 22, 24, 25
MISS, UPDATE = 1, 2
READ_ONLY = 1


def receive(sock):
    """One message and its file descriptors; None when QEMU has closed."""
    space = socket.CMSG_SPACE(8 * 4)
    head, ancillary, _, _ = sock.recvmsg(12, space)
    if len(head) < 12:
        return None
    request, flags, size = struct.unpack('<III', head)
    payload = b''
    while len(payload) < size:
        payload += sock.recv(size - len(payload))
    fds = array.array('i')
    for _, _, data in ancillary:
        fds.frombytes(data[: len(data) - len(data) % 4])
    return request, flags, payload, list(fds)


def reply(sock, request, payload):
    sock.sendall(struct.pack('<III', request, 1 | 4, len(payload)) + payload)


def time_misses(slave, updated, iova, count):
    """Asks for one address over and over; the main thread hears the updates."""
    body = struct.pack('<QQQBB6x', iova, 1, 0, READ_ONLY, MISS)
    message = struct.pack('<III', 1, 1, len(body)) + body
    times = []
    for _ in range(count):
        updated.clear()
        begin = time.perf_counter_ns()
        slave.sendall(message)
        if not updated.wait(5):
            break
        times.append(updated.at - begin)
    print('\n'.join(map(str, times)), flush=True)
    print('done', flush=True)


def serve(sock, count):
    slave, iova, updated, worker = None, None, threading.Event(), None
    while (message := receive(sock)) is not None:
        request, flags, payload, fds = message
        answer = None
        if request == GET_FEATURES:
            answer = struct.pack('<Q', FEATURES)
        elif request == GET_PROTOCOL_FEATURES:
            answer = struct.pack('<Q', PROTOCOL)
        elif request == GET_QUEUE_NUM:
            answer = struct.pack('<Q', 1)
        elif request == GET_CONFIG:
            offset, size, config_flags = struct.unpack_from('<III', payload)
            config = struct.pack('<QIIHBBI', 2048, 0, 126, 0, 0, 0, 512).ljust(256, b'\0')
            answer = struct.pack('<III', offset, size, config_flags) + config[offset : offset + size]
        elif request == GET_VRING_BASE:
            answer = struct.pack('<II', struct.unpack_from('<I', payload)[0], 0)
        elif request == SET_SLAVE_REQ_FD:
            slave = socket.socket(fileno=fds.pop(0))
        elif request == SET_VRING_ADDR:
            iova = struct.unpack_from('<IIQQQQ', payload)[2]
        elif request == IOTLB_MSG and payload[25] == UPDATE:
            updated.at = time.perf_counter_ns()
            updated.set()
        for fd in fds:
            os.close(fd)
        if answer is not None:
            reply(sock, request, answer)
        elif flags & NEED_REPLY:
            reply(sock, request, struct.pack('<Q', 0))
        if request == SET_VRING_ENABLE and worker is None and slave and iova is not None:
            worker = threading.Thread(target=time_misses, args=(slave, updated, iova, count))
            worker.daemon = True
            worker.start()


path, wanted = sys.argv[1], int(sys.argv[2])
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(1)
print('ready', flush=True)
serve(listener.accept()[0], wanted)
