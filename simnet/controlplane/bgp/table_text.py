"""A speaker's BGP table as text, as FRR and Quagga print it for `show ip bgp`.

Columns and marks are theirs; a path that the speaker refused on receipt is not in the table, as there. Weight is 32768
for a route of the speaker's own and 0 for others.
Source: the FRR user manual, "Displaying BGP Information"; column widths as FRR prints them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from simnet.controlplane.bgp.path import Learned
from simnet.controlplane.bgp.rib import Rib, RibPath

_ORIGIN = "ie?"
_LEGEND = """\
Status codes:  s suppressed, d damped, h history, * valid, > best, = multipath,
               i internal, r RIB-failure, S Stale, R Removed
Origin codes:  i - IGP, e - EGP, ? - incomplete

    Network          Next Hop            Metric LocPrf Weight Path"""


def bgp_table_lines(rib: Rib, *, family: int = 4, why: bool = False) -> Iterator[str]:
    """Yield the lines of the table; `why` adds to each path the clause that decided, and the refused ones below."""
    version = ipaddress.ip_address(rib.router_id) if rib.router_id < 2**32 else ipaddress.IPv6Address(rib.router_id)
    yield f"BGP table version is 0, local router ID is {version}, vrf id 0"
    yield f"Default local pref 100, local AS {rib.as_number}"
    yield from _LEGEND.splitlines()
    total = prefixes = 0
    for entry in rib.entries:
        shown = [path for path in entry.paths if path.is_valid]
        name = str(entry.prefix)
        prefixes += bool(shown)
        for path in shown:
            total += 1
            marks = f" {'S' if path.is_stale else '*'}{'>' if path.is_best else '=' if path.is_multipath else ' '}"
            marks += "i" if path.path.learned is Learned.INTERNAL else " "
            lines = _row(marks, name, path, family)
            name = ""  # told once
            yield from lines[:-1]
            yield f"{lines[-1]}  # {path.why}" if why else lines[-1]
    yield ""
    yield f"Displayed  {prefixes} routes and {total} total paths"


def _row(marks: str, name: str, row: RibPath, family: int) -> list[str]:
    path, lines = row.path, []
    head = f"{marks}{name}"
    if len(name) >= 17:
        lines.append(head)
        head = " " * 20
    head = head.ljust(21 if not lines else 20)
    next_hop = path.next_hop or ("0.0.0.0" if family == 4 else "::")
    if len(next_hop) >= 16:
        lines.append(head + next_hop)
        head = " " * 36
        next_hop = ""
    local_pref = path.local_pref if path.learned is Learned.INTERNAL else None
    med = 0 if path.learned is Learned.LOCAL else path.med
    text = f"{head}{next_hop.ljust(16) if next_hop else ''}"
    text += f"{'' if med is None else med:>10}{'' if local_pref is None else local_pref:>7}"
    text += f"{32768 if path.learned is Learned.LOCAL else 0:>7} "
    text += " ".join([*map(str, path.as_path), _ORIGIN[path.origin]])
    return [*lines, text]
