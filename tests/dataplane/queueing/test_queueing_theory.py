"""The solver's waits against closed forms, within four standard errors of independent runs.

Each run begins empty; its first tenth is left out. The runs are the sample, packets are not.
Sources: Kleinrock, Queueing Systems I (M/M/1, M/M/c, M/M/1/K, M/G/1); Burke 1956 (tandem); Little 1961.
"""

from __future__ import annotations

from math import factorial

import numpy as np
import pytest

from simnet.dataplane.queueing.solver import QueueNetwork
from simnet.dataplane.queueing.stations import DRAWN, FIXED, POD, UNLIMITED, Injected, Itineraries, Left, Stations

RUNS, PACKETS = 20, 20_000
MEAN_PS = 1_000_000  # of a service


def _network(stations: int, servers: int = 1, limit: int = UNLIMITED) -> tuple[Stations, Itineraries]:
    of = np.full(stations, 1)
    network = Stations(
        kind=of.astype(np.uint8) * POD,
        servers=(of * servers).astype(np.int32),
        rate_bps=of * 0,
        delay_ps=of * 0,
        limit_packets=of * limit,
        limit_bytes=of * UNLIMITED,
    )
    ways = Itineraries(
        start=np.array([0, stations]),
        station=np.arange(stations, dtype=np.int32),
        work_of=np.array([DRAWN] + [FIXED] * (stations - 1), dtype=np.uint8),
        extra_bytes=np.zeros(stations, np.int32),
        fixed_ps=np.full(stations, MEAN_PS),
    )
    return network, ways


def _run(
    run: int, load: float, services: str, stations: int = 1, servers: int = 1, limit: int = UNLIMITED
) -> tuple[Injected, Left]:
    rng = np.random.default_rng([run, stations, servers, limit + 1])
    time_ps = np.cumsum(rng.exponential(MEAN_PS / load / servers, PACKETS)).astype(np.int64)
    drawn = {
        "constant": np.full(PACKETS, MEAN_PS),
        "exponential": rng.exponential(MEAN_PS, PACKETS),
        "lognormal": rng.lognormal(-0.5, 1.0, PACKETS) * MEAN_PS,  # mean 1, squared coefficient of variation e - 1
    }[services].astype(np.int64)
    network, ways = _network(stations, servers, limit)
    nothing = np.zeros(PACKETS, np.int32)
    injected = Injected(np.arange(PACKETS), time_ps, nothing, nothing, nothing, drawn)
    queues = QueueNetwork(network)
    queues_left = [queues.advance(injected, ways, int(time_ps[-1])), queues.finish()]
    order = np.argsort(np.concatenate([left.packet for left in queues_left]))
    names = ("packet", "time_ps", "dropped_at", "turned_ps", "waited_ps", "served_ps", "travelled_ps")
    return injected, Left(
        *(np.concatenate([getattr(left, name) for left in queues_left], axis=-1)[..., order] for name in names)
    )


def _agrees(samples: list[float], expected: float) -> None:
    error = np.std(samples, ddof=1) / np.sqrt(len(samples))
    assert error > 0
    assert abs(np.mean(samples) - expected) < 4 * error, (np.mean(samples), expected, error)


def _waits(services: str, load: float, servers: int = 1) -> list[float]:
    return [
        float(_run(run, load, services, servers=servers)[1].waited_ps[POD, PACKETS // 10 :].mean()) / MEAN_PS
        for run in range(RUNS)
    ]


@pytest.mark.parametrize(
    "services, squared_variation", [("constant", 0.0), ("exponential", 1.0), ("lognormal", np.e - 1)]
)
def test_mean_wait_of_one_server_is_pollaczek_and_khinchines(services: str, squared_variation: float) -> None:
    load = 0.6
    _agrees(_waits(services, load), load / (1 - load) * (1 + squared_variation) / 2)


@pytest.mark.parametrize("servers", [2, 5])
def test_mean_wait_of_several_servers_is_erlangs(servers: int) -> None:
    load = 0.7
    offered = load * servers
    last = offered**servers / factorial(servers) / (1 - load)
    waits = last / (sum(offered**n / factorial(n) for n in range(servers)) + last)  # Erlang C
    _agrees(_waits("exponential", load, servers), waits / (servers * (1 - load)))


@pytest.mark.parametrize("load", [0.8, 1.2])
def test_loss_of_a_short_queue_is_that_of_m_m_1_k(load: float) -> None:
    capacity = 5  # in service or waiting
    lost = [
        float((_run(run, load, "exponential", limit=capacity - 1)[1].dropped_at[PACKETS // 10 :] >= 0).mean())
        for run in range(RUNS)
    ]
    _agrees(lost, (1 - load) * load**capacity / (1 - load ** (capacity + 1)))


def test_departures_of_a_markovian_queue_are_poisson_again() -> None:
    load = 0.6
    second = []
    for run in range(RUNS):
        injected, left = _run(run, load, "exponential", stations=2)
        latency = left.time_ps - injected.time_ps
        first_wait = left.turned_ps - injected.time_ps
        assert (first_wait == 0).all()  # it turns at the first station
        second.append(float((latency - injected.drawn_ps - MEAN_PS)[PACKETS // 10 :].mean()) / MEAN_PS)
    # Waits of M/M/1, then of M/D/1.
    _agrees(second, load / (1 - load) * 1.5)


def test_packets_inside_are_rate_times_latency() -> None:
    injected, left = _run(0, 0.8, "exponential")
    begin, end = injected.time_ps, left.time_ps
    span = int(end.max())
    # Little's law over the whole run is an identity: both sides add up the same areas.
    steps = np.concatenate([begin, end])
    order = np.argsort(steps, kind="stable")
    inside = np.cumsum(np.concatenate([np.ones(PACKETS), -np.ones(PACKETS)])[order])
    area = float((inside[:-1] * np.diff(steps[order])).sum())
    assert area / span == pytest.approx(PACKETS / span * float((end - begin).mean()), rel=1e-12)
    assert int(left.waited_ps.sum() + left.served_ps.sum()) == int((end - begin).sum())
