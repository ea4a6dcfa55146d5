"""The text of an Interfile header and the raw numbers it points to: shared by sinograms and images."""

import contextlib
import os
import re
import secrets
from pathlib import Path

import numpy as np

from allpet_physics._arrays import as_positive_int
from allpet_physics.errors import InputError, MetadataError

#: (number format, bytes per pixel) to NumPy's kind and size.
_FORMATS = {("float", 4): "f4", ("float", 8): "f8", ("short float", 4): "f4", ("long float", 8): "f8",
            **{("signed integer", n): f"i{n}" for n in (1, 2, 4)},
            **{("unsigned integer", n): f"u{n}" for n in (1, 2, 4)}}
_ORDERS = {"littleendian": "<", "bigendian": ">"}


class Header(dict):
    """Keys and values of one header, both text; keys are lower case without ``!`` and with single blanks.

    An index is part of the key: ``"matrix size[1]"``. A key given twice keeps its last value, as in STIR.
    """

    def __init__(self, path):
        super().__init__()
        self.path = Path(path)

    def text(self, key: str, default: str | None = None) -> str:
        """Return the value of `key`, or `default`, or raise MetadataError."""
        value = self.get(key, "")
        if value:
            return value
        if default is None:
            raise MetadataError(f"{self.path.name} must have the key {key!r}, but does not; add it to the header.")
        return default

    def numbers(self, key: str, default: list[float] | None = None) -> list[float]:
        """Return the numbers of a scalar or of a list ``{ 5, 4,4 }``."""
        value = self.get(key, "")
        if not value and default is not None:
            return default
        parts = [p for p in re.split(r"[\s,]+", self.text(key).strip("{} \t")) if p]
        try:
            values = [float(p) for p in parts]
        except ValueError:
            values = []
        if not values or not np.isfinite(values).all():
            raise MetadataError(f"{key!r} in {self.path.name} must be one number or a list {{ a, b, c }}, "
                                f"but was {value!r}.")
        return values

    def number(self, key: str, default: float | None = None) -> float:
        """Return one number."""
        values = self.numbers(key, None if default is None else [default])
        if len(values) != 1:
            raise MetadataError(f"{key!r} in {self.path.name} must be one number, but was {self[key]!r}.")
        return values[0]

    def integers(self, key: str, default: list[int] | None = None, *, minimum: int | None = 1) -> list[int]:
        """Return whole numbers of at least `minimum`."""
        values = self.numbers(key, default)
        if any(v != int(v) or (minimum is not None and v < minimum) for v in values):
            bound = "" if minimum is None else f" of at least {minimum}"
            raise MetadataError(f"{key!r} in {self.path.name} must hold whole numbers{bound}, but was {self[key]!r}.")
        return [int(v) for v in values]

    def integer(self, key: str, default: int | None = None, *, minimum: int | None = 1) -> int:
        """Return one whole number of at least `minimum`."""
        self.number(key, default)
        return self.integers(key, None if default is None else [default], minimum=minimum)[0]


def read_header(path) -> Header:
    """Parse the lines ``key := value`` of an Interfile header; ``;`` starts a comment line."""
    header = Header(path)
    if not header.path.is_file():
        raise InputError(f"path must be an Interfile header, but {str(path)!r} is not a file.")
    text = header.path.read_bytes()[:2**20].decode("utf-8", errors="replace")
    if not re.match(r"\s*(;[^\n]*\n\s*)*!?\s*interfile\s*:=", text, re.IGNORECASE):
        raise InputError(f"{header.path.name} must be an Interfile header, which starts with '!INTERFILE :='; give the "
                         "header (.hs or .hv), not the data file.")
    for line in text.splitlines():
        key, sign, value = line.partition(":=")
        if sign and not key.lstrip().startswith(";"):
            key = re.sub(r"[\s_!]+", " ", key).strip().lower()
            key = re.sub(r"\s*\[\s*(\d+)\s*\]$", r"[\1]", key)
            if key == "end of interfile":
                break
            header[key] = value.strip()
    return header


def read_numbers(header: Header, count: int, *, frame: int = 1, skip: int = 0) -> np.ndarray:
    """Return `count` stored numbers of one time frame, in native byte order, unscaled, shape (count,).

    `skip` numbers after the frame's start are passed over. Raises InputError for a missing or short data file and
    MetadataError for a number format that is not supported or not stated.
    """
    size = header.integer("number of bytes per pixel")
    kind = header.text("number format").lower()
    if (kind, size) not in _FORMATS:
        raise MetadataError(f"'number format' in {header.path.name} must be float (4 or 8 bytes) or signed or unsigned "
                            f"integer (1, 2 or 4 bytes), but was {kind!r} of {size} bytes.")
    order = header.text("imagedata byte order", "BIGENDIAN").lower()  # Interfile's default
    if order not in _ORDERS:
        raise MetadataError(f"'imagedata byte order' in {header.path.name} must be LITTLEENDIAN or BIGENDIAN, "
                            f"but was {order!r}.")
    offset = _data_offset(header, frame) + skip * size
    path = header.path.parent / header.text("name of data file")
    if not path.is_file():
        raise InputError(f"the data file {path.name!r} that {header.path.name} names is not in {str(path.parent)!r}; "
                         "put both files in one folder, or correct 'name of data file'.")
    needed, found = offset + count * size, path.stat().st_size
    if found < needed:
        raise InputError(f"{path.name} must hold at least {needed} bytes ({count} numbers of {size} bytes from byte "
                         f"{offset} on, by {header.path.name}), but holds {found}: it is cut short or another file's.")
    stored = np.dtype(_ORDERS[order] + _FORMATS[kind, size])
    return np.fromfile(path, dtype=stored, count=count, offset=offset).astype(stored.newbyteorder("="), copy=False)


def scale_factors(header: Header, frame: int, n_parts: int) -> list[float]:
    """Return the scale of each of the `n_parts` entries of the outermost axis (``image scaling factor[frame]``)."""
    key = f"image scaling factor[{frame}]"
    factors = header.numbers(key, header.numbers("image scaling factor", [1.0]))
    if set(factors) == {1.0}:
        # STIR's rule for the analogue in headers of another reader; elsewhere the key holds the name of a unit
        with contextlib.suppress(MetadataError):
            factors = header.numbers("quantification units", [1.0])
    if len(factors) not in (1, n_parts):
        raise MetadataError(f"{key!r} in {header.path.name} must hold one number or {n_parts}, one for each entry of "
                            f"the outermost axis, but held {len(factors)}.")
    return factors if len(factors) == n_parts else factors * n_parts


def check_data_type(header: Header, wanted: str, accept, other: str) -> None:
    """Raise MetadataError unless the header is of a PET study whose data type `accept` takes."""
    kind = header.text("pet data type", "").lower()
    if header.get("type of data", "PET").lower() != "pet":
        raise MetadataError(f"{header.path.name} must hold {wanted}, but its type of data was "
                            f"{header['type of data']!r}; only PET is supported.")
    if not accept(kind):
        raise MetadataError(f"{header.path.name} must hold {wanted}, but its PET data type was {kind!r}; "
                            f"try {other}.")


def checked_frame(header: Header, frame) -> int:
    """Return `frame` if the header has that many time frames."""
    n_frames = header.integer("number of time frames", 1)
    frame = as_positive_int("frame", frame)
    if frame > n_frames:
        raise InputError(f"frame must be at most {n_frames}, the number of time frames of {header.path.name}, "
                         f"but was {frame}.")
    return frame


def without_patient(header: Header) -> dict[str, str]:
    """Return the keys and values, without those that name a patient."""
    return {k: v for k, v in header.items() if "patient" not in k or k in ("patient orientation", "patient rotation")}


def with_suffix(path, suffix: str) -> Path:
    """Return `path`, which must end in `suffix`."""
    path = Path(path)
    if path.suffix != suffix:
        raise InputError(f"path must end in {suffix}, the header of the pair, but was {str(path)!r}.")
    return path


def write_pair(header_path, data_suffix: str, lines: list[str], data: np.ndarray, *, overwrite: bool) -> None:
    """Write the data file and the header that names it beside their places, then rename the data and the header.

    A failure while writing leaves what was there before; a new header never names data that are not complete.
    `lines` may contain ``{data}`` for the name of the data file.
    """
    header_path = Path(header_path)
    data_path = header_path.with_suffix(data_suffix)
    if not header_path.parent.is_dir():
        raise InputError(f"path must be in an existing folder, but {str(header_path.parent)!r} is not one; create it.")
    for path in (header_path, data_path):
        if path.exists() and not overwrite:
            raise InputError(f"path must not exist yet, but {str(path)!r} does; choose another name or pass "
                             "overwrite=True.")
    text = "\n".join(lines).replace("{data}", data_path.name) + "\n"
    contents = {data_path: np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("<")), header_path: text.encode()}
    temporary = {path: path.with_name(f".{path.name}.{secrets.token_hex(6)}") for path in contents}
    try:
        for path, content in contents.items():
            with open(temporary[path], "xb") as file:
                file.write(content)
        for path in contents:
            os.replace(temporary[path], path)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def _data_offset(header, frame):
    for key in (f"data offset in bytes[{frame}]", "data offset in bytes"):
        if header.get(key):
            return header.integer(key, minimum=0)
    if header.get("data starting block"):
        return 2048 * header.integer("data starting block", minimum=0)  # Interfile 3.3 counts blocks of 2048 bytes
    if frame > 1:
        raise MetadataError(f"{header.path.name} must have 'data offset in bytes[{frame}]' to find frame {frame}, "
                            "but does not.")
    return 0
