"""Memory that a step frees stays with the process, for the next step."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Names of <malloc.h>."""


def keep_freed_memory() -> None:
    """Where malloc is glibc's, large tensors no longer come from and go back to the kernel, page by page and cleared,
    at every step. The process keeps what it needed at most until it ends. Elsewhere nothing happens."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # no such library, no such name for it, no such function
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 64 * 2**20)
