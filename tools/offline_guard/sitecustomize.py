"""Python imports this by itself where its folder is on PYTHONPATH: no connection then leaves the machine.

Each attempt is refused and written to the file that OFFLINE_GUARD_LOG names. `lab_e2e.py` starts JupyterLab under it,
whose kernels inherit it.
"""

import ipaddress
import os
import sys


def _is_here(address) -> bool:
    if not isinstance(address, tuple):  # a socket in the file system
        return True
    host = address[0]
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return host in ("", "localhost")


def _guard(event: str, arguments: tuple) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and arguments[1] and not _is_here(arguments[1]):
        with open(os.environ["OFFLINE_GUARD_LOG"], "a", encoding="utf-8") as log:
            log.write(f"{sys.argv[0] or 'python'} -> {arguments[1]}\n")
        raise PermissionError(f"offline: no connection to {arguments[1]}")


if "OFFLINE_GUARD_LOG" in os.environ:
    sys.addaudithook(_guard)
