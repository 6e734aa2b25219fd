"""How many cores this process may use, which a container or a scheduler may set."""

import os


def usable() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1
