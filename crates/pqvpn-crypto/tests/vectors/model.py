#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Independent model of the session key schedule, the ratchet step and the packet (security.md 1.4, 1.5).

Standard library only; ChaCha20, Poly1305, AES, GCM and X25519 are written here from their specifications.
`model.py` prints the vectors as JSON (session.json beside it); `model.py --self-test` checks the primitives against
published vectors first and exits 1 when one differs.
"""

import hashlib
import hmac
import json
import struct
import sys

DIRECTIONS = (0, 1)


# ---------------------------------------------------------------- derivation

def u8(n):
    return struct.pack(">B", n)


def u16(n):
    return struct.pack(">H", n)


def u32(n):
    return struct.pack(">I", n)


def u64(n):
    return struct.pack(">Q", n)


def sha512(data):
    return hashlib.sha512(data).digest()


def hmac512(key, data):
    return hmac.new(key, data, hashlib.sha512).digest()


def lp(x):
    return u16(len(x)) + x


def extract(salt, ikm):
    return hmac512(salt, ikm)


def expand(prk, info, length):
    out, block, i = b"", b"", 0
    while len(out) < length:
        i += 1
        block = hmac512(prk, block + info + u8(i))
        out += block
    return out[:length]


class Session:
    """One epoch of one session."""

    def __init__(self, sid, epoch, root, state, transcript):
        self.sid, self.epoch, self.root, self.state, self.transcript = sid, epoch, root, state, transcript

    def info(self, label, context):
        return b"pqvpn/1 " + u8(len(label)) + label + self.sid + lp(context)

    def chain(self, d, phase):
        key = expand(self.root, self.info(b"chain 0", u8(d) + u32(self.epoch)), 64)
        for p in range(phase):
            key = expand(key, self.info(b"chain", u8(d) + u32(self.epoch) + u32(p)), 64)
        return key

    def data_key(self, d, phase):
        context = u8(d) + u32(self.epoch) + u32(phase)
        return expand(self.chain(d, phase), self.info(b"data key", context), 64)[:32]

    def control_key(self):
        return expand(self.state, self.info(b"ctrl mac", b""), 32)

    def resume_psk(self):
        return expand(self.state, self.info(b"resume", b""), 32)

    def step(self, shared, kem, r1, r2):
        """The next epoch, with KC, mac_a and mac_b; r2 comes without its MAC."""
        epoch = self.epoch + 1
        th = sha512(b"pqvpn/1 ratchet" + self.transcript + r1 + r2)
        prk = extract(self.root, lp(shared) + lp(kem) + lp(th))
        confirm = expand(prk, self.info(b"confirm", u32(epoch)), 64)
        mac_b = hmac512(confirm, b"R" + th)[:32]
        mac_a = hmac512(confirm, b"I" + th)[:32]
        symmetric = expand(prk, self.info(b"sym", b""), 64)
        root = expand(prk, self.info(b"root", u32(epoch)), 64)
        state = expand(extract(self.state, mac_a + mac_b + symmetric), self.info(b"session", u32(epoch)), 64)
        return Session(self.sid, epoch, root, state, th), confirm, mac_a, mac_b


def handshake(exporter, th0, psk):
    sid = sha512(b"pqvpn/1 sid" + th0)[:32]
    prk = extract(th0, lp(exporter) + lp(psk or bytes(32)))
    session = Session(sid, 0, b"", b"", th0)
    session.root = expand(prk, session.info(b"root", u32(0)), 64)
    session.state = expand(prk, session.info(b"session", b""), 64)
    headers = [expand(prk, session.info(b"hp", u8(d)), 32) for d in DIRECTIONS]
    confirm = [expand(prk, session.info(label, b""), 64) for label in (b"confirm i", b"confirm r")]
    return session, headers, confirm


# ---------------------------------------------------------------- ChaCha20-Poly1305 (RFC 8439)

def rotl(x, n):
    return ((x << n) | (x >> (32 - n))) & 0xFFFFFFFF


def quarter(s, a, b, c, d):
    for first, second, turn in ((a, b, 16), (c, d, 12), (a, b, 8), (c, d, 7)):
        s[first] = (s[first] + s[second]) & 0xFFFFFFFF
        other = d if first == a else b
        s[other] = rotl(s[other] ^ s[first], turn)


def chacha_block(key, counter, nonce):
    start = list(struct.unpack("<4I", b"expand 32-byte k") + struct.unpack("<8I", key)
                 + (counter,) + struct.unpack("<3I", nonce))
    s = list(start)
    for _ in range(10):
        quarter(s, 0, 4, 8, 12)
        quarter(s, 1, 5, 9, 13)
        quarter(s, 2, 6, 10, 14)
        quarter(s, 3, 7, 11, 15)
        quarter(s, 0, 5, 10, 15)
        quarter(s, 1, 6, 11, 12)
        quarter(s, 2, 7, 8, 13)
        quarter(s, 3, 4, 9, 14)
    return struct.pack("<16I", *((x + y) & 0xFFFFFFFF for x, y in zip(s, start)))


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def pad16(x):
    return x + bytes(-len(x) % 16)


def poly1305(key, message):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    acc = 0
    for i in range(0, len(message), 16):
        acc = (acc + int.from_bytes(message[i:i + 16] + b"\x01", "little")) * r % (2**130 - 5)
    return ((acc + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def chacha_seal(key, nonce, aad, text):
    stream = b"".join(chacha_block(key, 1 + i, nonce) for i in range((len(text) + 63) // 64))
    sealed = xor(text, stream)
    lengths = struct.pack("<QQ", len(aad), len(text))
    return sealed + poly1305(chacha_block(key, 0, nonce)[:32], pad16(aad) + pad16(sealed) + lengths)


# ---------------------------------------------------------------- AES-256-GCM (FIPS 197, SP 800-38D)

def xtime(a):
    return ((a << 1) ^ 0x1B) & 0xFF if a & 0x80 else a << 1


def gf_mul(a, b):
    out = 0
    while b:
        if b & 1:
            out ^= a
        a, b = xtime(a), b >> 1
    return out


def make_sbox():
    box = []
    for value in range(256):
        inverse = next((c for c in range(256) if gf_mul(value, c) == 1), 0)
        out = 0x63
        for shift in range(5):
            out ^= ((inverse << shift) | (inverse >> (8 - shift))) & 0xFF
        box.append(out)
    return box


SBOX = make_sbox()


def aes256_round_keys(key):
    words = [list(key[i:i + 4]) for i in range(0, 32, 4)]
    rcon = 1
    for i in range(8, 60):
        word = list(words[i - 1])
        if i % 8 == 0:
            word = [SBOX[x] for x in word[1:] + word[:1]]
            word[0] ^= rcon
            rcon = xtime(rcon)
        elif i % 8 == 4:
            word = [SBOX[x] for x in word]
        words.append([x ^ y for x, y in zip(words[i - 8], word)])
    return [sum(words[i:i + 4], []) for i in range(0, 60, 4)]


def aes256_block(key, block):
    keys = aes256_round_keys(key)
    s = [x ^ k for x, k in zip(block, keys[0])]
    for number, round_key in enumerate(keys[1:], 1):
        s = [SBOX[x] for x in s]
        s = [s[(i + 4 * (i % 4)) % 16] for i in range(16)]
        if number < 14:
            mixed = []
            for c in range(0, 16, 4):
                col = s[c:c + 4]
                mixed += [gf_mul(col[i], 2) ^ gf_mul(col[(i + 1) % 4], 3) ^ col[(i + 2) % 4] ^ col[(i + 3) % 4]
                          for i in range(4)]
            s = mixed
        s = [x ^ k for x, k in zip(s, round_key)]
    return bytes(s)


def ghash(h, data):
    h, y = int.from_bytes(h, "big"), 0
    for i in range(0, len(data), 16):
        x, v, z = y ^ int.from_bytes(data[i:i + 16], "big"), h, 0
        for bit in range(127, -1, -1):
            if (x >> bit) & 1:
                z ^= v
            v = (v >> 1) ^ (0xE1 << 120 if v & 1 else 0)
        y = z
    return y.to_bytes(16, "big")


def aes_gcm_seal(key, nonce, aad, text):
    stream = b"".join(aes256_block(key, nonce + u32(2 + i)) for i in range((len(text) + 15) // 16))
    sealed = xor(text, stream)
    lengths = u64(8 * len(aad)) + u64(8 * len(text))
    tag = ghash(aes256_block(key, bytes(16)), pad16(aad) + pad16(sealed) + lengths)
    return sealed + xor(tag, aes256_block(key, nonce + u32(1)))


SEAL = {1: chacha_seal, 2: aes_gcm_seal}


# ---------------------------------------------------------------- X25519 (RFC 7748)

P = 2**255 - 19


def x25519(scalar, point):
    k = int.from_bytes(scalar, "little") & ~7 & ~(1 << 255) | (1 << 254)
    u = int.from_bytes(point, "little") & ((1 << 255) - 1)
    x2, z2, x3, z3, swap = 1, 0, u, 1, 0
    for t in range(254, -1, -1):
        bit = (k >> t) & 1
        if swap != bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a, c * b, a * a, b * b
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        e = aa - bb
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


BASE = (9).to_bytes(32, "little")


# ---------------------------------------------------------------- packet

def header_mask(aead, key, sample):
    if aead == 2:
        return aes256_block(key, sample)[:12]
    return chacha_block(key, struct.unpack("<I", sample[:4])[0], sample[4:])[:12]


def packet(aead, session, headers, d, phase, kind, receiver, counter, text):
    header = u8(0x20 | kind) + u8(session.epoch & 0xFF) + u16(phase & 0xFFFF) + u32(receiver) + u64(counter)
    sealed = SEAL[aead](session.data_key(d, phase), bytes(4) + u64(counter), header, text)
    mask = header_mask(aead, headers[d], sealed[:16])
    wire = (u8(header[0] ^ mask[0] & 0x1F) + xor(header[1:4], mask[1:4]) + header[4:8]
            + xor(header[8:16], mask[4:12]) + sealed)
    return {"aead": aead, "epoch": session.epoch, "direction": d, "phase": phase, "kind": kind,
            "receiver": receiver, "counter": counter, "plaintext": text.hex(), "header": header.hex(),
            "wire": wire.hex()}


# ---------------------------------------------------------------- vectors

def stream(name, length):
    """Reproducible bytes for an input."""
    return hashlib.shake_256(b"pqvpn vectors " + name.encode()).digest(length)


def chains(session):
    return [{"direction": d, "phase": p, "chain": session.chain(d, p).hex(), "data_key": session.data_key(d, p).hex()}
            for d in DIRECTIONS for p in (0, 1, 2, 9, 255)]


def describe(session):
    control = b"policy 7"
    return {"epoch": session.epoch, "root": session.root.hex(), "session": session.state.hex(),
            "transcript": session.transcript.hex(), "chains": chains(session),
            "control_key": session.control_key().hex(), "control_message": control.hex(),
            "control_mac": hmac512(session.control_key(), control)[:32].hex(),
            "resume": session.resume_psk().hex()}


def ratchet_step(session, name):
    epoch = session.epoch + 1
    a, b = stream(name + " a", 32), stream(name + " b", 32)
    share_a, share_b = x25519(a, BASE), x25519(b, BASE)
    shared = x25519(a, share_b)
    assert shared == x25519(b, share_a)
    kem = stream(name + " kem", 32)
    r1 = u8(1) + u32(epoch) + share_a + stream(name + " ek", 1568) + stream(name + " na", 32)
    r2 = u8(2) + u32(epoch) + share_b + stream(name + " ct", 1568) + stream(name + " nb", 32)
    after, confirm, mac_a, mac_b = session.step(shared, kem, r1, r2)
    return after, {"a": a.hex(), "b": b.hex(), "x25519": shared.hex(), "kem": kem.hex(), "r1": r1.hex(),
                   "r2_covered": r2.hex(), "confirm": confirm.hex(), "mac_a": mac_a.hex(), "mac_b": mac_b.hex(),
                   "after": describe(after)}


def vector(name, psk):
    exporter, th0 = stream(name + " exporter", 64), stream(name + " th0", 64)
    session, headers, confirm = handshake(exporter, th0, psk)
    samples = [stream(name + " sample", 16), b"\xff" * 16, bytes(16), b"\xff\xff\xff\xff" + bytes(12)]
    packets = [packet(aead, session, headers, d, phase, kind, receiver, counter, text)
               for aead in (1, 2)
               for d, phase, kind, receiver, counter, text in (
                   (0, 0, 4, 1, 0, b""),
                   (1, 0, 5, 0xFFFFFFFF, 1, b"E" + bytes(19)),
                   (0, 1, 4, 0x01020304, 77, stream("text", 100)),
                   (1, 3, 5, 0xDEADBEEF, 2**32, stream("text", 300)),
                   (0, 8, 4, 0, 2**60 - 1, stream("text", 1280)))]
    steps, at = [], session
    for number in (1, 2):
        at, step = ratchet_step(at, "%s step %d" % (name, number))
        steps.append(step)
    return {"name": name, "exporter": exporter.hex(), "th0": th0.hex(), "psk": psk.hex() if psk else None,
            "sid": session.sid.hex(), "header_keys": [key.hex() for key in headers],
            "confirm_keys": [key.hex() for key in confirm],
            "confirm_macs": [hmac512(key, th0)[:32].hex() for key in confirm],
            "masks": [{"aead": aead, "direction": d, "sample": sample.hex(),
                       "mask": header_mask(aead, headers[d], sample).hex()}
                      for aead in (1, 2) for d in DIRECTIONS for sample in samples],
            "epoch0": describe(session), "packets": packets, "steps": steps}


def vectors():
    return {"vectors": [vector("no psk", None), vector("psk", stream("psk", 32))]}


def self_test():
    """Published vectors: RFC 8439 2.3.2 and 2.8.2, RFC 7748 5.2, RFC 9001 A.5, FIPS 197 C.3, GCM specification case 16."""
    key = bytes(range(32))
    sunscreen = (b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
                 b"sunscreen would be it.")
    feffe = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
    gcm_text = bytes.fromhex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e24"
                             "49a6b525b16aedf5aa0de657ba637b39")
    checks = {
        "chacha block": chacha_block(key, 1, bytes.fromhex("000000090000004a00000000"))[:8].hex() == "10f1e7e4d13b5915",
        "chacha20-poly1305 tag": chacha_seal(
            bytes(range(0x80, 0xA0)), bytes.fromhex("070000004041424344454647"),
            bytes.fromhex("50515253c0c1c2c3c4c5c6c7"), sunscreen)[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691",
        "header mask": header_mask(
            1, bytes.fromhex("25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4"),
            bytes.fromhex("5e5cd55c41f69080575d7999c25a5bfb"))[:5].hex() == "aefefe7d03",
        "aes-256 header mask": header_mask(
            2, key, bytes.fromhex("00112233445566778899aabbccddeeff")).hex() == "8ea2b7ca516745bfeafc4990",
        "aes-256-gcm tag": aes_gcm_seal(
            feffe, bytes.fromhex("cafebabefacedbaddecaf888"), bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
            gcm_text)[-16:].hex() == "76fc6ece0f4e1768cddf8853bb2d551b",
        "x25519": x25519(
            bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
            bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")).hex()
        == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    }
    return [name for name, passed in checks.items() if not passed]


if __name__ == "__main__":
    wrong = self_test()
    if wrong:
        sys.exit("model primitives differ from published vectors: " + ", ".join(wrong))
    if "--self-test" not in sys.argv:
        json.dump(vectors(), sys.stdout, indent=1)
        print()
