"""NVIDIA cards that the driver sees, whatever torch was built for. Asked through NVML, the driver's own library."""

from __future__ import annotations

import ctypes
import sys


def seen_by_driver() -> list[str]:
    """Names of the cards; empty where there is no driver."""
    library = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
    try:
        nvml = ctypes.CDLL(library)
        if nvml.nvmlInit_v2() != 0:
            return []
    except (OSError, AttributeError):
        return []
    try:
        count = ctypes.c_uint()
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return []
        return [_name(nvml, index) for index in range(count.value)]
    finally:
        nvml.nvmlShutdown()


def _name(nvml: ctypes.CDLL, index: int) -> str:
    handle, text = ctypes.c_void_p(), ctypes.create_string_buffer(96)
    if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) == 0:
        nvml.nvmlDeviceGetName(handle, text, len(text))
    return text.value.decode(errors="replace") or f"card {index}"
