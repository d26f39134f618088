"""After any finite sequence of events that is undone, overlapping ones too, every table is that of the start."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.clusters import routed_clusters

from simnet.controlplane.bgp.steady import steady_fibs
from simnet.engine.bgp_processes import run_control_plane
from simnet.model.calico import BgpTimers
from simnet.model.cluster import Cluster
from simnet.model.events import Event, EventKind
from simnet.model.kube_proxy import KubeProxyConfiguration
from simnet.model.kubernetes import Objects
from simnet.model.scenario import ClusterSpec
from simnet.units import PS_PER_MS, PS_PER_S

MINUTE = 60 * PS_PER_S
# Short timers, so that within half a minute everything that waits has a chance to run out
SHORT = BgpTimers(
    hold_ps=9 * PS_PER_S, connect_delay_ps=PS_PER_S, connect_retry_ps=2 * PS_PER_S,
    error_wait_ps=(PS_PER_S, 4 * PS_PER_S), restart_ps=None, carrier_ps=6 * PS_PER_MS, loop_ps=13 * PS_PER_S // 10,
)  # fmt: skip


def run(cluster, events, seed, *, node_timers=SHORT, switch_timers=SHORT):
    calico, wires = replace(cluster.calico, bgp=node_timers), replace(cluster.settings, bgp=switch_timers)
    fibs = steady_fibs(cluster.fabric, cluster.nodes, cluster.pods, cluster.blocks, (), calico, wires)
    spec = ClusterSpec(Objects(), (), KubeProxyConfiguration(), calico, wires)
    ready = Cluster(
        cluster.nodes, cluster.pods, (), (), cluster.blocks, KubeProxyConfiguration(), cluster.fabric, fibs, {}
    )
    end_ps = max((event.until_ps for event in events), default=0) + 6 * MINUTE
    return ready, run_control_plane(ready, spec, events, until_ps=end_ps, seed=seed), end_ps


def differences(ready, history, end_ps):
    """By device: the routes that are missing, and those that should not be."""
    found = {}
    for device, fib in history.fibs_at(end_ps).items():
        now, then = set(fib.routes), set(ready.fibs[device].routes)
        if now != then:
            found[device] = ([str(r.prefix) for r in then - now], [str(r.prefix) for r in now - then])
    return found


HALF_S = PS_PER_S // 2


@st.composite
def events_that_end(draw, cluster, *, most=6, span=40):
    """Up to `most` events within `span` half seconds, overlapping as it comes, on few subjects."""
    nodes = [node.name for node in cluster.nodes]
    switches = [d.name for d in cluster.fabric.devices if d.as_number and d.name not in nodes]
    wires = [(w.a, w.b) for w in cluster.fabric.links if w.a in (*nodes, *switches) and w.b in switches]
    peers = sorted({tuple(sorted(pair)) for pair in _sessions(cluster)})
    boxes = draw(st.lists(st.sampled_from(nodes + switches), min_size=1, max_size=2))
    found = []
    for _ in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(KINDS))
        box = draw(st.sampled_from(boxes))
        at_ps = draw(st.integers(0, span)) * HALF_S
        until_ps = at_ps + draw(st.integers(1, span)) * HALF_S
        if kind in (EventKind.LINK_DOWN, EventKind.LINK_SILENT):
            near = [wire for wire in wires if box in wire]
            subject = draw(st.sampled_from(near or wires))
        elif kind is EventKind.PEER_REMOVED:
            subject = draw(st.sampled_from([pair for pair in peers if box in pair] or peers))
        elif kind is EventKind.BLOCK_CLAIMED:
            free = ["192.168.0.192/30", "192.168.0.200/30"]
            subject = (draw(st.sampled_from(nodes)), draw(st.sampled_from(free)))
            if any(block.cidr == subject[1] for block in cluster.blocks):
                continue
        elif kind in (EventKind.NODE_DIES, EventKind.NODE_DRAINED):
            subject = (box if box in nodes else draw(st.sampled_from(nodes)),)
        else:
            subject = (box,)
        found.append(Event(at_ps, kind, subject, until_ps))
    return found


def _sessions(cluster):
    from simnet.controlplane.bgp.network import bgp_network

    network = bgp_network(cluster.fabric, cluster.nodes, cluster.calico, cluster.settings)
    return [(peering.local, peering.remote) for peering in network.peerings]


KINDS = [
    EventKind.NODE_DIES, EventKind.LINK_DOWN, EventKind.LINK_SILENT, EventKind.BGP_STOPS, EventKind.BGP_KILLED,
    EventKind.BGP_FREEZES, EventKind.BGP_RESTARTS, EventKind.BLOCK_CLAIMED, EventKind.PEER_REMOVED,
]  # fmt: skip


@st.composite
def timers(draw):
    """With and without graceful restart, its helper, BFD; the node's and the switch's apart."""
    return replace(
        SHORT,
        restart_ps=draw(st.sampled_from([None, 3 * PS_PER_S, 8 * PS_PER_S])),
        is_helper=draw(st.booleans()),
        bfd_interval_ps=draw(st.sampled_from([None, None, 300 * PS_PER_MS])),
    )


SITUATIONS = (st.data(), routed_clusters(most_nodes=4), st.integers(0, 2**32), timers(), timers())


def _leaves_no_trace(data, cluster, seed, node, switch):
    events = data.draw(events_that_end(cluster))
    ready, history, end_ps = run(cluster, events, seed, node_timers=node, switch_timers=switch)
    assert differences(ready, history, end_ps) == {}


@settings(max_examples=40)
@given(*SITUATIONS)
def test_events_that_overlap_and_are_undone_leave_the_tables_of_the_start(data, cluster, seed, node, switch):
    _leaves_no_trace(data, cluster, seed, node, switch)


@pytest.mark.slow
@settings(max_examples=2_000)
@given(*SITUATIONS)
def test_thousands_of_events_that_overlap_and_are_undone_leave_the_tables_of_the_start(
    data, cluster, seed, node, switch
):
    _leaves_no_trace(data, cluster, seed, node, switch)
