"""Events that come by themselves, and whether those that a file names exist: what takes the cluster to know.

Modelled: exponential times to failure and to repair, each subject by itself, up again at the start of the run.
Source: docs/models/events.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from simnet import exact_math, random_streams
from simnet.errors import Problem, unknown_name
from simnet.model.calico import CalicoSettings
from simnet.model.cluster import Cluster
from simnet.model.events import OF_PEERS, OF_PODS, Event, EventKind, RandomFailures
from simnet.model.fabric import DeviceKind, Fabric

LINKS = (EventKind.LINK_DOWN, EventKind.LINK_SILENT)


def random_events(
    failures: Sequence[RandomFailures], cluster: Cluster, duration_ps: int, seed: int
) -> tuple[Event, ...]:
    """Return the failures of a run in order of time: a function of the seed and each subject's place alone."""
    found: list[Event] = []
    for kind_number, each in enumerate(failures):
        subjects = each.subjects or tuple(_all(cluster, each.kind))
        for number, subject in enumerate(subjects):
            found += _of_subject(each, subject, seed, np.uint64(kind_number * 2**32 + number), duration_ps)
    return tuple(sorted(found, key=lambda event: event.at_ps))


def _of_subject(
    failures: RandomFailures, subject: tuple[str, ...], seed: int, stream: np.uint64, duration_ps: int
) -> Iterator[Event]:
    now_ps = 0
    for draw in itertools.count():
        up_ps = _exponential(seed, "events/failure", stream, draw, failures.mean_time_between_failures_ps)
        down_ps = _exponential(seed, "events/repair", stream, draw, failures.mean_time_to_repair_ps)
        now_ps += up_ps
        if now_ps >= duration_ps:
            return
        yield Event(
            now_ps, failures.kind, subject, now_ps + down_ps, position=failures.position, at_random=True,
            grace_period_ps=failures.grace_period_ps, replacement_ps=failures.replacement_ps,
        )  # fmt: skip
        now_ps += down_ps


def _exponential(seed: int, purpose: str, stream: np.uint64, draw: int, mean_ps: int) -> int:
    bits = random_streams.bits(seed, purpose, np.array([stream], np.uint64), draw)
    drawn = -exact_math.log(random_streams.open_unit_interval(bits))
    return max(1, int(float(drawn[0]) * mean_ps))


def _all(cluster: Cluster, kind: EventKind) -> Iterator[tuple[str, ...]]:
    devices = {device.name for device in cluster.fabric.devices if device.kind is not DeviceKind.CLIENTS}
    if kind in OF_PODS:
        yield from ((pod.key,) for pod in cluster.pods if pod.is_evictable and pod.ready)
    elif kind in LINKS:
        yield from ((link.a, link.b) for link in cluster.fabric.links if {link.a, link.b} <= devices)
    else:
        yield from ((node.name,) for node in cluster.nodes)


def unknown_subjects(
    fabric: Fabric, pods: Sequence[str], calico: CalicoSettings, events: Sequence[Event | RandomFailures]
) -> Iterator[Problem]:
    """Yield what events name that the cluster does not have. `pods`: all there are, namespace/name."""
    nodes = [device.name for device in fabric.devices if device.kind is DeviceKind.NODE]
    speakers = [device.name for device in fabric.devices if device.kind is not DeviceKind.CLIENTS]
    devices = [device.name for device in fabric.devices]
    wires = {frozenset((link.a, link.b)) for link in fabric.links}
    for event in events:
        known = devices if event.kind in LINKS else speakers
        if event.kind in (EventKind.NODE_DIES, EventKind.NODE_DRAINED, EventKind.BLOCK_CLAIMED):
            known = nodes
        elif event.kind in OF_PODS:
            known = list(pods)
        subjects = (event.subject,) if isinstance(event, Event) else event.subjects
        if isinstance(event, Event) and event.kind in OF_PEERS:
            yield from _unknown_peers(event, calico)
            if len(event.subject) == 1:
                continue
        for subject in subjects:
            names = subject[:1] if event.kind is EventKind.BLOCK_CLAIMED else subject
            wrong = [name for name in names if name not in known]
            for name in wrong:
                yield unknown_name(event.position, "events", name, "one of the cluster's", known)
            if event.kind in LINKS and not wrong and frozenset(subject) not in wires:
                beside = sorted({end for wire in wires if subject[0] in wire for end in wire} - {subject[0]})
                expected = f"a wire; {subject[0]} has one to {', '.join(beside[:8]) or 'nobody'}"
                yield Problem(
                    event.position, "events", f"link {' '.join(subject)}", expected, "name both ends of a wire"
                )


def _unknown_peers(event: Event, calico: CalicoSettings) -> Iterator[Problem]:
    """BGPPeers and BGPFilters that an event names and no resource is."""
    peers, filters = [each.name for each in calico.peers], [each.name for each in calico.filters]
    names = list(event.filter_names) + (list(event.subject) if event.kind is EventKind.FILTER_CHANGED else [])
    for name in names:
        if name not in filters:
            yield unknown_name(event.position, "events", name, "the name of a BGPFilter", filters)
    if event.kind in (EventKind.PEER_REMOVED, EventKind.PEER_FILTERED) and len(event.subject) == 1:
        (name,) = event.subject
        if name not in peers:
            yield unknown_name(event.position, "events", name, "two speakers, or the name of a BGPPeer", peers)
