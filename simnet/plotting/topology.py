"""The fabric in tiers (clients, switches, nodes, pods) with the traffic on each wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from simnet.analysis.result import Result
from simnet.plotting.spread import at_point, natural
from simnet.plotting.style import COLOURS, figure_style, new_axes, plain, point_text, sweep_point

_MOST_NODES = 24  # drawn; of more, those with the most traffic
_MOST_PODS = 16  # drawn one by one; more are drawn together, a mark a node
_TIERS = ("clients", "spine", "switch", "node", "pod")
_COLOURS = {"clients": "#56B4E9", "spine": "#999999", "switch": "#999999", "node": "#E69F00", "pod": "#009E73"}
_SHAPES = {"clients": "o", "spine": "s", "switch": "s", "node": "s", "pod": "o"}


def topology(
    result: Result, variant: str | None = None, *, at: Mapping[str, object] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw who is wired to whom; width and label of a wire: packets that crossed it, either way, in % of all
    packets.

    A packet that comes back over a wire counts twice on it, so a node that forwards to another one can carry
    more than 100 %. `variant` defaults to the first.
    """
    variant = result.variants[0] if variant is None else variant
    point = sweep_point(result, at)
    fabric = result.topology(variant, **point)
    crossed = _crossings(result, variant, point)
    tier = _tiers(fabric)
    wires = {frozenset((link["a"], link["b"])): 0.0 for link in fabric["links"]}
    for wire in wires:
        wires[wire] = crossed.get(wire, 0.0)
    left_out = _keep_the_busiest(tier, wires)
    _join_pods(fabric, tier, wires)
    places = _places(tier, wires)
    widest = max(sum(1 for t in tier.values() if t == name) for name in _TIERS)
    with figure_style():
        ax = new_axes(width=min(9.0, max(5.2, 0.5 * widest)), height=4.4) if ax is None else ax
        _draw(ax, tier, wires, places, crowded=widest > 10)
        note = f"; {left_out} nodes with less traffic not shown" if left_out else ""
        lines = (f"{plain(variant)}: packets on each wire, % of all packets{note}", point_text(point))
        ax.set_title("\n".join(line for line in lines if line), loc="left")
    return ax


def _crossings(result: Result, variant: str, point: Mapping[str, object]) -> dict[frozenset[str], float]:
    """Packets on a wire, both directions, in percent of all request and reply packets."""
    links = at_point(result.links, point)
    links = links[links["variant"].astype(str) == variant]
    rows = at_point(result.summary, point)
    row = rows[rows["variant"].astype(str) == variant].iloc[0]
    total = float(row["packets_sent"] + row["reply_packets"])
    packets = links.groupby(["a", "b"], observed=True)["packets"].sum()
    crossed: dict[frozenset[str], float] = {}
    ends = zip(packets.index.get_level_values("a"), packets.index.get_level_values("b"), strict=True)
    for (a, b), count in zip(ends, packets.to_numpy(), strict=True):
        wire = frozenset((str(a), str(b)))
        crossed[wire] = crossed.get(wire, 0.0) + (100 * float(count) / total if total else 0.0)
    return crossed


def _tiers(fabric: Mapping[str, Any]) -> dict[str, str]:
    tier = {}
    for device in fabric["devices"]:
        kind = str(device["kind"])
        tier[str(device["name"])] = "spine" if kind == "switch" and device.get("role") == "spine" else kind
    return tier | {str(pod["pod"]): "pod" for pod in fabric["pods"]}


def _keep_the_busiest(tier: dict[str, str], wires: dict[frozenset[str], float]) -> int:
    """Drop the nodes with the least traffic (and their pods) where there are too many to draw; return how
    many.
    """
    traffic = {name: sum(v for w, v in wires.items() if name in w) for name, t in tier.items() if t == "node"}
    dropped = set(sorted(traffic, key=lambda name: (-traffic[name], natural(name)))[_MOST_NODES:])
    orphans = {name for w in wires for name in w if tier.get(name) == "pod" and w & dropped}
    for name in dropped | orphans:
        tier.pop(name, None)
    for wire in [w for w in wires if w & (dropped | orphans)]:
        del wires[wire]
    return len(dropped)


def _join_pods(fabric: Mapping[str, Any], tier: dict[str, str], wires: dict[frozenset[str], float]) -> None:
    pods = [pod for pod in fabric["pods"] if pod["pod"] in tier]
    if len(pods) <= _MOST_PODS:
        return
    by_node: dict[str, list[str]] = {}
    for pod in pods:
        by_node.setdefault(str(pod["node"]), []).append(str(pod["pod"]))
    for node, names in by_node.items():
        joined = f"{len(names)} pod{'s' if len(names) > 1 else ''} on {node}"
        tier[joined] = "pod"
        wires[frozenset((node, joined))] = sum(wires.pop(frozenset((node, name)), 0.0) for name in names)
        for name in names:
            tier.pop(name)


def _places(tier: Mapping[str, str], wires: Mapping[frozenset[str], float]) -> dict[str, tuple[float, float]]:
    """Each device's place: tiers from top to bottom, spread over the width; pods in the order of their
    nodes.
    """
    order: dict[str, float] = {}
    used = [name for name in _TIERS if name in set(tier.values())]
    places = {}
    for level, kind in enumerate(used):
        members = sorted((name for name, t in tier.items() if t == kind), key=natural)
        if kind == "pod":
            parent = {
                n: min((order[o] for w in wires if n in w for o in w - {n} if o in order), default=0.0) for n in members
            }
            members.sort(key=lambda name: (parent[name], natural(name)))
        for position, name in enumerate(members):
            order[name] = (position + 0.5) / len(members)
            places[name] = (order[name], float(len(used) - 1 - level))
    return places


def _draw(
    ax: Axes,
    tier: Mapping[str, str],
    wires: Mapping[frozenset[str], float],
    places: Mapping[str, tuple[float, float]],
    *,
    crowded: bool,
) -> None:
    heaviest = max(wires.values(), default=0.0) or 1.0
    for wire, share in sorted(wires.items(), key=lambda item: sorted(item[0])):
        ends = sorted((places[name] for name in wire if name in places), key=lambda place: -place[1])
        if len(ends) < 2:
            continue
        (x1, y1), (x2, y2) = ends
        ax.plot(
            [x1, x2], [y1, y2], color=COLOURS[0] if share else "#bbbbbb", linewidth=0.8 + 6 * share / heaviest,
            linestyle="-" if share else ":", solid_capstyle="round", zorder=1, alpha=0.85,
        )  # fmt: skip
        along = 0.68  # nearer to the lower end, where wires are apart
        ax.text(
            x1 + along * (x2 - x1), y1 + along * (y2 - y1), _percent(share), ha="center", va="center",
            fontsize=7 if crowded else 8, rotation=90 if crowded else 0, zorder=4,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )  # fmt: skip
    for name, (x, y) in places.items():
        kind = tier[name]
        ax.scatter([x], [y], s=150 if crowded else 260, color=_COLOURS[kind], marker=_SHAPES[kind],
                   edgecolor="black", linewidth=0.6, zorder=3)  # fmt: skip
        _name(ax, name, kind, x, y, crowded=crowded)
    levels = sorted({y for _, y in places.values()})
    ax.set_ylim(min(levels) - (0.95 if crowded else 0.5), max(levels) + 0.45)
    ax.set_xlim(0, 1)
    ax.set_axis_off()


def _name(ax: Axes, name: str, kind: str, x: float, y: float, *, crowded: bool) -> None:
    shown = plain(name.rpartition("/")[2] if kind == "pod" else name)
    below = kind == "pod"
    upright = crowded and kind in ("node", "pod")
    if kind == "node":  # beside the mark: wires leave above and below it
        offset, ha, va = (10, 0), "left", "center"
    else:
        offset, ha, va = (0, -11 if below else 11), "center", "top" if below else "bottom"
    if kind in ("switch", "spine"):
        offset, ha, va = (11, 0), "left", "center"
    ax.annotate(
        shown, (x, y), xytext=offset, textcoords="offset points", ha=ha, va=va, zorder=5,
        fontsize=7 if crowded else 8, rotation=90 if upright else 0,
    )  # fmt: skip


def _percent(share: float) -> str:
    return "0" if share == 0 else f"{share:.0f} %" if share >= 10 else f"{share:.1f} %"
