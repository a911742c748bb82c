"""Network namespaces of a test's own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.support.command import Result, run


class NetworkNamespace:
    """A new network namespace, which lasts as long as the process that it was made for.

    Attributes:
        pid: of that process, a child of this one.
        path: of the namespace.
    """

    def __init__(self) -> None:
        self.process = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self.process.pid
        self.path = Path(f"/proc/{self.pid}/ns/net")
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # what comes back went through `cat`, so it is there
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        self.process.stdout.read(1)

    def __enter__(self) -> NetworkNamespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=10)

    def command(self, *argv: str | Path) -> list[str]:
        """The command line that runs another one in here."""
        return ["nsenter", f"--net={self.path}", *map(str, argv)]

    def run(self, *argv: str | Path) -> Result:
        """Runs a command in here."""
        __tracebackhide__ = True
        return run(*self.command(*argv))

    def ip(self, *words: str) -> None:
        """Runs `ip`, which has to succeed."""
        __tracebackhide__ = True
        self.run("ip", *words).ok()

    def links(self) -> dict[str, dict[str, Any]]:
        """Every interface by its name: index, up, mtu, txqlen, mac, master, and its addresses of global scope."""
        __tracebackhide__ = True
        return as_links(self.run("ip", "-json", "-details", "address", "show").text)

    def routes(self) -> list[dict[str, Any]]:
        """The default routes of both families."""
        __tracebackhide__ = True
        return [
            route
            for family in ("-4", "-6")
            for route in json.loads(self.run("ip", family, "-json", "route", "show", "default").text)
        ]


def as_links(text: str) -> dict[str, dict[str, Any]]:
    """What `ip -json -details address` printed, cut down to what tests ask for."""
    return {
        link["ifname"]: {
            "index": link["ifindex"],
            "up": "UP" in link["flags"],
            "mtu": link["mtu"],
            "txqlen": link.get("txqlen"),
            "mac": link.get("address"),
            "master": link.get("master"),
            "hairpin": link.get("linkinfo", {}).get("info_slave_data", {}).get("hairpin"),
            "addresses": sorted(
                f"{entry['local']}/{entry['prefixlen']}"
                for entry in link["addr_info"]
                if entry.get("scope") == "global"
            ),
        }
        for link in json.loads(text)
        if link
    }


def own_links() -> dict[str, dict[str, Any]]:
    """The interfaces of the namespace that this process is in."""
    return as_links(run("ip", "-json", "-details", "address", "show").text)


def own_namespace() -> str:
    """The inode of the network namespace that this process is in."""
    return os.readlink("/proc/self/ns/net")
