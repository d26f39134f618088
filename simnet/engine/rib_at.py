"""What a box's BGP daemon holds at an instant of a run: its paths, its choice, and which sessions stand."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simnet.controlplane.bgp.rib import Held, Rib, rib_at
from simnet.engine.bgp_boxes import Box
from simnet.engine.bgp_processes import ControlPlane, control_plane
from simnet.engine.route_view import network_and_origins, rib
from simnet.engine.simulate import events_of
from simnet.model.cluster import Cluster
from simnet.model.iptables.ruleset import IPNetwork
from simnet.model.scenario import Scenario


@dataclass(frozen=True, slots=True)
class SessionState:
    """One end of a session at an instant."""

    peer: str
    state: str  # RFC 4271, 8.2.2


@dataclass(frozen=True, slots=True)
class Daemon:
    """A speaker at an instant. Without power, or stopped, it holds nothing."""

    rib: Rib
    sessions: tuple[SessionState, ...]  # by peer's name
    condition: str  # "running", "frozen", "not running", "not there": none of that family
    withdrawn: tuple[IPNetwork, ...]  # told of in the steady state, and not at this instant


def daemon_at(scenario: Scenario, cluster: Cluster, device: str, *, at_ps: int, seed: int, family: int = 4) -> Daemon:
    """Return a node's or switch's BGP daemon at an instant of a scenario's run.

    `cluster`: as the run begins. What happens at the instant itself has happened. Raises KeyError for another device.
    """
    plane = control_plane(cluster, scenario.cluster, events_of(scenario, cluster, seed=seed), seed=seed)
    plane.run(at_ps)
    return daemon_of(plane, device, family=family)


def daemon_of(plane: ControlPlane, device: str, *, family: int = 4) -> Daemon:
    """Return a node's or switch's BGP daemon as it is now. Raises KeyError for another device."""
    cluster, spec = plane.cluster, plane.spec
    box = next((box for box in plane.boxes.of(device) if box.family == family), None)
    if box is None:
        return Daemon(rib(cluster, spec, device, family=family), (), "not there", ())
    network, originated = network_and_origins(cluster, spec, family=family)
    ends = sorted(box.ends.items())
    around = [box, *(end.twin.box for _, end in ends)]
    standing = [end.peering for each in around for end in each.ends.values() if end.is_up and end.twin.is_up]
    loc_rib = {each.name: each.tables.loc_rib if each.is_running else {} for each in around}
    tables = box.tables
    own = tables.own if box.is_running else ()
    held = Held(tables.adj_rib_in, tables.stale) if box.is_running else Held({}, {})
    seen = replace(network, peerings=tuple(standing))
    steady = originated.get(device, ())
    return Daemon(
        rib=rib_at(seen, device, own, loc_rib, held),
        sessions=tuple(SessionState(peer, end.session.state.value) for peer, end in ends),
        condition=_condition(box),
        withdrawn=tuple(prefix for prefix in steady if prefix not in tables.own),
    )


def _condition(box: Box) -> str:
    if not box.is_running:
        return "not running"
    return "frozen" if box.is_frozen else "running"
