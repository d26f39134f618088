"""`simnet routes`: a box's forwarding table as `ip route` prints it, or its BGP table as FRR does; and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from simnet.cli.boxes import load, named
from simnet.cli.options import instant_options, loaded_instant

if TYPE_CHECKING:
    from simnet.controlplane.bgp.rib import Rib
    from simnet.engine.route_view import NotOriginated
    from simnet.model.fib import Fib


@click.command(name="routes", short_help="Routes of a node or switch, and why.")
@click.argument("file", metavar="FILE")
@click.option("--node", metavar="NODE", help="A node's routes.")
@click.option("--switch", metavar="NAME", help="A switch's routes.")
@click.option("--format", "form", type=click.Choice(["ip", "bgp", "json"]), default="ip", show_default=True)
@click.option("--family", type=click.Choice(["4", "6"]), default="4", show_default=True, help="IPv4 or IPv6.")
@click.option("--local", is_flag=True, help="The box's own addresses (table local) in place of its routes.")
@click.option("--why", is_flag=True, help="Name the rule behind each route, each path not taken, each prefix not told.")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), help="Of random placement: 1; with --at, in place of run.seed."
)
@instant_options
def command(
    file: str, node: str | None, switch: str | None, form: str, family: str, local: bool, why: bool, seed: int | None,
    at: str | None, variant: str | None, point: tuple[str, ...], repeat: int | None,
) -> None:  # fmt: skip
    """Print the routes of one box once BGP has converged, or at an instant of a run.

    FILE is an experiment, a cluster file, or a folder or file of Kubernetes manifests. --format ip: as `ip route`
    prints them; bgp: Network, Next Hop, Metric, LocPrf, Path, best (>) and multipath (=), as FRR's `show ip bgp`; json:
    the routes, and with --why the paths too (docs/models/routing.md). With --at, FILE is an experiment with `events:`.
    """
    from simnet.engine.route_view import NotOriginated, boxes, not_originated, rib
    from simnet.model.fabric import DeviceKind

    if (node is None) == (switch is None):
        raise click.UsageError("give --node NODE or --switch NAME")
    instant = loaded_instant(file, at, variant, point, repeat, seed, skip_unknown=True)
    cluster, spec = (instant.model, instant.spec) if instant else load(file, 1 if seed is None else seed)
    if node is not None:
        device = named(node, "--node", "node", boxes(cluster, DeviceKind.NODE))
    else:
        device = named(switch or "", "--switch", "switch", boxes(cluster, DeviceKind.SWITCH))
    version = int(family)
    fib = cluster.fibs[device]
    kept = list(not_originated(cluster, spec, device, family=version)) if why and node is not None else []
    paths = None
    if (why or form == "bgp") and instant is not None:
        daemon = instant.bgp(device, family=version)
        paths = daemon.rib
        kept = [each for each in kept if each.prefix not in daemon.withdrawn]
        kept += [NotOriginated(prefix, "withdrawn by this time (see events)") for prefix in daemon.withdrawn]
        states = ", ".join(f"{each.peer} {each.state}" for each in daemon.sessions)
        click.echo(f"  bgp of {device} {daemon.condition}; sessions: {states or 'none'}", err=True)
    elif why or form == "bgp":
        paths = rib(cluster, spec, device, family=version)
    if form == "json":
        click.echo(json.dumps(_as_json(fib, paths, kept, version), indent=1, ensure_ascii=False))
        return
    if form == "bgp" and paths is not None:
        from simnet.controlplane.bgp.table_text import bgp_table_lines

        lines = list(bgp_table_lines(paths, family=version, why=why))
    else:
        from simnet.controlplane.route_lines import route_lines

        lines = route_lines(fib, family=version, local=local, why=why)
    if paths is not None and why:
        lines += _sections(paths, kept)
    click.echo("\n".join(lines))


def _sections(rib: Rib, kept: list[NotOriginated]) -> Iterator[str]:
    """Lines that begin with `#`: paths not taken, prefixes not told by and to this box."""
    not_taken = [
        (entry.prefix, path) for entry in rib.entries for path in entry.paths if not (path.is_best or path.is_multipath)
    ]
    if not_taken:
        yield "# paths not taken:"
        for prefix, path in not_taken:
            via = f" next hop {path.path.next_hop}" if path.path.next_hop else ""
            yield f"#   {prefix} from {path.peer or 'itself'}{via}: {path.why}"
    if kept:
        yield "# not told to anyone:"
        yield from (f"#   {each.prefix}: {each.rule}" for each in kept)
    for title, mine in (("not told by this box", True), ("not told to this box", False)):
        lines = [each for each in rib.untold if (each.sender == rib.speaker) == mine]
        if lines:
            yield f"# {title}:"
            others: dict[tuple[str, str], list[str]] = {}
            for each in lines:
                others.setdefault((str(each.prefix), each.rule), []).append(each.receiver if mine else each.sender)
            for (text, rule), names in others.items():
                yield f"#   {text} {'to' if mine else 'by'} {_few(names)}: {rule}"


def _few(names: list[str]) -> str:
    """The names, or the first ones of many and how many more there are."""
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} others"


def _as_json(fib: Fib, rib: Rib | None, kept: list[NotOriginated], family: int) -> dict[str, Any]:
    routes = [
        {
            "prefix": str(route.prefix),
            "type": route.kind.value,
            "nextHops": [{"via": hop.gateway, "dev": hop.interface} for hop in route.next_hops],
            "protocol": route.protocol,
            "metric": route.metric,
            "scope": "link" if route.scope_link else None,
            "source": route.source,
            "why": route.why,
        }
        for route in fib.routes
        if route.prefix.version == family
    ]
    told: dict[str, Any] = {"device": fib.device, "family": family, "routes": routes}
    if rib is not None:
        told["bgp"] = {
            "as": rib.as_number,
            "prefixes": [
                {
                    "prefix": str(entry.prefix),
                    "paths": [
                        {
                            "peer": path.peer or None,
                            "learned": path.path.learned.value if path.is_valid else None,
                            "nextHop": path.path.next_hop or None,
                            "asPath": list(path.path.as_path),
                            "localPref": path.path.local_pref,
                            "med": path.path.med,
                            "valid": path.is_valid,
                            "best": path.is_best,
                            "multipath": path.is_multipath,
                            "stale": path.is_stale,
                            "why": path.why,
                        }
                        for path in entry.paths
                    ],
                }
                for entry in rib.entries
            ],
            "notTold": [
                {"prefix": str(each.prefix), "from": each.sender, "to": each.receiver, "rule": each.rule}
                for each in rib.untold
            ],
            "notOriginated": [{"prefix": str(each.prefix), "rule": each.rule} for each in kept],
        }
    return told
