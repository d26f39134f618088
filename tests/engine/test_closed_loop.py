"""Clients that wait for answers, in whole runs: against the event-by-event simulation, laws, and a closed form."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from engine.scenarios import MS, NS, US, cluster, fingerprint, nodes, plain, pod, scenario, service
from engine.test_agreement import assert_agreement, engine_run
from engine.test_queues import queued_scenarios
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simnet.engine import closed_loop, closed_recorder
from simnet.engine.simulate import prepare, simulate
from simnet.errors import InputError
from simnet.model.calico import FabricSettings
from simnet.model.queues import LinkQueue
from simnet.model.recording import PACKETS
from simnet.model.scenario import Entry
from simnet.model.workload import (
    SCTP,
    TCP,
    UDP,
    ClientOrigin,
    ClientPopulation,
    ClosedLoop,
    Constant,
    Exponential,
    FlowShape,
    PodService,
    Uniform,
)

THINK = (Constant(0), Constant(3 * MS), Exponential(2e9), Uniform(1, 4 * MS))


@st.composite
def closed_scenarios(draw):
    """Any small scenario of clients that wait: slow links and pods, small buffers, short time-outs, little patience."""
    made = draw(queued_scenarios())
    think = draw(st.sampled_from(THINK[1:]))
    duration_ps = draw(st.sampled_from([10 * MS, 40 * MS]))
    loop = ClosedLoop(
        connections_per_client=draw(st.integers(1, 3)),
        until_ps=duration_ps,
        requests_per_connection=draw(st.sampled_from([1, 2, 5, 10**6])),
        max_age_ps=draw(st.sampled_from([None, None, 1, 2 * MS, 9 * MS])),
        timeout_ps=draw(st.sampled_from([None, 300 * US, 3 * MS, 20 * MS])),
        retries=draw(st.integers(0, 3)),
        backoff_ps=draw(st.sampled_from([Constant(0), Constant(MS), Exponential(1e9)])),
    )
    shape = made.workload.shape
    sizes = draw(st.booleans()) and made.cluster.fabric.mtu == 65535
    shape = FlowShape(
        Constant(1),
        Uniform(60, 1500) if sizes else Constant(777),
        think,
        Uniform(60, 1500) if sizes else Constant(1500),
    )
    if draw(st.booleans()):  # one of the links that are so slow that nothing else is seen
        fabric = replace(made.cluster.fabric, link_rate_bps=10**9, client_link_rate_bps=10**9)
        made = replace(made, cluster=replace(made.cluster, fabric=fabric))
    workload = replace(
        made.workload, arrivals=loop, shape=shape, protocol=draw(st.sampled_from([TCP, TCP, SCTP]))
    )
    if workload.protocol == SCTP:
        workload = replace(workload, protocol=TCP)
    run = replace(made.run, duration_ps=duration_ps, warmup_ps=draw(st.sampled_from([0, 4 * MS])))
    return replace(made, workload=workload, run=run)


@given(closed_scenarios())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_engine_and_event_by_event_simulation_agree_on_every_call(scenario):
    assert_agreement(scenario)


@pytest.mark.slow
@given(closed_scenarios())
@settings(max_examples=1500, suppress_health_check=[HealthCheck.too_slow])
def test_engine_and_event_by_event_simulation_agree_on_every_call_of_many_scenarios(scenario):
    assert_agreement(scenario)
