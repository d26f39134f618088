"""Network namespaces, the wires between them and the daemons in them; leaving the context removes all of it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType


class Namespaces:
    """Namespaces by the names of boxes. Only what was made here is ended and removed, by its own id and name."""

    def __init__(self) -> None:
        self._prefix = f"simnet{os.getpid()}-"
        self._made: list[str] = []
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="simnet-bird-")
        self.folder = Path(self._folder.name)

    def __enter__(self) -> Namespaces:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for daemon in self._daemons:
            daemon.kill()
        for daemon in self._daemons:
            daemon.wait()
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        self._folder.cleanup()

    def name(self, box: str) -> str:
        """The namespace's own name."""
        return self._prefix + box

    def add(self, box: str) -> None:
        """Make a box that forwards IPv4 and speaks no IPv6."""
        self._made.append(self.name(box))
        _run(["ip", "netns", "add", self.name(box)])
        self.run(
            box, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1",
            "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0",
        )  # fmt: skip
        self.ip(box, ["link set lo up"])

    def wire(self, ends: list[tuple[str, str, str, str]]) -> None:
        """Lay veth pairs: (box, interface, box, interface)."""
        lines = [
            f"link add {ia} netns {self.name(a)} type veth peer name {ib} netns {self.name(b)}" for a, ia, b, ib in ends
        ]
        _run(["ip", "-batch", "-"], "\n".join(lines))

    def ip(self, box: str, lines: list[str]) -> None:
        """Run lines of `ip` in a box."""
        _run(["ip", "-n", self.name(box), "-batch", "-"], "\n".join(lines) + "\n")

    def run(self, box: str, *words: str) -> str:
        """Run a command in a box and return what it printed."""
        return _run(["ip", "netns", "exec", self.name(box), *words])

    def routes(self, box: str) -> str:
        """The text of `ip route` in a box."""
        return _run(["ip", "-n", self.name(box), "-4", "route", "show"])

    def start_bird(self, box: str, configuration: str, *, recovers: bool = False) -> subprocess.Popen[bytes]:
        """Start a BIRD in a box; `recovers`: as calico/node starts it, ready for a graceful restart (-R)."""
        file = self.folder / f"{box}.conf"
        file.write_text(configuration)
        _run(["bird", "-p", "-c", str(file)])  # a mistake in a configuration is told here
        # `ip netns exec` becomes the daemon, so its id is the daemon's
        argv = ["ip", "netns", "exec", self.name(box), "bird", "-f", "-c", str(file), "-s", str(self._socket(box))]
        log = (self.folder / f"{box}.log").open("ab")
        self._daemons.append(subprocess.Popen([*argv, "-R"] if recovers else argv, stdout=log, stderr=log))
        return self._daemons[-1]

    def monitor_routes(self, box: str) -> Path:
        """Write down every change of a box's routes from now on, each with its time; return the file."""
        file = self.folder / f"{box}.routes"
        argv = ["ip", "-n", self.name(box), "-tshort", "-4", "monitor", "route"]
        self._daemons.append(subprocess.Popen(argv, stdout=file.open("wb"), stderr=subprocess.DEVNULL))
        return file

    def birdc(self, box: str, *words: str) -> str:
        """Ask a box's BIRD; empty while it does not answer yet."""
        argv = ["birdc", "-s", str(self._socket(box)), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

    def _socket(self, box: str) -> Path:
        return self.folder / f"{box}.ctl"


def _run(argv: list[str], text: str | None = None) -> str:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}\n{text or ''}")
    return done.stdout
