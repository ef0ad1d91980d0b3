"""delay.py PORT PORT MILLISECONDS: carries frames between two ports, each so much later, in order.

Frames are read with the virtio header, which tells how far checksums and segments are left to the
hardware: TCP hands whole batches of segments to a virtual port, and without that header they would
be too long for the way out, or arrive with a checksum that nobody has filled in.
"""

import collections
import select
import socket
import sys
import time

SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
ETH_P_ALL = 3
FRAME_MAX = 70_000


def open_port(name):
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    port.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    # What we send into a port must not come back to us from it.
    port.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    port.bind((name, ETH_P_ALL))
    port.setblocking(False)
    return port


def main():
    left, right, delay = open_port(sys.argv[1]), open_port(sys.argv[2]), float(sys.argv[3]) / 1000
    other = {left: right, right: left}
    due = collections.deque()  # (when, to which port, frame): all have one delay, so it is in order
    print("ready", flush=True)
    while True:
        timeout = max(0.0, due[0][0] - time.monotonic()) if due else None
        for port in select.select([left, right], [], [], timeout)[0]:
            frame = port.recv(FRAME_MAX)
            due.append((time.monotonic() + delay, other[port], frame))
        while due and due[0][0] <= time.monotonic():
            _, port, frame = due.popleft()
            try:
                port.send(frame)
            except OSError:
                pass  # full, or gone: the frame is lost, as on a wire


main()
