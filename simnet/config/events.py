"""The `events:` of an experiment file: what happens while traffic runs, once at an instant or at random.

Whether the boxes and wires that they name exist is asked by the engine, which knows the cluster's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from simnet.config.calico_peers import read_filter, read_peer
from simnet.config.documents import FieldPath
from simnet.config.experiment_models import EventModel
from simnet.config.kubernetes_source import Report, Source
from simnet.config.reading import Reading
from simnet.model.events import OF_PEERS, Event, EventKind, RandomFailures

# What is named -> what it may do -> the event
KINDS: dict[str, dict[str, EventKind]] = {
    "node": {"die": EventKind.NODE_DIES, "drain": EventKind.NODE_DRAINED},
    "pod": {"delete": EventKind.POD_DELETED, "unready": EventKind.POD_UNREADY, "ready": EventKind.POD_READY},
    "link": {"down": EventKind.LINK_DOWN, "silent": EventKind.LINK_SILENT},
    "bgp": {
        "stop": EventKind.BGP_STOPS,
        "kill": EventKind.BGP_KILLED,
        "freeze": EventKind.BGP_FREEZES,
        "restart": EventKind.BGP_RESTARTS,
    },
    "peer": {
        "add": EventKind.PEER_ADDED,
        "remove": EventKind.PEER_REMOVED,
        "filter": EventKind.PEER_FILTERED,
    },
    "filter": {"change": EventKind.FILTER_CHANGED},
    "block": {"claim": EventKind.BLOCK_CLAIMED},
}
MOST_FAILURES = 1_000  # on average, of each subject: every one sends BGP to work
PAIRS = ("link", "peer")  # two names each
DELETING = (EventKind.NODE_DRAINED, EventKind.POD_DELETED)


def events_of(
    models: Sequence[EventModel], reading: Reading, duration_ps: int
) -> tuple[tuple[Event, ...], tuple[RandomFailures, ...]]:
    """Return the scripted events in order of time, and the random ones; what is wrong is reported."""
    scripted: list[Event] = []
    random: list[RandomFailures] = []
    for number, model in enumerate(models):
        path: FieldPath = ("events", number)
        what = _named(model, reading, path)
        if what is None:
            continue
        kind = KINDS[what].get(model.do)
        if kind is None:
            known = ", ".join(KINDS[what])
            reading.refuse((*path, "do"), model.do, f"what a {what} may do: {known}", "choose one of those")
            continue
        subjects = _subjects(model, what, reading, path)
        if subjects is None:
            continue
        asked = _of_peers(model, kind, subjects, reading, path)
        if model.every is not None and kind in OF_PEERS:
            reading.refuse((*path, "every"), "at random", "`at`: configuration changes when somebody changes it",
                           "write `at: 10s`")  # fmt: skip
            continue
        for key, value in (("gracePeriod", model.grace_period), ("replacement", model.replacement)):
            if value is not None and kind not in DELETING:
                reading.refuse((*path, key), f"beside do: {model.do}", "drain or delete", "remove it")
        grace_ps, new_ps = model.grace_period, model.replacement
        if (model.at is None) == (model.every is None):
            reading.refuse(path, "both" if model.at is not None else "neither", "one of at, every",
                           "write `at: 10s`, or `every: {mtbf: 60s, mttr: 5s}`")  # fmt: skip
        elif model.every is not None:
            if model.for_ is not None:
                reading.refuse((*path, "for"), "for", "no such key beside `every`", "its `mttr` says how long")
            often = duration_ps // (model.every.mtbf + model.every.mttr)
            if often > MOST_FAILURES:
                found, expected = f"some {often:,} failures of each", f"at most {MOST_FAILURES:,} while the run lasts"
                reading.refuse((*path, "every"), found, expected, "raise mtbf or mttr")
                continue
            where = reading.document.locate(path)
            every = model.every
            random.append(RandomFailures(kind, subjects, every.mtbf, every.mttr, where, grace_ps, new_ps))
        elif not subjects:
            reading.refuse((*path, what), "any", "a name", "`any` goes with `every`")
        else:
            assert model.at is not None
            if model.at >= duration_ps:
                reading.refuse((*path, "at"), "after the end", "a time before run.duration", "let it happen earlier")
            until_ps = None if model.for_ is None else model.at + model.for_
            where = reading.document.locate(path)
            scripted += [
                replace(
                    asked,
                    at_ps=model.at,
                    subject=subject,
                    until_ps=until_ps,
                    name=model.name or "",
                    position=where,
                    grace_period_ps=grace_ps,
                    replacement_ps=new_ps,
                )
                for subject in subjects
            ]
    return tuple(sorted(scripted, key=lambda event: event.at_ps)), tuple(random)


def _of_peers(
    model: EventModel, kind: EventKind, subjects: tuple[tuple[str, ...], ...], reading: Reading, path: FieldPath
) -> Event:
    """An event with what only those of peers and filters have: the spec of a BGPPeer or BGPFilter, names of filters."""
    event = Event(0, kind, ())
    has_name = len(subjects) == 1 and len(subjects[0]) == 1
    needs_spec = kind is EventKind.FILTER_CHANGED or (kind is EventKind.PEER_ADDED and has_name)
    if (model.spec is not None) != needs_spec:
        whose = "BGPFilter" if kind is EventKind.FILTER_CHANGED else "BGPPeer"
        if needs_spec:
            reading.refuse(path, "no spec", f"the spec of the {whose}", "add `spec:`, as the resource has it")
        else:
            reading.refuse((*path, "spec"), f"beside do: {model.do}", "a BGPPeer that is added, a filter", "remove it")
    elif model.spec is not None:
        report = Report(reading.problems, reading.warnings)
        name = subjects[0][0]
        data = {"metadata": {"name": name}, "spec": model.spec}
        if kind is EventKind.FILTER_CHANGED:
            source = Source(reading.document, path, "BGPFilter", reading.document.locate(path), data, report)
            return replace(event, filter=read_filter(source, name, ()))
        source = Source(reading.document, path, "BGPPeer", reading.document.locate(path), data, report)
        return replace(event, peer=read_peer(source, name, ()))
    if (model.filters is not None) != (kind is EventKind.PEER_FILTERED):
        if model.filters is None:
            reading.refuse(path, "no filters", "the names of BGPFilters", "add `filters: [NAME]`, or `filters: []`")
        else:
            reading.refuse((*path, "filters"), f"beside do: {model.do}", "do: filter", "remove it")
    return replace(event, filter_names=tuple(model.filters or ()))


def _named(model: EventModel, reading: Reading, path: FieldPath) -> str | None:
    named = [what for what in KINDS if getattr(model, what) is not None]
    if "block" in named and "node" in named:
        named.remove("node")  # a block is claimed by a node
    if len(named) != 1:
        reading.refuse(
            path, " and ".join(named) or "nothing that it happens to",
            "one of node, pod, link, bgp, peer, filter, block", "say to what it happens, for example `node: node-2`",
        )  # fmt: skip
        return None
    return named[0]


def _subjects(model: EventModel, what: str, reading: Reading, path: FieldPath) -> tuple[tuple[str, ...], ...] | None:
    """What it happens to, one after the other; empty: all there are."""
    value: Any = getattr(model, what)
    if what == "block":
        if not isinstance(model.node, str):
            reading.refuse(path, "no node", "the node that claims the block", "add `node: NAME`")
            return None
        return ((model.node, value),)
    if value == "any":
        return ()
    if what == "filter" or (what == "peer" and isinstance(value, str)):
        return ((value,),)
    if what in PAIRS:
        if not isinstance(value, list) or len(value) != 2:
            reading.refuse((*path, what), str(value), "two names", f"for example {what}: [tor, node-2]")
            return None
        return ((str(value[0]), str(value[1])),)
    names = [value] if isinstance(value, str) else value
    if what == "pod":
        names = [name if "/" in name else f"default/{name}" for name in names]
    return tuple((name,) for name in names)
