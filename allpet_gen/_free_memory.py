"""How much memory is free: on a GPU, in this machine, in this container."""

import contextlib
from pathlib import Path

import torch

from allpet_physics._memory import physical_memory


def available_memory(device="cpu") -> int:
    """Return the bytes that can still be allocated on a GPU, or in this machine's or container's memory."""
    device = torch.device(device)
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return int(min(physical_memory(), _host_available(), _container_available()))


def _host_available() -> float:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return float("inf")


def _container_available(folder="/sys/fs/cgroup") -> float:
    """Return what the limit of a container leaves; pages of files that can be dropped count as free."""
    with contextlib.suppress(OSError, ValueError):
        limit, used = (int((Path(folder) / name).read_text(encoding="ascii")) for name in ("memory.max",
                                                                                           "memory.current"))
        stat = (Path(folder) / "memory.stat").read_text(encoding="ascii").split()
        files = int(stat[stat.index("inactive_file") + 1])
        return float(limit - used + files)
    return float("inf")
