"""A cluster to ask questions of: which way packets take, how traffic is shared out, which rules a node holds.

A facade over `engine` and `model`; it stands beside the layers because it hands out DataFrames, which `engine` may
not make (docs/decisions/0011-questions.md). Everything is built when it is first asked for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO

from simnet.config.cluster_file import load_cluster_spec
from simnet.controlplane.kube_proxy.restore_text import restore_text
from simnet.engine.materialise import materialise
from simnet.engine.shares import ShareRow, share_rows
from simnet.engine.trace import Trace, Tracer, whole
from simnet.errors import InputError, Position, Problem, unknown_name
from simnet.model.cluster import Cluster as Model
from simnet.model.history import Instant
from simnet.model.iptables.listing_printer import listing_text
from simnet.model.iptables.modelled import LeftOutRule
from simnet.model.iptables.printer import Backend, save_text
from simnet.model.iptables.ruleset import Family, Ruleset
from simnet.model.scenario import ClusterSpec, Experiment, PlannedRun
from simnet.units import PS_PER_S, parse_duration

if TYPE_CHECKING:
    import pandas as pd

    from simnet.engine.rib_at import Daemon


class NodeRules:
    """One node's rules of one family: kube-proxy's, or the imported ones; without what Calico adds."""

    def __init__(self, node: str, ruleset: Ruleset) -> None:
        self.node, self.ruleset = node, ruleset

    def __repr__(self) -> str:
        chains = [chain for table in self.ruleset.tables.values() for chain in table.chains.values()]
        count = sum(len(chain.rules) for chain in chains)
        return f"NodeRules({self.node!r}, {self.ruleset.family.value}, {count} rules in {len(chains)} chains)"

    def to_restore(self) -> str:
        """Return what kube-proxy hands to `iptables-restore`; imported rules as `iptables-save` prints them."""
        return self.to_save() if self.ruleset.source else restore_text(self.ruleset)

    def to_save(self, *, backend: Backend = "nft", counters: bool = False) -> str:
        """Return what `iptables-save` prints once the rules are loaded."""
        return save_text(self.ruleset, backend=backend, counters=counters)

    def to_list(self, table: str = "nat", chain: str | None = None, *, exact: bool = False) -> str:
        """Return what `iptables -v -n -t TABLE -L [CHAIN]` prints, `-x` with `exact`; KeyError for an unknown one."""
        return listing_text(self.ruleset, table, chain, exact=exact)


class Cluster:
    """A cluster in its steady state. Made by `simnet.load_cluster`."""

    def __init__(self, spec: ClusterSpec, *, file: str = "", seed: int = 1) -> None:
        self.spec, self.file, self.seed = spec, file, seed

    def __repr__(self) -> str:
        model = self.model
        return (
            f"<Cluster {self.file}: {len(model.nodes)} nodes, {len(model.pods)} pods, {len(model.services)} services>"
        )

    @cached_property
    def model(self) -> Model:
        """Every object addressed, placed and wired. Raises InputError where the objects contradict each other."""
        return materialise(self.spec, seed=self.seed)

    @cached_property
    def _tracer(self) -> Tracer:
        return Tracer(self.model, self.spec)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes."""
        return tuple(node.name for node in self.model.nodes)

    @property
    def pods(self) -> Mapping[str, tuple[str, ...]]:
        """The addresses of each pod, by namespace/name."""
        return {pod.key: pod.addresses for pod in self.model.pods}

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What was odd in the input but usable."""
        return self.model.warnings

    @property
    def left_out_rules(self) -> tuple[LeftOutRule, ...]:
        """What `skip_unknown` left out of nodes' saved rules; `str` of one names file, line, rule and reason."""
        return self.spec.left_out_rules

    def rules(self, node: str, family: str = "ipv4") -> NodeRules:
        """Return a node's rules. Raises InputError for a node or family that the cluster does not have."""
        if node not in self.model.rulesets:
            raise InputError(
                [unknown_name(Position("command line"), "--node", node, "a node of the cluster", self.nodes)]
            )
        for ruleset in self.model.rulesets[node]:
            if ruleset.family.value == family.lower():
                return NodeRules(node, ruleset)
        held = ", ".join(ruleset.family.value for ruleset in self.model.rulesets[node])
        known = [each.value for each in Family]
        fix = (
            "give the nodes addresses of that family" if family.lower() in known else f"choose from {', '.join(known)}"
        )
        raise InputError(
            [Problem(Position(self.file), "family", family, f"a family that node {node} has: {held}", fix)]
        )

    def asked_rules(self, node: str, family: str = "ipv4") -> NodeRules:
        """Return the rules that the objects ask for on a node, also where the node runs on its own saved rules."""
        if not any(each.saved_rules for each in self.spec.nodes):
            return self.rules(node, family)
        plain = tuple(replace(each, saved_rules=()) for each in self.spec.nodes)
        return Cluster(replace(self.spec, nodes=plain), file=self.file, seed=self.seed).rules(node, family)

    def trace(
        self,
        source: str,
        destination: str,
        *,
        protocol: str = "tcp",
        node: str | None = None,
        all: bool = False,
        seed: int = 1,
    ) -> Trace:
        """Follow the first packet of a connection, and the answer.

        Parameters
        ----------
        source : address (one that the cluster does not know is an outside client's), `pod:NS/NAME` or `node:NAME`
        destination : the same or `service:NS/NAME`, with a port: `192.168.64.57:8088`, `[fd00::1]:80`
        protocol : tcp, udp or sctp
        node : ask this node's rules alone, as if the packet had just arrived there
        all : every branch; the probabilities sum to 1. Else one branch, drawn from `seed`

        Raises InputError.
        """
        tracer = self._tracer
        if node is not None:
            return tracer.ask_node(node, source, destination, protocol=protocol, all=all, seed=seed)
        return tracer.trace(source, destination, protocol=protocol, all=all, seed=seed)

    def shares(self) -> pd.DataFrame:
        """Return the exact expected share of each pod, per entry point and class of client; nothing is simulated.

        Columns as in `simnet.engine.shares.ShareRow`: docs/models/trace-and-shares.md.
        """
        import pandas as pd

        return pd.DataFrame([row.to_dict() for row in self.share_rows()], columns=list(ShareRow.__slots__))

    def share_rows(self, service: str | None = None) -> list[ShareRow]:
        """Return the rows of `shares` as plain values, of all Services or of one (InputError if unknown)."""
        return list(share_rows(self._tracer, service))


def load_cluster(
    path: str | os.PathLike[str], *, stdin: BinaryIO | None = None, seed: int = 1, skip_unknown: bool = False
) -> Cluster:
    """Return the cluster of an experiment, a cluster file, or a folder or file of Kubernetes manifests.

    `seed` decides random placement only. `skip_unknown` leaves out what nodes' saved rules (`nodes[].iptables`) hold
    that simnet does not model, and `Cluster.left_out_rules` tells them; without it they are mistakes. Raises InputError
    with every mistake found.
    """
    return Cluster(load_cluster_spec(path, stdin=stdin, skip_unknown=skip_unknown), file=os.fspath(path), seed=seed)


class ClusterAt(Cluster):
    """A cluster at one instant of a run. Made by `simnet.cluster_at`.

    `model` has the FIBs and rules of that instant; `trace` ends packets where a wire or a device is down then.
    """

    def __init__(self, run: PlannedRun, time_ps: int, *, file: str = "") -> None:
        super().__init__(run.scenario.cluster, file=file, seed=run.seed)
        self.run, self.time_ps = run, time_ps

    @cached_property
    def steady(self) -> Model:
        """The cluster as the run begins."""
        from simnet.engine.simulate import cluster_of

        return cluster_of(self.run.scenario, seed=self.seed)

    @cached_property
    def instant(self) -> Instant:
        """The tables of that instant, and what carries nothing then."""
        return self._instant_of(self.steady)

    @cached_property
    def model(self) -> Model:
        """Every object addressed, placed and wired, with the tables of that instant."""
        return replace(self.steady, fibs=self.instant.fibs, rulesets={**self.steady.rulesets, **self.instant.rulesets})

    def bgp(self, device: str, *, family: int = 4) -> Daemon:
        """Return what the BGP daemon of a node or switch holds at that instant. Raises KeyError for another device."""
        from simnet.engine.rib_at import daemon_at

        return daemon_at(self.run.scenario, self.steady, device, at_ps=self.time_ps, seed=self.seed, family=family)

    @cached_property
    def _tracer(self) -> Tracer:
        return Tracer(self.steady, self.spec, self._instant_of)

    def _instant_of(self, cluster: Model) -> Instant:
        from simnet.engine.simulate import history_of

        history = history_of(self.run.scenario, cluster, seed=self.seed)
        return whole(cluster) if history is None else history.at(self.time_ps)


def cluster_at(
    experiment: Experiment,
    at: str,
    *,
    variant: str | None = None,
    point: Mapping[str, object] | None = None,
    repeat: int = 0,
) -> ClusterAt:
    """Return the cluster of one run as it is at an instant, such as "12s", changes of that instant included.

    `variant` None is the first one. `point` gives values of swept names, as in `sweep:`; the first point that has them
    is taken. Raises InputError for a variant, point or repetition that is not there, and for a time outside the run.
    """
    variant = next(iter(experiment.variants)) if variant is None else variant
    planned = _planned(experiment, variant, repeat, point or {})
    duration_ps = planned.scenario.run.duration_ps
    try:
        time_ps = parse_duration(at)
        found = at if time_ps > duration_ps else ""
    except ValueError:
        time_ps, found = 0, at
    if found:
        expected = f"a time with its unit, from 0s to the end of the run, {Decimal(duration_ps) / PS_PER_S:f}s"
        raise InputError([Problem(Position("command line"), "--at", found, expected, "for example 2.5s")])
    return ClusterAt(planned, time_ps, file=experiment.file)


def rules_after_run(
    experiment: Experiment, variant: str, *, node: str, family: str = "ipv4", repeat: int = 0
) -> NodeRules:
    """Return a node's rules with the counters that one run leaves in them; the run is simulated for it.

    Of a sweep it is the first point. nat counts connections; filter and mangle count the first packet of each and its
    answer only (docs/models/netfilter.md). Raises InputError for a variant, repetition, node or family that is not
    there.
    """
    from simnet.engine.rule_counters import rules_after

    planned = _planned(experiment, variant, repeat)
    cluster = Cluster(planned.scenario.cluster, file=experiment.file, seed=planned.seed)
    cluster.rules(node, family)  # says what is wrong with the names
    return NodeRules(node, rules_after(planned.scenario, seed=planned.seed, node=node, family=Family(family.lower())))


def _planned(
    experiment: Experiment, variant: str, repeat: int, point: Mapping[str, object] = MappingProxyType({})
) -> PlannedRun:
    """The first run of that variant and repetition at a point with these values, as they are or as texts."""
    runs = [run for run in experiment.runs if _is_at(run, point)]
    if not runs:
        swept: dict[str, dict[str, None]] = {}
        for run in experiment.runs:
            for name, value in run.point:
                swept.setdefault(name, {})[f"{name}={value}"] = None
        known = "; ".join(", ".join(values) for values in swept.values()) or "none: it does not sweep"
        found = ", ".join(f"{name}={value}" for name, value in point.items())
        raise InputError([Problem(Position(experiment.file), "sweep", found, f"a point: {known}", "name one of those")])
    planned = next((run for run in runs if (run.variant, run.repeat) == (variant, repeat)), None)
    if planned is None:
        known = ", ".join(experiment.variants)
        repeats = 1 + max(run.repeat for run in experiment.runs)
        found = f"{variant}, repetition {repeat}"
        expected = f"one of the variants {known}; a repetition from 0 to {repeats - 1}"
        raise InputError([Problem(Position(experiment.file), "variants", found, expected, "name one of those")])
    return planned


def _is_at(run: PlannedRun, point: Mapping[str, object]) -> bool:
    values = dict(run.point)
    return all(
        name in values and (values[name] == wanted or str(values[name]) == wanted) for name, wanted in point.items()
    )
