#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Independent model of what networks put on the wire (docs/protocol.md 9): bodies and ids, serials, codes, messages.

Standard library only; the CBOR of RFC 8949 4.2.1 is written here. `network.py` prints one `name hex-or-text` a line
(network.txt beside it). Keys are the fixed frame of the public key with made-up key bytes: nothing here is signed.
"""

import base64
import hashlib
import struct

FRAME = bytes.fromhex(
    "30820a5d301606146983e9a8bcd5f3dde2a5db8ae5d6b988fe80853603820a4100")
NETWORK, NOW = bytes([0x4E] * 32), 1795000000000


def head(major, n):
    for limit, code, form in ((24, None, None), (1 << 8, 24, ">B"), (1 << 16, 25, ">H"), (1 << 32, 26, ">I"),
                              (1 << 64, 27, ">Q")):
        if n < limit:
            if code is None:
                return bytes([major << 5 | n])
            return bytes([major << 5 | code]) + struct.pack(form, n)
    raise ValueError(n)


def cbor(value):
    if value is None:
        return b"\xf6"
    if value is False:
        return b"\xf4"
    if value is True:
        return b"\xf5"
    if isinstance(value, int):
        return head(0, value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    return head(4, len(value)) + b"".join(cbor(item) for item in value)


def spki(byte):
    return FRAME + bytes([byte] * 2592) + bytes([byte ^ 0xFF] * 32)


def peer(byte):
    return hashlib.sha256(b"pqvpn-id-v1" + bytes([byte] * 2592) + bytes([byte ^ 0xFF] * 32)).digest()


def sha512_256(data):
    try:
        return hashlib.new("sha512_256", data).digest()
    except ValueError:
        return slow_sha512_256(data)


def slow_sha512_256(data):
    """FIPS 180-4 5.3.6 and 6.4; for builds of Python that lack it, and to check those that have it."""
    def root(prime, power):
        low, high = 0, prime << 64 * power
        while low + 1 < high:
            mid = (low + high) // 2
            low, high = (mid, high) if mid**power <= prime << 64 * power else (low, mid)
        return low & (2**64 - 1)

    primes = [n for n in range(2, 410) if all(n % d for d in range(2, n))]
    k = [root(p, 3) for p in primes[:80]]
    h512 = [root(p, 2) for p in primes[:8]]
    rotate = lambda x, n: (x >> n | x << (64 - n)) & (2**64 - 1)

    def run(state, message):
        message = message + b"\x80" + bytes((111 - len(message)) % 128) + struct.pack(">QQ", 0, 8 * len(message))
        for at in range(0, len(message), 128):
            w = list(struct.unpack(">16Q", message[at:at + 128]))
            for t in range(16, 80):
                s0 = rotate(w[t - 15], 1) ^ rotate(w[t - 15], 8) ^ w[t - 15] >> 7
                s1 = rotate(w[t - 2], 19) ^ rotate(w[t - 2], 61) ^ w[t - 2] >> 6
                w.append((w[t - 16] + s0 + w[t - 7] + s1) % 2**64)
            a, b, c, d, e, f, g, h = state
            for t in range(80):
                t1 = h + (rotate(e, 14) ^ rotate(e, 18) ^ rotate(e, 41)) + (e & f ^ ~e & g) + k[t] + w[t]
                t2 = (rotate(a, 28) ^ rotate(a, 34) ^ rotate(a, 39)) + (a & b ^ a & c ^ b & c)
                a, b, c, d, e, f, g, h = (t1 + t2) % 2**64, a, b, c, (d + t1) % 2**64, e, f, g
            state = [(x + y) % 2**64 for x, y in zip(state, (a, b, c, d, e, f, g, h))]
        return state

    assert struct.pack(">8Q", *run(h512, data)) == hashlib.sha512(data).digest()
    start = run([x ^ 0xA5A5A5A5A5A5A5A5 for x in h512], b"SHA-512/256")
    return struct.pack(">8Q", *run(start, data))[:32]


SECRET = bytes([0x5A] * 16)
SERIAL = hashlib.sha256(b"pqvpn invite serial" + SECRET).digest()[:16]
PARAMS = [1, [bytes([10, 100, 0, 0]), 16], False, 86400]
ACTS = {
    "add-admin": [2, spki(2)],
    "remove-admin": [3, peer(2)],
    "add-member": [4, peer(2), "phone", ["build", "office"], 2, NOW + 1, 600, [SERIAL, 3]],
    "revoke": [5, peer(2), "laptop stolen"],
    "cancel-invite": [6, SERIAL],
    "set-params": [7, [2, [bytes([192, 168, 64, 0]), 20], True, 3600]],
    "set-policy": [8, bytes([9] * 32), 1],
    "checkpoint": [9, bytes([10] * 32)],
    "rotate": [10, spki(1), spki(2), bytes([5] * 4691)],
    "leave": [11, spki(2)],
    "disable": [12, bytes([11] * 32)],
}


def lines():
    genesis = [1, "home", spki(1), "laptop", bytes([7] * 32), PARAMS, bytes([8] * 32)]
    body = cbor([1, bytes(32), 0, [], NOW, genesis])
    assert sha512_256(body) == slow_sha512_256(body)
    yield "genesis", sha512_256(body).hex()
    parents = [bytes([1] * 32), bytes([2] * 32)]
    for name, act in ACTS.items():
        yield name, sha512_256(cbor([1, NETWORK, 5, parents, NOW, act])).hex()
    yield "statement", cbor([cbor([1, NETWORK, 5, parents, NOW, ACTS["checkpoint"]]),
                             [[peer(1), bytes([1] * 4691)]]]).hex()[:600]
    yield "serial", SERIAL.hex()
    v4, v6 = bytes([4, 198, 51, 100, 1]), bytes([6]) + bytes.fromhex("20010db8000100020003000400050007")
    port = struct.pack(">H", 51820)
    fields = (b"\x01" + NETWORK + SECRET + struct.pack(">I", 1795003600) + b"\x04home" + b"\x02"
              + peer(1) + b"\x02" + v4 + port + v6 + port + peer(2) + b"\x00")
    check = hashlib.sha256(b"pqvpn code" + fields).digest()[:4]
    yield "code", "pqvpn1-" + base64.b32encode(fields + check).decode().rstrip("=").lower()
    state = [bytes([1] * 32), [bytes([2] * 32)], bytes([3] * 32), bytes([4] * 32), [[bytes([1] * 32), 7]], [], 12, NOW,
             v4[1:] + port]
    yield "sync", cbor([1, NETWORK, [2, state]]).hex()
    yield "pull", cbor([1, NETWORK, [3, [bytes([9] * 32)]]]).hex()
    yield "ping", cbor([1, NETWORK, [5]]).hex()
    digest = hashlib.sha256(b"pqvpn beat" + bytes([1] * 32) + bytes([3] * 32) + bytes([4] * 32)).digest()[:16]
    yield "beat", cbor([1, NETWORK, [6, digest, v4[1:] + port, bytes([0, 9])]]).hex()
    yield "push", cbor([1, NETWORK, [4, [[], [], [], [], True]]]).hex()
    yield "introduce", cbor([1, NETWORK, [7, []]]).hex()
    door = [bytes([2] * 32), [v4[1:] + port, v6[1:] + port]]
    yield "elsewhere", cbor([1, NETWORK, [3, [door]]]).hex()
    yield "name-taken", cbor([1, NETWORK, [4, 7, "phone-2"]]).hex()
    yield "expired", cbor([1, NETWORK, [4, 2, NOW]]).hex()
    yield "pending", cbor([1, NETWORK, [2, bytes([5] * 16)]]).hex()
    yield "frame", (b"PQ\x01\x20" + struct.pack(">I", 3) + b"abc").hex()


if __name__ == "__main__":
    for name, value in lines():
        print(name, value)
