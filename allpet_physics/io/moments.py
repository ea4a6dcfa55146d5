"""Dates and times with their time zones, as headers and callers write them.

Dates and times of a header are local time where the scanner stands, which TimezoneOffsetFromUTC (0008,0201) may place;
a DT element, or a time that the caller gives, may state a zone of its own. Two times are compared only when both have
a zone or neither has.
"""

import re
from datetime import datetime, timedelta, timezone, tzinfo

from allpet_physics.errors import MetadataError
from allpet_physics.io.dicom_header import same_in_all, text


def parse_moment(value: str) -> datetime:
    """Read a DICOM DT (``YYYYMMDDHHMMSS.FFFFFF&ZZXX``), with its time zone where it has one.

    Raises
    ------
    ValueError
        Not a date with a time of at least hours and minutes.
    """
    match = re.fullmatch(r"(\d{4})[.-]?(\d\d)[.-]?(\d\d)[T ]?(\d\d):?(\d\d)"
                         r"(?::?(\d\d))?(?:\.(\d{1,6}))?\d*([+-]\d{4})?", value.strip())
    if match is None:
        raise ValueError(value)
    *whole, fraction, offset = match.groups()
    seconds = min(int(whole[5] or 0), 59)  # 60 is a leap second, which datetime refuses
    return datetime(*(int(part) for part in whole[:5]), seconds, int((fraction or "0").ljust(6, "0")),
                    None if offset is None else _zone(offset))


def _zone(offset: str) -> timezone:
    """Return the zone of ``&ZZXX``; ValueError when it is none."""
    if not re.fullmatch(r"[+-]\d{4}", offset):
        raise ValueError(offset)
    minutes = int(offset[1:3]) * 60 + int(offset[3:])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))


def zone_of(slices) -> tzinfo | None:
    """Return TimezoneOffsetFromUTC (0008,0201), the zone of a header's dates and times; None when it states none."""
    stated = same_in_all("TimezoneOffsetFromUTC (0008,0201)", [text(s, "TimezoneOffsetFromUTC") for s in slices])
    try:
        return _zone(stated.split("\\")[0])
    except ValueError:
        return None


def located(moment: datetime, zone: tzinfo | None) -> datetime:
    """Return `moment` with the header's zone where it has none of its own."""
    return moment.replace(tzinfo=zone) if moment.tzinfo is None and zone is not None else moment


def check_zones(**moments: datetime) -> None:
    """Raise MetadataError when some moments have a time zone and others do not."""
    with_zone = [name for name, m in moments.items() if m.tzinfo is not None]
    without = [name for name, m in moments.items() if m.tzinfo is None]
    if with_zone and without:
        raise MetadataError(f"{' and '.join(with_zone)} must be without a time zone where {' and '.join(without)} has "
                            "none and the header no TimezoneOffsetFromUTC (0008,0201), but was with one; pass "
                            "injection_time and scan_time as local times without zone, or both with one.")


def as_moment(name: str, value) -> datetime:
    """Return `value`, a datetime or an ISO 8601 string of date and time, with its time zone where it has one."""
    try:
        if isinstance(value, datetime):
            return value
        if len(value) <= len("2025-01-31"):  # a date alone would mean midnight
            raise ValueError(value)
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise MetadataError(f'{name} must be a datetime or a string like "2025-01-31T10:15:00", '
                            f"but was {value!r}.") from None
