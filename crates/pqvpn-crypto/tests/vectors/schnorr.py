#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Independent model of the invite proof (security.md 2.1).

Standard library only; Keccak-f[1600] (FIPS 202), STROBE-128 and merlin's transcript, and ristretto255 (RFC 9496) are
written here from their specifications. `schnorr.py` prints the vectors as JSON (schnorr.json beside it) after it has
checked its primitives against published values.
"""

import hashlib
import hmac
import json
import struct
import sys

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


# ---------------------------------------------------------------- Keccak, STROBE, merlin

def rol(x, n):
    n %= 64
    return ((x << n) | (x >> (64 - n))) & (2**64 - 1)


def keccak_f(state):
    a = [[int.from_bytes(state[8 * (x + 5 * y):8 * (x + 5 * y) + 8], "little") for y in range(5)] for x in range(5)]
    lfsr = 1
    for _ in range(24):
        c = [a[x][0] ^ a[x][1] ^ a[x][2] ^ a[x][3] ^ a[x][4] for x in range(5)]
        d = [c[(x - 1) % 5] ^ rol(c[(x + 1) % 5], 1) for x in range(5)]
        a = [[a[x][y] ^ d[x] for y in range(5)] for x in range(5)]
        x, y, current = 1, 0, a[1][0]
        for t in range(24):
            x, y = y, (2 * x + 3 * y) % 5
            current, a[x][y] = a[x][y], rol(current, (t + 1) * (t + 2) // 2)
        for y in range(5):
            row = [a[x][y] for x in range(5)]
            for x in range(5):
                a[x][y] = row[x] ^ (~row[(x + 1) % 5] & row[(x + 2) % 5])
        for j in range(7):
            lfsr = ((lfsr << 1) ^ ((lfsr >> 7) * 0x71)) % 256
            if lfsr & 2:
                a[0][0] ^= 1 << ((1 << j) - 1)
    return bytearray(b"".join(a[x][y].to_bytes(8, "little") for y in range(5) for x in range(5)))


def sha3_256(data):
    rate, state = 136, bytearray(200)
    data = bytearray(data) + b"\x06" + bytes(-(len(data) + 1) % rate)
    data[-1] ^= 0x80
    for at in range(0, len(data), rate):
        for i in range(rate):
            state[i] ^= data[at + i]
        state = keccak_f(state)
    return bytes(state[:32])


class Strobe:
    RATE = 166

    def __init__(self, label):
        state = bytearray(200)
        state[0:6] = bytes([1, self.RATE + 2, 1, 0, 1, 96])
        state[6:18] = b"STROBEv1.0.2"
        self.state, self.pos, self.begin = keccak_f(state), 0, 0
        self.meta_ad(label)

    def copy(self):
        other = object.__new__(Strobe)
        other.state, other.pos, other.begin = bytearray(self.state), self.pos, self.begin
        return other

    def run_f(self):
        self.state[self.pos] ^= self.begin
        self.state[self.pos + 1] ^= 0x04
        self.state[self.RATE + 1] ^= 0x80
        self.state, self.pos, self.begin = keccak_f(self.state), 0, 0

    def duplex(self, data, mode):
        out = bytearray()
        for byte in data:
            if mode == "absorb":
                self.state[self.pos] ^= byte
            elif mode == "overwrite":
                self.state[self.pos] = byte
            else:
                out.append(self.state[self.pos])
                self.state[self.pos] = 0
            self.pos += 1
            if self.pos == self.RATE:
                self.run_f()
        return bytes(out)

    def start(self, flags):
        old, self.begin = self.begin, self.pos + 1
        self.duplex([old, flags], "absorb")
        if flags & 0x24 and self.pos != 0:
            self.run_f()

    def meta_ad(self, data):
        self.start(0x12)
        self.duplex(data, "absorb")

    def ad(self, data):
        self.start(0x02)
        self.duplex(data, "absorb")

    def key(self, data):
        self.start(0x06)
        self.duplex(data, "overwrite")

    def prf(self, length):
        self.start(0x07)
        return self.duplex(bytes(length), "squeeze")


class Transcript:
    def __init__(self, label):
        self.strobe = Strobe(b"Merlin v1.0")
        self.append(b"dom-sep", label)

    def append(self, label, message):
        self.strobe.meta_ad(label + struct.pack("<I", len(message)))
        self.strobe.ad(message)

    def challenge(self, label, length):
        self.strobe.meta_ad(label + struct.pack("<I", length))
        return self.strobe.prf(length)

    def nonce(self, label, witness, seed, length):
        strobe = self.strobe.copy()
        strobe.meta_ad(label + struct.pack("<I", len(witness)))
        strobe.key(witness)
        strobe.meta_ad(b"rng")
        strobe.key(seed)
        strobe.meta_ad(struct.pack("<I", length))
        return strobe.prf(length)


# ---------------------------------------------------------------- ristretto255, affine and slow

def add(p, q):
    (x1, y1), (x2, y2) = p, q
    k = D * x1 * x2 * y1 * y2 % P
    return ((x1 * y2 + y1 * x2) * pow(1 + k, P - 2, P) % P, (y1 * y2 + x1 * x2) * pow(1 - k, P - 2, P) % P)


def mul(n, p):
    out = (0, 1)
    while n:
        if n & 1:
            out = add(out, p)
        p, n = add(p, p), n >> 1
    return out


def is_negative(x):
    return x % P & 1


def sqrt_ratio(u, v):
    """RFC 9496 4.2: (was square, sqrt(u/v) or sqrt(i*u/v), not negative)."""
    r = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    check = v * r * r % P
    correct, flipped, flipped_i = check == u % P, check == -u % P, check == -u * SQRT_M1 % P
    if flipped or flipped_i:
        r = r * SQRT_M1 % P
    return correct or flipped, P - r if is_negative(r) else r


INVSQRT_A_MINUS_D = sqrt_ratio(1, (-1 - D) % P)[1]


def encode(point):
    """RFC 9496 4.3.2 with Z = 1."""
    x, y = point
    t = x * y % P
    u1, u2 = (1 + y) * (1 - y) % P, t
    inv = sqrt_ratio(1, u1 * u2 * u2 % P)[1]
    den1, den2 = inv * u1 % P, inv * u2 % P
    z_inv = den1 * den2 * t % P
    if is_negative(t * z_inv % P):
        x, y, den = y * SQRT_M1 % P, x * SQRT_M1 % P, den1 * INVSQRT_A_MINUS_D % P
    else:
        den = den2
    if is_negative(x * z_inv % P):
        y = -y % P
    s = den * (1 - y) % P
    return (P - s if is_negative(s) else s).to_bytes(32, "little")


def decode(data):
    """RFC 9496 4.3.1."""
    s = int.from_bytes(data, "little")
    assert s < P and not is_negative(s)
    u1, u2 = (1 - s * s) % P, (1 + s * s) % P
    v = (-D * u1 * u1 - u2 * u2) % P
    square, inv = sqrt_ratio(1, v * u2 * u2 % P)
    den_x, den_y = inv * u2 % P, inv * inv * u2 * v % P
    x = 2 * s * den_x % P
    x = P - x if is_negative(x) else x
    y = u1 * den_y % P
    assert square and not is_negative(x * y % P) and y != 0
    return (x, y)


def base():
    y = 4 * pow(5, P - 2, P) % P
    x = sqrt_ratio((y * y - 1) % P, (D * y * y + 1) % P)[1]
    return (x, y)


# ---------------------------------------------------------------- the proof

def secret_scalar(secret):
    prk = hmac.new(bytes(64), secret, "sha512").digest()
    wide = hmac.new(prk, b"pqvpn/1 invite key\x01", "sha512").digest()
    return int.from_bytes(wide, "little") % L


def transcript(context, point):
    out = Transcript(b"pqvpn/zk/schnorr/v1")
    out.append(b"ctx", context)
    out.append(b"P", point)
    return out


def challenge(context, point, commitment):
    t = transcript(context, point)
    t.append(b"R", commitment)
    return int.from_bytes(t.challenge(b"c", 64), "little") % L


def prove(secret, context, seed):
    x = secret_scalar(secret)
    point = encode(mul(x, base()))
    wide = transcript(context, point).nonce(b"x", x.to_bytes(32, "little"), seed, 64)
    r = int.from_bytes(wide, "little") % L
    commitment = encode(mul(r, base()))
    c = challenge(context, point, commitment)
    return point, commitment, c, (r + c * x) % L


def verify(point, context, c, s):
    """sG == R + cP is checked on R = sG + (l - c)P, another way than the implementation goes."""
    commitment = encode(add(mul(s, base()), mul(L - c, decode(point))))
    return challenge(context, point, commitment) == c


def self_test():
    assert sha3_256(b"pqvpn") == hashlib.sha3_256(b"pqvpn").digest()
    # RFC 9496 A.1: the generator and its double.
    assert encode(base()).hex() == "e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76"
    assert encode(mul(2, base())).hex() == "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919"
    assert encode((0, 1)) == bytes(32)
    assert encode(decode(encode(mul(7, base())))) == encode(mul(7, base()))
    # merlin's own test of its transcript (equivalence_simple).
    t = Transcript(b"test protocol")
    t.append(b"some label", b"some data")
    simple = t.challenge(b"challenge", 32).hex()
    assert simple == "d5a21972d0d5fe320c0d263fac7fffb8145aa640af6e9bca177c03c7efcf0615", simple


def vectors():
    out = []
    for number in range(4):
        def fill(byte, length):
            return bytes((number * 29 + byte + i) % 256 for i in range(length))
        secret, seed = fill(1, 16), fill(2, 32)
        network, serial, verifier, joiner, exporter = (
            fill(3, 32), fill(4, 16), fill(5, 32), fill(6, 32), fill(7, 32))
        context = hashlib.sha512(network + serial + verifier + joiner + exporter).digest()
        point, commitment, c, s = prove(secret, context, seed)
        assert verify(point, context, c, s)
        assert not verify(point, hashlib.sha512(b"other").digest(), c, s)
        proof = c.to_bytes(32, "little") + s.to_bytes(32, "little")
        names = ("secret", "seed", "network", "serial", "verifier", "joiner", "exporter", "context", "point",
                 "commitment", "proof")
        values = (secret, seed, network, serial, verifier, joiner, exporter, context, point, commitment, proof)
        out.append({name: value.hex() for name, value in zip(names, values)})
    return out


if __name__ == "__main__":
    self_test()
    json.dump(vectors(), sys.stdout, indent=1)
    print()
