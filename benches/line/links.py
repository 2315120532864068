"""The lines between servers and clients: two network namespaces with a shaped pair of interfaces, or proxies instead.

`place()` gives namespaces where this user may make them, and else the loopback with a token bucket in a proxy, which
counts the bytes of the streams without headers. `says` is what the figures say about it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Share of a link's bits that carry data, at 1500 bytes a packet: 1448 of 1526 on a wire, as shaped links count them.
EFFICIENCY = 0.949
PROXY = Path(__file__).with_name("proxy.py")


@dataclass(frozen=True)
class Link:
    """One line: bits a second (None: as fast as the machine is), and the time there and back in seconds."""

    bits: int | None
    round_trip: float = 0.0

    @property
    def name(self) -> str:
        """Return what the figures call it."""
        rate = f"{self.bits // 1_000_000} Mbit/s" if self.bits else "unshaped"
        return f"{rate}, {self.round_trip * 1000:.0f} ms" if self.round_trip else rate

    @property
    def is_slow(self) -> bool:
        """Tell whether the line decides how long a pull takes, not the processor."""
        return self.bits is not None and self.bits <= 100_000_000

    @property
    def bytes_per_second(self) -> float | None:
        """Return what of it data can have."""
        return self.bits / 8 * EFFICIENCY if self.bits else None


class Namespaces:
    """Two network namespaces, joined by a pair of interfaces of which the server's is shaped."""

    host = "10.77.0.1"
    other_source = "10.77.0.3"
    networks = ("10.77.0.0/24",)
    #: What is counted over what the streams carry: 66 bytes of headers on 1448.
    around = 1.046
    #: What clients of lakegate say so that they are served as over a network.
    headers: ClassVar[dict[str, str]] = {}
    says = "network namespaces, a veth pair and tbf on the server's side; bytes are those it sent, headers included"

    def __init__(self) -> None:
        # Names end in the process, so that two runs do not meet.
        self._servers, self._clients = f"lgs{os.getpid()}", f"lgc{os.getpid()}"
        self.server = ["ip", "netns", "exec", self._servers]
        self.client = ["ip", "netns", "exec", self._clients]

    def __enter__(self) -> Namespaces:
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in (self._servers, self._clients):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def _make(self) -> None:
        for name in (self._servers, self._clients):
            run("ip", "netns", "add", name)
        pair = ["type", "veth", "peer", "name", "vc", "netns", self._clients]
        run("ip", "link", "add", "vs", "netns", self._servers, *pair)
        for name, device, *addresses in (
            (self._servers, "vs", self.host),
            (self._clients, "vc", "10.77.0.2", self.other_source),
        ):
            for address in addresses:
                run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", device)
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "-n", name, "link", "set", device, "up")
            self._control(name)
        self.shape(Link(None))

    def _control(self, name: str) -> None:
        """Take cubic where the kernel has it, so that runs compare, else what is the default; says which it is."""
        setting = "/proc/sys/net/ipv4/tcp_congestion_control"
        script = f"(echo cubic > {setting}) 2>/dev/null; cat {setting}"
        control = run("ip", "netns", "exec", name, "sh", "-c", script).strip()
        self.says = f"{Namespaces.says}; TCP by {control}"

    def shape(self, link: Link) -> None:
        """Hold what the servers send to the link's rate; a rate no machine reaches only counts."""
        rate = link.bits or 40_000_000_000
        burst = 32 if rate <= 10_000_000 else 64 if rate <= 100_000_000 else 512 if rate <= 1_000_000_000 else 4096
        shaped = ["tbf", "rate", f"{rate}bit", "burst", f"{burst}kb", "latency", "50ms"]
        run("tc", "-n", self._servers, "qdisc", "replace", "dev", "vs", "root", *shaped)

    def proxied(self, link: Link) -> None:
        """Return None: the interface holds the rate."""

    def sent(self) -> int:
        """Return the bytes the servers' interface sent by now."""
        told = run("tc", "-n", self._servers, "-j", "-s", "qdisc", "show", "dev", "vs")
        return int(json.loads(told)[0]["bytes"])


class Loopback:
    """The loopback, where proxies hold the rate and count."""

    host = "127.0.0.1"
    other_source = "127.0.0.3"
    networks = ("127.0.0.0/8",)
    around = 1.0
    #: On the server's own machine nothing would be compressed.
    headers: ClassVar[dict[str, str]] = {"lakegate-codec": "zstd"}
    says = "no right to make network namespaces: token-bucket proxies on the loopback; bytes are without headers"

    def __init__(self) -> None:
        self.server: list[str] = []
        self.client: list[str] = []

    def __enter__(self) -> Loopback:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def shape(self, link: Link) -> None:
        """Do nothing: each proxy is made for a link."""

    def proxied(self, link: Link) -> float | None:
        """Return the rate that carries as much data as the link would."""
        return link.bits * EFFICIENCY if link.bits else None

    def sent(self) -> None:
        """Return None: proxies count."""


@contextlib.contextmanager
def place() -> Iterator[Namespaces | Loopback]:
    """Give namespaces for the length of the block, or the loopback where they cannot be made."""
    with contextlib.ExitStack() as stack:
        try:
            made: Namespaces | Loopback = stack.enter_context(Namespaces())
        except (OSError, subprocess.CalledProcessError) as problem:
            told = getattr(problem, "stderr", "") or str(problem)
            print(f"no network namespaces: {told.strip()}", file=sys.stderr)
            made = stack.enter_context(Loopback())
        yield made


class Proxied:
    """A proxy's process in front of one server; see `proxy.py`."""

    def __init__(
        self, where: Namespaces | Loopback, link: Link, address: str, *, source: str | None = None, rate: bool = True
    ):
        command = [*where.client, sys.executable, str(PROXY), "--to", address, "--delay", str(link.round_trip / 2)]
        if rate and (bits := where.proxied(link)):
            command += ["--bits", str(bits)]
        if source:
            command += ["--source", source]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.address = self._line().removeprefix("listening on ")

    def count(self) -> int:
        """Return the bytes that came down by now."""
        return int(json.loads(self._ask("count"))["down"])

    def cut(self, after: int) -> None:
        """Cut all connections once so many more bytes have come down."""
        self._ask(f"cut {after}")

    def __enter__(self) -> Proxied:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        self._process.terminate()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def _ask(self, line: str) -> str:
        if self._process.stdin:
            print(line, file=self._process.stdin, flush=True)
        return self._line()

    def _line(self) -> str:
        line = self._process.stdout.readline().strip() if self._process.stdout else ""
        if not line:
            raise SystemExit("the proxy ended")
        return line


@contextlib.contextmanager
def way(where: Namespaces | Loopback, link: Link, address: str) -> Iterator[Way]:
    """Give the way to a server for the length of the block: direct where the line itself does all, else by a proxy."""
    if not link.round_trip and where.sent() is not None:
        yield Way(address, where.sent, None)
        return
    with Proxied(where, link, address) as proxy:
        counted = proxy.count if where.sent() is None else where.sent
        yield Way(proxy.address, counted, proxy)


@dataclass(frozen=True)
class Way:
    """Where a client connects to, what counts the bytes that came to it, and the proxy between, where there is one."""

    address: str
    counted: Callable[[], int]
    proxy: Proxied | None

    def sent(self) -> int:
        """Return the bytes that were sent by now."""
        return self.counted()


def run(*command: str) -> str:
    """Run a command and return what it prints; raises where it fails."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
