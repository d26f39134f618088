"""Which address of a range the kernel takes, number by number: find_best_ips_proto of net/netfilter/nf_nat_core.c."""

from __future__ import annotations

import ipaddress
import struct

MASK = 0xFFFFFFFF


def rotated(x, by):
    return (x << by | x >> (32 - by)) & MASK


def jhash2(key, initial):
    """include/linux/jhash.h: any number of 32-bit words."""
    a = b = c = (0xDEADBEEF + (len(key) << 2) + initial) & MASK
    key = list(key)
    while len(key) > 3:
        a, b, c = (a + key[0]) & MASK, (b + key[1]) & MASK, (c + key[2]) & MASK
        for by in (4, 6, 8, 16, 19, 4):  # a, b and c take turns
            a = ((a - c) & MASK) ^ rotated(c, by)
            c = (c + b) & MASK
            a, b, c = b, c, a
        key = key[3:]
    a, b, c = ((value + word) & MASK for value, word in zip((a, b, c), (*key, 0, 0, 0), strict=False))
    c = ((c ^ b) - rotated(b, 14)) & MASK
    a = ((a ^ c) - rotated(c, 11)) & MASK
    b = ((b ^ a) - rotated(a, 25)) & MASK
    c = ((c ^ b) - rotated(b, 16)) & MASK
    a = ((a ^ c) - rotated(c, 4)) & MASK
    b = ((b ^ a) - rotated(a, 14)) & MASK
    return ((c ^ b) - rotated(b, 24)) & MASK


def words(address):
    """The address in memory, as a little-endian machine reads it."""
    return list(struct.unpack(f"<{len(address.packed) // 4}I", address.packed))


def choose(source, destination, first, last, persistent, is_dnat):
    src, dst = words(source), words(destination)
    j = jhash2([*src, 0, 0, 0][:4], 0 if persistent else dst[-1])
    full_range, chosen = False, []
    for at, (low, high) in enumerate(zip(words(first), words(last), strict=True)):
        least, most = (struct.unpack(">I", struct.pack("<I", word))[0] for word in (low, high))
        if full_range:
            least, distance = 0, MASK
        else:
            distance = most - least + 1
        word = (least + (j * distance >> 32)) & MASK
        chosen.append(word)
        full_range = full_range or word != most
        settled = struct.unpack("<I", struct.pack(">I", word))[0]
        if not persistent:
            j ^= settled if is_dnat else dst[at]
    return ipaddress.ip_address(b"".join(struct.pack(">I", word) for word in chosen))
