"""Networks of queues made by hypothesis: small numbers, so that ties and full buffers are common."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from simnet.dataplane.queueing.stations import (
    CPU,
    DRAWN,
    FIXED,
    LINK,
    POD,
    REPLY_SIZE,
    REQUEST_SIZE,
    UNLIMITED,
    Injected,
    Itineraries,
    Left,
    Stations,
)


@dataclass(frozen=True)
class Case:
    stations: Stations
    ways: Itineraries
    injected: Injected
    cuts: tuple[int, ...]  # ascending: times at which the packets are handed over


@st.composite
def networks(draw: st.DrawFn) -> Case:
    """Up to eight stations, ways with cycles, up to 60 packets, some of which start after others."""
    count = draw(st.integers(1, 8))
    several = draw(st.booleans())
    limited = draw(st.sampled_from(["none", "packets", "bytes", "both"]))
    chained = draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = rng.choice([LINK, LINK, CPU, POD], count)
    limit_packets = np.where(rng.random(count) < 0.6, rng.integers(0, 5, count), UNLIMITED)
    limit_bytes = np.where(rng.random(count) < 0.6, rng.integers(0, 400, count), UNLIMITED)
    nothing = np.full(count, UNLIMITED)
    # 8e12 bit/s is a byte a picosecond; the others round.
    rate = rng.choice([8 * 10**12, 3 * 10**12, 7 * 10**11], count)
    stations = Stations(
        kind=kind.astype(np.uint8),
        servers=rng.choice([1, 1, 2, 3] if several else [1], count).astype(np.int32),
        rate_bps=np.where(kind == LINK, rate, 0),
        delay_ps=np.where(kind == LINK, rng.choice([0, 0, 1, 7, 100, 900], count), 0),
        limit_packets=limit_packets if limited in ("packets", "both") else nothing,
        limit_bytes=np.where(kind == LINK, limit_bytes, UNLIMITED) if limited in ("bytes", "both") else nothing,
    )
    ways = draw(st.integers(1, 6))
    length = rng.integers(1, 7, ways)
    total = int(length.sum())
    station = rng.integers(0, count, total)
    way_of = np.repeat(np.arange(ways), length)
    first_pod = np.zeros(total, np.bool_)
    for way in range(ways):
        pods = np.flatnonzero((way_of == way) & (kind[station] == POD))
        first_pod[pods[:1]] = True
    is_link = kind[station] == LINK
    work = np.where(is_link, rng.choice([REQUEST_SIZE, REPLY_SIZE], total), np.where(first_pod, DRAWN, FIXED))
    itineraries = Itineraries(
        start=np.concatenate([[0], np.cumsum(length)]),
        station=station.astype(np.int32),
        work_of=work.astype(np.uint8),
        extra_bytes=np.where(is_link, rng.integers(0, 3, total), 0).astype(np.int32),
        fixed_ps=np.where(is_link, 0, rng.choice([1, 40, 100], total)),
    )
    packets = draw(st.integers(1, 60))
    gap = draw(st.sampled_from([0, 5, 40, 120, 400]))
    time_ps = np.sort(rng.integers(0, gap * packets + 1, packets))
    if draw(st.booleans()):
        time_ps = time_ps // 100 * 100  # many at once
    sizes = rng.choice([100], packets) if draw(st.booleans()) else rng.integers(1, 200, packets)
    after = np.full(packets, -1)
    if chained:
        order = rng.permutation(packets)
        for before, later in itertools.pairwise(order):
            if rng.random() < 0.7:
                after[later] = before
                time_ps[later] = rng.choice([1, 50, 3_000])
    ids = np.sort(rng.choice(1_000, packets, replace=False)) if draw(st.booleans()) else rng.permutation(packets)
    # Nobody may be handed over after a packet that it waits for has left: chained packets come at once.
    cuts = () if chained else tuple(sorted(draw(st.lists(st.integers(0, max(int(time_ps.max()), 1)), max_size=3))))
    injected = Injected(
        packet=ids.astype(np.int64),
        time_ps=time_ps.astype(np.int64),
        way=rng.integers(0, ways, packets).astype(np.int32),
        request_bytes=sizes.astype(np.int32),
        reply_bytes=rng.choice([100, 60], packets).astype(np.int32),
        drawn_ps=rng.choice([1, 100, 350], packets).astype(np.int64),
        after=np.where(after >= 0, ids[after], -1) if chained else None,
    )
    return Case(stations, itineraries, injected, cuts)


def rows(injected: Injected, chosen: np.ndarray) -> Injected:
    """The chosen packets."""
    names = ("packet", "time_ps", "way", "request_bytes", "reply_bytes", "drawn_ps", "after")
    columns = [getattr(injected, name) for name in names]
    return Injected(*(None if column is None else column[chosen] for column in columns))


def joined(parts: list[Left]) -> dict[str, np.ndarray]:
    """What left, in order of ids."""
    names = ("packet", "time_ps", "dropped_at", "turned_ps", "waited_ps", "served_ps", "travelled_ps")
    columns = {name: np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in names}
    order = np.argsort(columns["packet"])
    return {name: column[..., order] for name, column in columns.items()}


def run(network, case: Case) -> dict[str, np.ndarray]:
    """Hand the packets over in the pieces that `cuts` makes."""
    parts, low = [], 0
    for cut in case.cuts:
        part = (case.injected.time_ps >= low) & (case.injected.time_ps < cut)
        parts.append(network.advance(rows(case.injected, part), case.ways, cut))
        low = cut
    rest = case.injected.time_ps >= low
    parts.append(network.advance(rows(case.injected, rest), case.ways, low))
    parts.append(network.finish())
    return joined(parts)
