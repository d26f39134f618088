"""kube-proxy's own flows and real clusters' rule sets through the compiled machine.

The flows are facts taken from kubernetes/kubernetes pkg/proxy/iptables/proxier_test.go (Apache-2.0), driven on a
packet's real way: PREROUTING or OUTPUT, INPUT or FORWARD, POSTROUTING.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from controlplane.kube_proxy.conftest import golden_cases  # noqa: F401

from simnet.dataplane.netfilter.compiler import callees, compile_program
from simnet.dataplane.netfilter.counters import Counters
from simnet.dataplane.netfilter.executor import run_chain, run_hook
from simnet.dataplane.netfilter.packets import ACCEPT_BY_POLICY, REJECT, SNAT_NONE, STATE_DNAT, PacketColumns
from simnet.dataplane.netfilter.state import NetfilterState
from simnet.errors import InputError
from simnet.model.addresses import AddressTable
from simnet.model.iptables import ruleset as rs
from simnet.model.iptables.parser import parse_rules

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
TIMES = 500
SKIPPED = {  # what of the real rule sets the machine leaves out when it is told to
    "aks-npm-v2-2022.iptables-save": ["match owner", "match set"],
    "calico-felix-2025.iptables-save": ["addrtype --limit-iface-out", "match rpfilter", "target NOTRACK"],
    "istio-sidecar-2022.iptables-save": ["match owner"],
    "weave-kubeadm-1.11-2018.iptables-save": ["match physdev", "match set"],
}


def reached(ruleset, local_addresses, flow) -> tuple[set[str], set[bool]]:
    """Where `TIMES` connections of a flow end, and whether their source is rewritten."""
    addresses = AddressTable()
    program = compile_program([ruleset], addresses)
    source, destination = addresses.intern(flow["source"]), addresses.intern(flow["dest"])
    local = np.isin([addresses.text(i) for i in range(len(addresses))], sorted(local_addresses))
    packets = PacketColumns.of(
        TIMES, source=source, destination=destination, destination_port=flow["port"], source_port=40000,
        protocol=PROTOCOLS[flow.get("protocol") or "TCP"], source_is_local=local[source],
        destination_is_local=local[destination],
    )  # fmt: skip
    held = {"seed": 1, "state": NetfilterState(None), "counters": Counters(program)}
    is_rejected = is_dropped = np.zeros(TIMES, np.bool_)
    is_masqueraded = np.zeros(TIMES, np.bool_)
    translated = np.zeros(TIMES, np.bool_)
    hooks = ["OUTPUT", "POSTROUTING"] if local[source] else ["PREROUTING", "INPUT or FORWARD", "POSTROUTING"]
    for hook in hooks:
        if hook == "INPUT or FORWARD":
            hook = "INPUT" if packets.destination_is_local.all() else "FORWARD"
            assert hook == "INPUT" or not packets.destination_is_local.any()
        elif hook == "POSTROUTING" and packets.destination_is_local.any() and not local[source]:
            continue
        outcome = run_hook(program, hook, packets, **held)
        is_rejected = is_rejected | (outcome.verdict == REJECT)
        is_dropped = is_dropped | ((outcome.verdict > ACCEPT_BY_POLICY) & (outcome.verdict != REJECT))
        if hook in ("PREROUTING", "OUTPUT"):
            translated = outcome.destination_port >= 0
            packets = replace(
                packets, destination=np.where(translated, outcome.destination, packets.destination),
                destination_port=np.where(translated, outcome.destination_port, packets.destination_port),
                state=np.where(translated, packets.state | STATE_DNAT, packets.state),
            )  # fmt: skip
            packets = replace(packets, destination_is_local=local[packets.destination])
        is_masqueraded |= outcome.snat_kind != SNAT_NONE
        packets = replace(packets, mark=outcome.mark, draw=outcome.draw)
    ends = set()
    for row in range(TIMES):
        text = addresses.text(int(packets.destination[row]))
        endpoint = (
            f"[{text}]:{packets.destination_port[row]}" if ":" in text else f"{text}:{packets.destination_port[row]}"
        )
        ends.add(
            "REJECT" if is_rejected[row] else "DROP" if is_dropped[row] else endpoint if translated[row] else "none"
        )
    return ends, set(is_masqueraded.tolist())


def test_every_flow_of_kube_proxys_tests_reaches_the_endpoints_expected(golden_cases):  # noqa: F811
    checked = 0
    for case in golden_cases:
        ruleset = case.ruleset()
        for flow in case.case["flows"]:
            expected = set(flow["expect"].get("endpoints") or [flow["expect"]["verdict"]])
            expected = {"none" if verdict == "ACCEPT" else verdict for verdict in expected}
            where = (case.case["scenario"], flow["name"])
            assert reached(ruleset, case.local_addresses, flow) == (expected, {flow["masq"]}), where
            checked += 1
    assert checked >= 40


def endpoints_below(chains, name) -> set[tuple[str, int]]:
    """The DNAT targets of the KUBE-SEP chains that a chain leads to."""
    found, left, seen = set(), [name], set()
    while left:
        chain = chains[left.pop()]
        if chain.name in seen:
            continue
        seen.add(chain.name)
        left += callees(chain)
        if chain.name.startswith("KUBE-SEP-"):
            found |= {
                (rule.target.address, rule.target.ports[0]) for rule in chain.rules if isinstance(rule.target, rs.Dnat)
            }
    return found


def ways_to_services(chains):
    """Yield (destination, protocol, port, chain) of KUBE-SERVICES' rules that lead to endpoints."""
    for rule in chains["KUBE-SERVICES"].rules if "KUBE-SERVICES" in chains else ():
        by_kind = {type(match): match for match in rule.matches}
        to, port, protocol = (by_kind.get(kind) for kind in (rs.DestinationAddress, rs.PortMatch, rs.ProtocolMatch))
        if not (isinstance(rule.target, rs.Jump) and to and port and port.destination_ports):
            continue
        is_service = rule.target.chain.startswith(("KUBE-SVC-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SVL-"))
        if is_service and to.network.num_addresses == 1:
            yield str(to.network.network_address), protocol.number, port.destination_ports[0], rule.target.chain


def test_packets_to_each_service_of_a_real_dump_land_on_the_pods_that_its_own_chains_name(shared_cases):
    services = 0
    skipped = {}
    files = sorted(
        path for path in (shared_cases / "real" / "iptables").iterdir() if path.suffix in (".iptables-save", ".txt")
    )
    assert files
    for path in files:
        try:
            ruleset = parse_rules(path.read_text(encoding="utf-8"), file=path.name).ruleset
        except InputError:
            continue  # refused with its lines; tests/model/iptables says which
        addresses = AddressTable()
        program = compile_program([ruleset], addresses, skip_unknown=True)
        if program.skipped:
            skipped[path.name] = sorted({rule.reason for rule in program.skipped})
        clients = [addresses.intern(f"198.51.{i >> 8}.{i & 255}") for i in range(2_000)]  # no list knows them
        chains = ruleset.tables["nat"].chains if "nat" in ruleset.tables else {}
        for destination, protocol, port, chain in ways_to_services(chains):
            expected = endpoints_below(chains, chain)
            packets = PacketColumns.of(
                2_000, source=clients, destination=addresses.intern(destination), destination_port=port,
                protocol=protocol,
            )  # fmt: skip
            outcome = run_chain(
                program, "nat", "PREROUTING", packets, seed=3, state=NetfilterState(None), counters=Counters(program)
            )
            ends = zip(outcome.destination.tolist(), outcome.destination_port.tolist(), strict=True)
            found = {(addresses.text(to), to_port) for to, to_port in ends if to_port >= 0}
            assert found == expected, (path.name, destination, port, chain)
            services += bool(expected)
    assert services >= 60
    assert skipped == SKIPPED
