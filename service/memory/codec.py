"""A memory as bytes: a fixed header, float32 payload, checksum. Corrupt bytes are never a memory.

Layout, little-endian: magic and format (4 bytes), generation (u64), position (u64), policy digest
(32 bytes: policy version, graph, onnxruntime's version, kernel fingerprint), K (u32), payload
(shared [G], rows [K, H]), BLAKE2b of all before and of the name it is stored under (16 bytes).
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np

from contract.policy import Memory
from service.ledger.records import AccountKey, Head
from service.memory.store import PolicyIdentity, StoredMemory

MAGIC = b"ACM\x02"
_HEADER = struct.Struct("<4sQQ32sI")
_CHECKSUM_BYTES = 16
HEAD_BYTES = slice(len(MAGIC), len(MAGIC) + 16)
"""Where generation and position stand, for the store's compare-and-set."""


class CorruptMemoryError(ValueError):
    """The bytes are not a whole memory of this policy. The message says what is off."""


def account_name(key: AccountKey) -> str:
    """The name that a memory is kept under beside its account's past."""
    return "|".join(key)


def encode(stored: StoredMemory, policy: PolicyIdentity, name: str = "") -> bytes:
    """The memory as bytes, to be stored under `name`."""
    shared, rows = stored.memory
    header = _HEADER.pack(
        MAGIC, stored.head.generation, stored.head.position, policy.digest, rows.shape[1]
    )
    body = header + shared.astype("<f4").tobytes() + rows.astype("<f4").tobytes()
    return body + _checksum(body, name)


def encode_head(head: Head) -> bytes:
    """Generation and position as they stand in an encoded memory."""
    return struct.pack("<QQ", head.generation, head.position)


def decode(data: bytes, policy: PolicyIdentity, name: str = "") -> StoredMemory:
    """The memory in `data`. Raises CorruptMemoryError; another policy's memory is refused too, and
    one that was stored under another name."""
    if len(data) < _HEADER.size + _CHECKSUM_BYTES:
        raise CorruptMemoryError("truncated")
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if checksum != _checksum(body, name):
        raise CorruptMemoryError("checksum")
    magic, generation, position, digest, actions = _HEADER.unpack_from(body)
    if magic != MAGIC:
        raise CorruptMemoryError("format")
    if digest != policy.digest:
        raise CorruptMemoryError("policy")
    payload = np.frombuffer(body, "<f4", offset=_HEADER.size)
    if payload.size != policy.shared_size + actions * policy.row_size:
        raise CorruptMemoryError("size")
    shared = payload[: policy.shared_size].reshape(1, -1)
    rows = payload[policy.shared_size :].reshape(1, actions, policy.row_size)
    return StoredMemory(Memory(shared, rows), Head(generation, position))


def _checksum(body: bytes, name: str) -> bytes:
    checksum = hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES)
    checksum.update(name.encode())
    return checksum.digest()
