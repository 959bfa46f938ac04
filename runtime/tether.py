"""`python -m runtime.tether PARENT_PID COMMAND...`: become COMMAND, and die with the parent.

A supervisor killed with SIGKILL cannot stop its children, so the kernel is asked to. A program of its own, since code
between fork and exec (preexec_fn) can hang in a process with threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # it died before the kernel was asked
            sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - becoming the command is the purpose


if __name__ == "__main__":
    main()
