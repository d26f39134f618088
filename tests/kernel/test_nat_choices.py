"""Ranges of addresses and ports in DNAT and SNAT: a real kernel's choices against the machine's, flow by flow.

What a kernel (Linux 6.18) answered stands in `tests/data/nat_choices.tsv`; as root the kernel at hand is asked again,
and for IPv6 too. The rule walk behind `trace` and the reference interpreter must say the same.
"""

from __future__ import annotations

import ipaddress
import shutil
from pathlib import Path

import numpy as np
import pytest
from kernel.nat_lab import CLIENTS, Flow, router, translations
from reference.netfilter_interpreter import Interpreter

from simnet.dataplane.netfilter.compiler import compile_program
from simnet.dataplane.netfilter.counters import Counters
from simnet.dataplane.netfilter.executor import run_hook
from simnet.dataplane.netfilter.packets import PacketColumns
from simnet.dataplane.netfilter.state import NetfilterState
from simnet.engine.rule_walk import Header, HookPacket, Host, RuleWalker
from simnet.model.addresses import AddressTable
from simnet.model.iptables.parser import parse_rules
from simnet.model.iptables.ruleset import Family

FILE = Path(__file__).parents[1] / "data" / "nat_choices.tsv"
TO_SERVER = "PREROUTING -p udp -j DNAT --to-destination {server}:80"
RULES = {  # name -> rules; {to}: addresses of the server's network, {from}: of the router's side, {near}: clients'
    "dnat": ["PREROUTING -p udp -j DNAT --to-destination {to}"],
    "dnat persistent": ["PREROUTING -p udp -j DNAT --to-destination {to} --persistent"],
    "dnat random": ["PREROUTING -p udp -j DNAT --to-destination {to} --random"],
    "dnat ports": ["PREROUTING -p udp -j DNAT --to-destination {server}:8000-8009"],
    "dnat ports that hold the old": ["PREROUTING -p udp -j DNAT --to-destination {server}:70-89"],
    "dnat ports random": ["PREROUTING -p udp -j DNAT --to-destination {server}:70-89 --random"],
    "dnat both": ["PREROUTING -p udp -j DNAT --to-destination {to_port}:8000-8009 --persistent"],
    "redirect ports": ["PREROUTING -p udp -j REDIRECT --to-ports 8000-8009"],
    "snat": [TO_SERVER, "POSTROUTING -p udp -j SNAT --to-source {from}"],
    "snat persistent": [TO_SERVER, "POSTROUTING -p udp -j SNAT --to-source {from} --persistent"],
    "snat random": [TO_SERVER, "POSTROUTING -p udp -j SNAT --to-source {from} --random"],
    "snat to a range that holds the source": [TO_SERVER, "POSTROUTING -p udp -j SNAT --to-source {near}"],
    "masquerade random": [TO_SERVER, "POSTROUTING -p udp -j MASQUERADE --random"],
    "masquerade ports": [TO_SERVER, "POSTROUTING -p udp -j MASQUERADE --to-ports 5010-5050"],
}
WORDS = {
    4: {"server": "10.78.1.1", "to": "10.78.1.1-10.78.1.13", "to_port": "10.78.1.1-10.78.1.13",
        "from": "10.78.0.20-10.78.0.29", "near": "10.77.1.2-10.77.1.4"},
    6: {"server": "[fd00:78::1:1]", "to": "fd00:78::1:1-fd00:78::1:13", "to_port": "[fd00:78::1:1-fd00:78::1:13]",
        "from": "fd00:78::20-fd00:78::29", "near": "fd00:77::1:2-fd00:77::1:4"},
}  # fmt: skip
ROUTER = {4: ("10.77.0.1", "10.78.0.1"), 6: ("fd00:77::1", "fd00:78::1")}
CALLED = {4: ("198.51.100.7", "198.51.100.8"), 6: ("2001:db8::7", "2001:db8::8")}


def flows(version: int) -> list[Flow]:
    """No two that a translation could make alike: another source port each."""
    ends = [(client, called) for client in CLIENTS[version] for called in CALLED[version]]
    return [(client, 5011 + 4 * number, called, 80) for number, (client, called) in enumerate(ends)]


def answers(version: int, name: str) -> list[tuple[Flow, Flow]]:
    return translations([rule.format_map(WORDS[version]) for rule in RULES[name]], flows(version), version)


def assert_machine_agrees(version: int, name: str, told: list[tuple[Flow, Flow]]) -> None:
    rules = [f"-A {rule.format_map(WORDS[version])}" for rule in RULES[name]]
    family = Family.IPV6 if version == 6 else Family.IPV4
    ruleset = parse_rules("\n".join(["*nat", *rules, "COMMIT", ""]), file="rules", family=family).ruleset
    addresses = AddressTable(end for flow, after in told for end in (flow[0], flow[2], after[0], after[2]))
    program = compile_program([ruleset], addresses, ())
    state, reference, walker = NetfilterState(), Interpreter([ruleset], addresses), RuleWalker()
    for flow, after in told:
        columns = {"source": flow[0], "source_port": flow[1], "destination": flow[2], "destination_port": flow[3]}
        ids = {key: addresses.find(str(ipaddress.ip_address(columns[key]))) for key in ("source", "destination")}
        packets = PacketColumns.of(1, **columns | ids, protocol=17, connection=flow[1])
        out = run_hook(program, "PREROUTING", packets, seed=1, state=state, counters=Counters(program))
        assert reference.hook("PREROUTING", _row(packets)).destination == out.destination[0]
        header = Header(*(ipaddress.ip_address(end) if isinstance(end, str) else end for end in flow), 17)
        ways = list(walker.hook(ruleset, "PREROUTING", HookPacket(header), Host(ROUTER[version][:1])))
        assert sum(way.probability for way in ways) == 1
        assert {str(way.packet.header.destination) for way in ways} == {after[2]}, (name, flow)
        assert after[3] in {way.packet.header.destination_port for way in ways}
        assert len(ways) == (20 if name == "dnat ports random" else 1)
        to = ROUTER[version][0] if out.destination[0] == -2 else addresses.text(int(out.destination[0]))
        assert to == after[2], (name, flow)
        if name == "dnat ports random":
            assert 70 <= after[3] <= 89
            assert 70 <= out.destination_port[0] <= 89
        else:
            assert out.destination_port[0] == after[3], (name, flow)
        moved = {**columns, "source": ids["source"], "destination": addresses.find(after[2]),
                 "destination_port": after[3]}  # fmt: skip
        packets = PacketColumns.of(1, **moved, protocol=17, connection=flow[1])
        out = run_hook(program, "POSTROUTING", packets, seed=1, state=state, counters=Counters(program))
        assert reference.hook("POSTROUTING", _row(packets)).snat_source == out.snat_source[0]
        header = header._replace(destination=ipaddress.ip_address(after[2]), destination_port=after[3])
        (way,) = walker.hook(ruleset, "POSTROUTING", HookPacket(header), Host(ROUTER[version][1:]))
        assert str(way.packet.header.source) == after[0], (name, flow)
        own = {0: flow[0], 1: ROUTER[version][1], 2: addresses.text(int(out.snat_source[0]))}
        assert own[int(out.snat_kind[0])] == after[0], (name, flow)
        first, last = int(out.snat_port_first[0]), int(out.snat_port_last[0])
        drawn = bool(out.snat_random_fully[0]) or (first >= 0 and not first <= flow[1] <= last)
        assert drawn or after[1] == flow[1], (name, flow)
        assert not drawn or (first if first >= 0 else 1024) <= after[1] <= (last if last >= 0 else 65535), (name, flow)
    if name.endswith("random") and not name.startswith("dnat"):  # a chance of 10 in 64512 each to be kept
        assert sum(flow[1] == after[1] for flow, after in told) <= 1


def _row(packets: PacketColumns) -> object:
    from types import SimpleNamespace

    return SimpleNamespace(**{name: getattr(packets, name)[0].item() for name in PacketColumns.__slots__})


def test_the_choices_of_a_kernel_are_those_of_the_machine():
    told: dict[str, list[tuple[Flow, Flow]]] = {}
    for line in FILE.read_text().splitlines()[1:]:
        name, *ends = line.split("\t")
        values = [int(end) if at % 2 else end for at, end in enumerate(ends)]
        told.setdefault(name, []).append((tuple(values[:4]), tuple(values[4:])))
    assert told.keys() == RULES.keys()
    for name, seen in told.items():
        assert len(seen) == 10
        assert_machine_agrees(4, name, seen)


@pytest.mark.root
def test_the_kernel_at_hand_chooses_as_the_machine_does_of_both_families():
    missing = [program for program in ("ip", "iptables", "ip6tables", "conntrack") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    with router():
        for version in (4, 6):
            for name in RULES:
                assert_machine_agrees(version, name, answers(version, name))


def test_shares_of_a_range_are_what_the_hash_gives_to_many_clients():
    from simnet.dataplane.netfilter.nat_ranges import numbers_of_each, place_in_range
    from simnet.dataplane.netfilter.translation import address_range
    from simnet.model.iptables.ruleset import Dnat

    held = address_range(Dnat("10.0.0.1", last_address="10.0.0.7"))
    source = np.zeros((200_000, 4), np.uint32)
    source[:, 0] = np.arange(200_000, dtype=np.uint32).byteswap()
    seen = np.bincount(place_in_range(source, np.full((200_000, 4), 7, np.uint32), held), minlength=7) / 200_000
    share = np.array(numbers_of_each(7, 1 << 32)) / 2**32
    assert share.sum() == 1
    assert (abs(seen - share) < 4 * np.sqrt(share * (1 - share) / 200_000)).all()
