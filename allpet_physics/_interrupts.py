"""Ctrl-C while the command line is still importing its packages: one sentence and exit code 130."""

import os
import signal
import sys

INTERRUPTED = 130
_SENTENCE = "interrupted; nothing was written."


def stop_at_once() -> None:
    """End the process on Ctrl-C without unwinding, until `unwind`; nothing may have been written by then.

    A KeyboardInterrupt in the middle of an import can come out of it as another exception, or as none. A process that
    was started with Ctrl-C ignored (``nohup``) keeps ignoring it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


def unwind() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, so that temporary files are removed."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(*_) -> None:
    os.write(2, f"error: {_SENTENCE}\n".encode())
    if "--json" in sys.argv:
        os.write(1, f'{{"error": "Interrupted", "message": "{_SENTENCE}", "exit_code": {INTERRUPTED}}}\n'.encode())
    os._exit(INTERRUPTED)
