"""Itineraries made ready for the solver: what each visit costs, and in which order stations are solved.

Stations that no cycle of ways goes through are solved once, in the order of the ways. Stations on a cycle (switch and
nodes, a CPU and the pods behind it) form a group that is swept until nothing changes; within it, stations nearer to
where packets come in are swept first. A cycle on which no time passes is refused: on it, who comes first is undefined.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from simnet.dataplane.queueing.stations import DRAWN, FIXED, LINK, REQUEST_SIZE, Itineraries, Stations
from simnet.errors import ModelError

BYTE_PS = 8 * 10**12  # times bytes, by bits per second: picoseconds


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """Stations that are solved together: no packet goes from one to another of them, but on a cycle."""

    first_place: int  # places first_place ... stop_place - 1 are its stations
    stop_place: int


@dataclass(frozen=True, slots=True, eq=False)
class Ways:
    """Rows: the visits of all ways, and after each way one more row, its exit. Places: stations in solving order."""

    start: NDArray[np.int64]  # [ways] first row
    length: NDArray[np.int64]  # [ways] visits, the exit not counted
    place: NDArray[np.int64]  # [rows] of the visit's station; of an exit: len(stations)
    short_place: NDArray[np.integer]  # [rows] the same in the fewest bytes: numpy sorts short integers in linear time
    delay_ps: NDArray[np.int64]  # [rows] 0 of an exit
    fixed_ps: NDArray[np.int64]  # [rows] service that does not depend on the packet, links left out
    request_share: NDArray[np.int64]  # [rows] 1: the request's bytes count here
    reply_share: NDArray[np.int64]  # [rows] 1: the reply's bytes count here
    extra_bytes: NDArray[np.int64]  # [rows]
    rate_bps: NDArray[np.int64]  # [rows] of a link; 0: service does not depend on bytes
    byte_ps: NDArray[np.int64] | None  # [rows] time on the wire of a byte, 0 of no link; None: not all are whole
    kind: NDArray[np.int64]  # [rows] of the station; of an exit: -1
    drawn_at: NDArray[np.int64]  # [ways] visit that is DRAWN, counted from 0; -1: none
    travelled_ps: NDArray[np.int64]  # [ways] all delays
    station_of_place: NDArray[np.int64]  # [places]
    groups: tuple[tuple[Level, ...], ...]  # in solving order; a group of several levels, or swept, is cyclic
    is_swept: tuple[bool, ...]  # of each group


def made_ready(itineraries: Itineraries, stations: Stations) -> Ways:
    """Return the ways in solving order; raises ModelError where a cycle takes no time."""
    length = np.diff(itineraries.start).astype(np.int64)
    if (length < 1).any():
        raise ModelError(f"way {int(np.argmin(length))} visits no station")
    ways = len(length)
    start = itineraries.start[:-1].astype(np.int64) + np.arange(ways)
    rows = len(itineraries.station) + ways
    is_exit = np.zeros(rows, np.bool_)
    is_exit[start + length] = True
    visits = np.flatnonzero(~is_exit)

    def spread(column: NDArray[np.integer], fill: int = 0) -> NDArray[np.int64]:
        wide = np.full(rows, fill, np.int64)
        wide[visits] = column
        return wide

    station = itineraries.station.astype(np.int64)
    kind, work = stations.kind[station].astype(np.int64), itineraries.work_of
    is_link = kind == LINK
    is_drawn = ~is_link & (work == DRAWN)
    fixed_ps = np.where(~is_link & (work == FIXED), itineraries.fixed_ps, 0)
    delay_ps = stations.delay_ps[station]
    drawn_at = np.full(ways, -1, np.int64)
    drawn = np.flatnonzero(is_drawn)[::-1]  # the first of a way is written last
    way_of = np.repeat(np.arange(ways), length)
    if len(drawn):
        drawn_at[way_of[drawn]] = drawn - itineraries.start[way_of[drawn]]
        if (np.bincount(way_of[drawn]) > 1).any():
            raise ModelError("a way has several visits of a drawn service time; the solver knows one a packet")
    takes_time = (delay_ps > 0) | is_link | (fixed_ps > 0)
    place_of, groups, is_swept = _solving_order(station, way_of, takes_time, len(stations))
    place = spread(place_of[station], len(stations))
    rate_bps = spread(np.where(is_link, stations.rate_bps[station], 0))
    on_link = rate_bps > 0
    return Ways(
        start=start,
        length=length,
        place=place,
        short_place=place.astype(np.min_scalar_type(len(stations))),
        delay_ps=spread(delay_ps),
        fixed_ps=spread(fixed_ps),
        request_share=spread(is_link & (work == REQUEST_SIZE)),
        reply_share=spread(is_link & (work != REQUEST_SIZE)),
        extra_bytes=spread(itineraries.extra_bytes),
        rate_bps=rate_bps,
        byte_ps=np.where(on_link, BYTE_PS // np.maximum(rate_bps, 1), 0)
        if not (BYTE_PS % rate_bps[on_link]).any()
        else None,
        kind=spread(kind, -1),
        drawn_at=drawn_at,
        travelled_ps=np.add.reduceat(spread(delay_ps), start) if ways else np.zeros(0, np.int64),
        station_of_place=np.argsort(place_of),
        groups=groups,
        is_swept=is_swept,
    )


def _solving_order(
    station: NDArray[np.int64], way_of: NDArray[np.int64], takes_time: NDArray[np.bool_], count: int
) -> tuple[NDArray[np.int64], tuple[tuple[Level, ...], ...], tuple[bool, ...]]:
    """Return each station's place, the levels group by group, and which groups are cyclic."""
    follows = way_of[1:] == way_of[:-1]
    edges = np.unique(np.stack([station[:-1], station[1:]])[:, follows], axis=1)
    idle = np.unique(np.stack([station[:-1], station[1:]])[:, follows & ~takes_time[:-1]], axis=1)
    _, in_no_time = csgraph.connected_components(_graph(idle, count), directed=True, connection="strong")
    looping = np.flatnonzero(in_no_time[idle[0]] == in_no_time[idle[1]])
    if len(looping):
        at = idle[0][looping[0]]
        raise ModelError(f"a cycle of ways through station {at} takes no time: give it a delay or a service time")
    parts, part = csgraph.connected_components(_graph(edges, count), directed=True, connection="strong")
    is_cyclic = np.bincount(part, minlength=parts) > 1
    is_cyclic[part[edges[0][edges[0] == edges[1]]]] = True
    within = part[edges[0]] == part[edges[1]]
    depth = _longest_paths(part[edges[0][~within]], part[edges[1][~within]], parts)[part]
    # Inside a cycle: steps from where packets come in.
    enters = np.zeros(count, np.bool_)
    enters[station[np.flatnonzero(np.concatenate([[True], ~follows]))]] = True
    enters[edges[1][~within]] = True
    step = np.where(enters, 0, count)
    while True:
        nearer = step.copy()
        np.minimum.at(nearer, edges[1][within], step[edges[0][within]] + 1)
        if (nearer == step).all():
            break
        step = nearer
    swept = is_cyclic[part]
    step = np.where(swept, step, 0)
    order = np.lexsort((np.arange(count), step, swept, depth))
    place_of = np.empty(count, np.int64)
    place_of[order] = np.arange(count)
    group = np.stack([depth, swept])[:, order]
    groups: list[tuple[Level, ...]] = []
    cuts = [0, *(np.flatnonzero((np.diff(group) != 0).any(axis=0)) + 1).tolist(), count]
    for low, high in itertools.pairwise(cuts):
        inner = [low, *(low + 1 + np.flatnonzero(np.diff(step[order[low:high]]))).tolist(), high]
        groups.append(tuple(Level(a, b) for a, b in itertools.pairwise(inner) if a < b))
    return place_of, tuple(groups), tuple(bool(swept[order[low]]) for low in cuts[:-1])


def _graph(edges: NDArray[np.int64], count: int) -> sparse.csr_array:
    return sparse.csr_array((np.ones(edges.shape[1], np.int8), (edges[0], edges[1])), shape=(count, count))


def _longest_paths(source: NDArray[np.int64], target: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the most steps that lead to each vertex of an acyclic graph."""
    depth = np.zeros(count, np.int64)
    while True:
        deeper = depth.copy()
        np.maximum.at(deeper, target, depth[source] + 1)
        if (deeper == depth).all():
            return depth
        depth = deeper
