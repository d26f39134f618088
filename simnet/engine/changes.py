"""A history of tables compiled for the data plane: every later rule set is one more host of the program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from simnet.dataplane.path.clock import Changes, target_key
from simnet.dataplane.path.wires import Wires
from simnet.dataplane.versions import versions_of
from simnet.model.addresses import AddressTable
from simnet.model.cluster import Cluster
from simnet.model.history import TableHistory
from simnet.model.iptables.ruleset import Dnat, Family, Ruleset

FAMILIES = (Family.IPV4, Family.IPV6)
Target = tuple[str, int]  # address, port


def later_rulesets(
    history: TableHistory, first_number: int, prepared: Callable[[Ruleset], Ruleset]
) -> tuple[list[Ruleset], list[tuple[int, str, Family, int]]]:
    """Return the rule sets that come into force later, as the program takes them, and (time, node, family, number)."""
    rulesets: list[Ruleset] = []
    changes: list[tuple[int, str, Family, int]] = []
    numbers: dict[int, int] = {}  # id of a rule set: one that nodes share, or come back to, is compiled once
    for change in history.rules:
        for ruleset in change.rulesets:
            number = numbers.setdefault(id(ruleset), first_number + len(rulesets))
            if number == first_number + len(rulesets):
                rulesets.append(prepared(ruleset))
            changes.append((change.time_ps, change.node, ruleset.family, number))
    return rulesets, changes


def compile_changes(
    cluster: Cluster,
    history: TableHistory,
    hosts: Mapping[tuple[str, Family], int],
    rules: list[tuple[int, str, Family, int]],
    rulesets: list[Ruleset],
    addresses: AddressTable,
    wires: Wires,
    place_names: Sequence[str],
) -> Changes:
    """Return everything that changes but the FIBs. `rules` and `rulesets` as the program has them."""
    fabric = cluster.fabric
    device_id = {device.name: number for number, device in enumerate(fabric.devices)}
    at_start = [hosts.get((device.name, family), -1) for device in fabric.devices for family in FAMILIES]
    sender = [device_id.get(name, -1) for link in fabric.links for name in (link.a, link.b)]
    start, keys = _changing_targets(history, hosts, rules, rulesets, addresses, device_id)
    place = {name: number for number, name in enumerate(place_names)}
    ordered = sorted(keys)
    position = {key: number for number, key in enumerate(ordered)}
    return Changes(
        hosts=versions_of(
            at_start,
            [
                (time_ps, 2 * device_id[node] + FAMILIES.index(family), number)
                for time_ps, node, family, number in rules
            ],
        ),
        links=versions_of([1] * len(fabric.links), [(c.time_ps, c.link, int(c.carries)) for c in history.links]),
        devices=versions_of(
            [1] * len(fabric.devices), [(c.time_ps, device_id[c.device], int(c.works)) for c in history.devices]
        ),
        pods=versions_of(
            [1] * len(place_names), [(c.time_ps, place[c.pod], int(c.runs)) for c in history.pods if c.pod in place]
        ),
        targets=versions_of(
            [int(start[key]) for key in ordered],
            [(time_ps, position[key], int(held)) for key in ordered for time_ps, held in keys[key].items()],
        ),
        target_key=np.array(ordered, dtype=np.int64),
        sender=np.array(sender, dtype=np.int32),
        wires=wires,
    )


def _changing_targets(
    history: TableHistory,
    hosts: Mapping[tuple[str, Family], int],
    rules: list[tuple[int, str, Family, int]],
    rulesets: list[Ruleset],
    addresses: AddressTable,
    device_id: Mapping[str, int],
) -> tuple[dict[int, bool], dict[int, dict[int, bool]]]:
    """Return which endpoints (`target_key`) a node leads to at some times only: at the start, and from times on."""
    by_node: dict[tuple[str, Family], list[tuple[int, int]]] = {}
    for time_ps, node, family, number in rules:
        by_node.setdefault((node, family), []).append((time_ps, number))
    kept = {(change.node, change.time_ps): change.kept for change in history.rules}
    named: dict[int, frozenset[Target]] = {}  # by id of the rule set

    def targets(number: int) -> frozenset[Target]:
        ruleset = rulesets[number]
        if id(ruleset) not in named:
            named[id(ruleset)] = _targets(ruleset)
        return named[id(ruleset)]

    start: dict[int, bool] = {}
    keys: dict[int, dict[int, bool]] = {}
    for (node, family), versions in by_node.items():
        now: frozenset[Target] = targets(hosts[node, family]) if (node, family) in hosts else frozenset()
        mine = {
            time_ps: targets(number)
            | {each for each in kept[node, time_ps] if (":" in each[0]) == (family is Family.IPV6)}
            for time_ps, number in sorted(versions)
        }
        for address, port in now.union(*mine.values()) - now.intersection(*mine.values()):
            row = np.array([device_id[node]]), np.array([addresses.intern(address)]), np.array([port])
            key = int(target_key(*row)[0])
            start[key] = (address, port) in now
            keys[key] = {time_ps: (address, port) in held for time_ps, held in mine.items()}
    return start, keys


def _targets(ruleset: Ruleset) -> frozenset[Target]:
    """The endpoints that a rule set translates to."""
    table = ruleset.tables.get("nat")
    return frozenset(
        (rule.target.address, rule.target.ports[0])
        for chain in (table.chains.values() if table else ())
        for rule in chain.rules
        if isinstance(rule.target, Dnat) and rule.target.address and rule.target.ports
    )
