"""The files of a store's shards: encoded in memory, written beside their place, renamed, and vouched for by a digest.

A digest line is that of ``sha256sum``: two hex fields and a path relative to the store, so ``sha256sum --check
manifest.sha256`` verifies a finished store without this package.
"""

import contextlib
import hashlib
import math
import os
import secrets
from pathlib import Path

import numpy as np

from allpet_physics.errors import InputError

MANIFEST, RECORDS, PARTIAL = "manifest.sha256", "records", ".partial"

#: Bytes of a chunk, the unit that a reader decodes at once, where one sample is smaller.
_CHUNK_BYTES = 2**20


def zarr_package():
    """Import zarr, or say how to install it."""
    try:
        import zarr
    except ImportError:
        raise InputError('a store needs the package zarr; install it with: pip install ".[scale]" in the source folder '
                         "of allpet.") from None
    return zarr


def array_settings(shape: tuple[int, ...], dtype, n_samples: int, samples_per_shard: int) -> dict:
    """Return what ``zarr.create_array`` is told about one array; nothing is left to the defaults of a zarr version.

    The first axis counts samples. A shard, one file, holds `samples_per_shard` samples; a chunk within it the greatest
    divisor of that number of samples that stays within 1 MiB, so that one large sample is read alone.
    """
    zarr = zarr_package()
    per_sample = math.prod(shape) * np.dtype(dtype).itemsize
    per_chunk = max(d for d in range(1, samples_per_shard + 1)
                    if samples_per_shard % d == 0 and (d == 1 or d * per_sample <= _CHUNK_BYTES))
    little_endian, crc = zarr.codecs.BytesCodec(endian="little"), zarr.codecs.Crc32cCodec()
    return {"shape": (n_samples, *shape), "dtype": dtype, "chunks": (samples_per_shard, *shape), "shards": None,
            "serializer": zarr.codecs.ShardingCodec(
                chunk_shape=(per_chunk, *shape), codecs=[little_endian, zarr.codecs.ZstdCodec(level=1)],
                index_codecs=[little_endian, crc], index_location="end"),
            "filters": None, "compressors": None, "fill_value": 0, "zarr_format": 3, "attributes": {},
            "chunk_key_encoding": {"name": "default", "separator": "/"}}


def shard_file(name: str, shape: tuple[int, ...], index: int) -> str:
    """Return the path of a shard in the store, by zarr's default key encoding."""
    return "/".join([name, "c", str(index), *["0"] * len(shape)])


def encode_shard(data: np.ndarray, samples_per_shard: int) -> bytes:
    """Return the bytes of the shard that holds `data`, samples first, as zarr itself encodes it."""
    zarr = zarr_package()
    files = {}
    array = zarr.create_array(zarr.storage.MemoryStore(files), config={"write_empty_chunks": True},
                              **array_settings(data.shape[1:], data.dtype, len(data), samples_per_shard))
    array[...] = data
    return files[shard_file("x", data.shape[1:], 0)[2:]].to_bytes()


def write_file(store: Path, name: str, content: bytes) -> str:
    """Write a file of the store so that it appears whole or not at all; return its SHA-256.

    It is written under a name of its own in a hidden folder, brought to the disk, then renamed: a second writer of the
    same file, which a cluster may start when it has lost sight of the first, does no harm.
    """
    target, partial = store / name, store / PARTIAL / secrets.token_hex(8)
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, target)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    return hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> str | None:
    """Return the SHA-256 of a file in hex, or None where there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def record_name(index: int) -> str:
    """Return the path of the record of one finished shard."""
    return f"{RECORDS}/{index:08d}.sha256"


def digest_lines(digests: dict[str, str]) -> bytes:
    """Return the text that `read_digests` reads back."""
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()


def read_digests(path: Path) -> dict[str, str]:
    """Return the digest of each file that a record or manifest names; nothing for one that is absent or damaged."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return {}
    pairs = [line.split("  ", 1) for line in lines]
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2 and len(pair[0]) == 64}


def recorded(store: Path) -> dict[str, str]:
    """Return the digest of every file that is vouched for: those of the manifest, then those of newer records."""
    digests = read_digests(store / MANIFEST)
    for record in sorted((store / RECORDS).glob("*.sha256")):
        digests |= read_digests(record)
    return digests
