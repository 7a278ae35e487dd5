"""Where Wine 8 falls short of Windows, for Python programs under test: every python.exe of the folder begins with this.

Each was seen with a program of a few lines, without ganguard.
"""

import _winapi
import ctypes
import errno
import msvcrt
import os
import signal
import threading
from pathlib import Path

KERNEL = ctypes.WinDLL("kernel32", use_last_error=True)
CTRL_C, CTRL_BREAK, CTRL_CLOSE = 0, 1, 2
STATUS_CONTROL_C_EXIT = 0xC000013A
CLOSING_S = 5  # what Windows gives the handlers of a closed window

# shutil.copy2 does without CopyFile2, which Wine has not.
vars(_winapi).pop("CopyFile2", None)


def _locking(*arguments, own=msvcrt.locking):
    """No errno is set where another process holds the region; Windows: EACCES."""
    try:
        return own(*arguments)
    except OSError as error:
        if error.errno == 0:
            raise PermissionError(errno.EACCES, "Permission denied") from None
        raise


def _getppid():
    """Python's own needs PssCaptureSnapshot, which Wine has not; torch's data workers ask for their parent."""
    values = (ctypes.c_void_p * 6)()  # PROCESS_BASIC_INFORMATION
    ctypes.windll.ntdll.NtQueryInformationProcess(ctypes.c_void_p(-1), 0, values, ctypes.sizeof(values), None)
    return values[5] or 0


def _utime(path, *arguments, own=os.utime, **more):
    """Wine refuses to set the times of a read-only file."""
    try:
        own(path, *arguments, **more)
    except PermissionError:
        mode = Path(path).stat().st_mode
        Path(path).chmod(0o666)
        try:
            own(path, *arguments, **more)
        finally:
            Path(path).chmod(mode)


# GenerateConsoleCtrlEvent knows CTRL_C_EVENT alone. The others arrive by a named event of the process they are for.


def _kill(pid, number, own=os.kill):
    if number == signal.CTRL_BREAK_EVENT:
        press(pid, "break")
    else:
        own(pid, number)


def press(pid, key):
    """Ctrl+Break in another process's console (``break``), or its window closed (``close``)."""
    KERNEL.OpenEventW.restype = ctypes.c_void_p
    event = KERNEL.OpenEventW(2, False, f"ctrl-{key}-{pid}")  # EVENT_MODIFY_STATE
    if not event or not KERNEL.SetEvent(ctypes.c_void_p(event)):
        raise ctypes.WinError(ctypes.get_last_error())
    KERNEL.CloseHandle(ctypes.c_void_p(event))


@ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_uint)
def _as_the_c_library(event):
    """Windows' C library makes SIGBREAK of every event but Ctrl+C; Wine's makes nothing of them."""
    if event == CTRL_C or (action := signal.getsignal(signal.SIGBREAK)) is signal.SIG_DFL:
        return False
    if action is not signal.SIG_IGN:
        getattr(ctypes.CDLL("ucrtbase"), "raise")(signal.SIGBREAK)
    return True


@ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_uint)
def _as_the_system(event):
    """The last handler: it ends the process. Wine's own would end it with 0."""
    return event != CTRL_C and _end()


def _end():
    KERNEL.TerminateProcess(ctypes.c_void_p(-1), STATUS_CONTROL_C_EXIT)


def _deliver(event):
    """The first of a process group ignores every event under Wine; on Windows, Ctrl+C alone."""
    peb = ctypes.windll.ntdll.RtlGetCurrentPeb
    peb.restype = ctypes.c_void_p
    parameters = ctypes.c_void_p.from_address(peb() + 0x20).value
    console_flags = ctypes.c_uint.from_address(parameters + 0x18)  # 1: Ctrl+C is ignored
    before, console_flags.value = console_flags.value, 0
    KERNEL.CtrlRoutine(ctypes.c_void_p(event))
    console_flags.value = before


def _listen():
    KERNEL.CreateEventW.restype = ctypes.c_void_p
    keys = {"break": CTRL_BREAK, "close": CTRL_CLOSE}
    events = [KERNEL.CreateEventW(None, False, False, f"ctrl-{key}-{os.getpid()}") for key in keys]
    handles = (ctypes.c_void_p * len(events))(*events)
    for handler in (_as_the_system, _as_the_c_library):  # the last one registered is asked first
        KERNEL.SetConsoleCtrlHandler(handler, True)

    def wait():
        while True:
            event = list(keys.values())[KERNEL.WaitForMultipleObjects(len(handles), handles, False, 0xFFFFFFFF)]
            routine = threading.Thread(target=_deliver, args=[event], daemon=True)
            routine.start()  # a thread for each event, as on Windows
            if event == CTRL_CLOSE:
                routine.join(CLOSING_S)
                _end()

    threading.Thread(target=wait, daemon=True, name="wine-ctrl").start()


msvcrt.locking = _locking
os.getppid = _getppid
os.kill = _kill
os.utime = _utime
_listen()
