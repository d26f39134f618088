"""Random rule sets and packets for the laws: small address and port spaces, so that rules meet packets."""

from __future__ import annotations

import ipaddress
from types import SimpleNamespace

import numpy as np

from simnet.dataplane.netfilter.packets import _COLUMNS, PacketColumns
from simnet.model.addresses import AddressTable
from simnet.model.iptables import ruleset as rs

ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "192.168.0.1", "127.0.0.1", "172.30.0.1", "172.30.0.2", "224.0.0.1"]
PORTS = [80, 81, 443, 30000]
INTERFACES = ("eth0", "cali1", "cali2")
NETWORKS = ["10.0.0.0/24", "10.0.0.0/16", "127.0.0.0/8", "0.0.0.0/0", *(f"{a}/32" for a in ADDRESSES[:6])]


def matches(rng, stateful=True):
    made = []

    def maybe(chance):
        return rng.random() < chance

    def network():
        return ipaddress.ip_network(rng.choice(NETWORKS))

    if maybe(0.25):
        made.append(rs.SourceAddress(network(), maybe(0.3)))
    if maybe(0.25):
        made.append(rs.DestinationAddress(network(), maybe(0.3)))
    if maybe(0.1):
        made.append(rs.InInterface(rng.choice(["eth0", "cali+", "cali1"]), maybe(0.4)))
    if maybe(0.05):
        made.append(rs.OutInterface(rng.choice(["eth0", "+"]), maybe(0.4)))
    if maybe(0.3):
        number, name = rng.choice([(6, "tcp"), (17, "udp")])
        made.append(rs.ProtocolMatch(number, name, False))
        if maybe(0.7):
            first = rng.choice(PORTS)
            made.append(
                rs.PortMatch(
                    name, None if maybe(0.7) else (1, 1024), (first, first + rng.choice([0, 0, 0, 50])),
                    maybe(0.2), maybe(0.2),
                )
            )  # fmt: skip
            if name == "tcp" and maybe(0.3):
                flags = rng.choice([("SYN",), ("ACK",), ("SYN", "ACK"), ()])
                made.append(rs.TcpFlagsMatch(("FIN", "SYN", "RST", "ACK"), flags, maybe(0.3)))
        elif maybe(0.4):
            made.append(
                rs.MultiportMatch(((80, 81), (443, 443)), rng.choice(["sports", "dports", "ports"]), maybe(0.3))
            )
    if maybe(0.2):
        made.append(rs.CommentMatch("a comment"))
    others = []
    if maybe(0.1):
        others.append(rs.MarkMatch(rng.choice([0, 1, 2, 3]), 3, maybe(0.4)))
    if maybe(0.1):
        others.append(rs.AddressTypeMatch(*rng.choice([("LOCAL", None), (None, "LOCAL"), (None, "UNICAST,MULTICAST")]),
                                          maybe(0.3), maybe(0.3)))  # fmt: skip
    if maybe(0.1):
        others.append(rs.ConntrackStateMatch(rng.choice([("NEW",), ("RELATED", "ESTABLISHED"), ("DNAT",)]), maybe(0.4)))
    if maybe(0.15):
        others.append(rs.StatisticRandom(rng.choice([0, 2**29, 2**30, 2**31, rng.randrange(2**31)]), maybe(0.3)))
    if stateful and maybe(0.1):
        every = rng.randint(1, 4)
        others.append(rs.StatisticNth(every, rng.randrange(every), maybe(0.3)))
    if stateful and maybe(0.15):
        others.append(
            rs.RecentMatch(
                rng.choice(["set", "rcheck", "update", "remove", "set"]), rng.choice(["A", "B"]),
                rng.choice([None, 5, 60]), rng.choice([None, None, 2]), maybe(0.5), False,
                rng.choice(["rsource", "rdest"]),
                rng.choice([None, "255.255.255.255", "255.255.255.0"]), maybe(0.2),
            )
        )  # fmt: skip
    rng.shuffle(others)
    return (*made, *others)


def target(rng, below, table):
    choices = [None, rs.Verdict("RETURN"), rs.Verdict("ACCEPT"), rs.Verdict("DROP"), rs.SetMark(1, 1),
               rs.SetMark(2, 0),
               rs.Reject("icmp-port-unreachable"), rs.OpaqueTarget("LOG")]  # fmt: skip
    if table == "nat":
        choices += [rs.Dnat("10.0.0.2", (8080, 8080)), rs.Dnat("10.0.1.1", None),
                    rs.Dnat(None, (90, 90), redirect=True),
                    rs.Dnat("10.0.0.2", (8000, 8009), (), "10.0.0.14"), rs.Dnat("10.0.0.2", (70, 90), ("--random",)),
                    rs.Dnat("10.0.0.2", None, ("--persistent",), "10.0.0.4"), rs.Dnat(None, (80, 85), redirect=True),
                    rs.Snat("10.0.0.1", None, (), "10.0.0.9"), rs.Snat("10.0.3.0", (1, 2), ("--random",), "10.0.3.6"),
                    rs.Masquerade(False, None, True),
                    rs.Masquerade(True, (1024, 2048)), rs.Snat("192.168.0.1", (1, 2), ("--random-fully",))]  # fmt: skip
    if below and rng.random() < 0.5:
        return rs.Jump(rng.choice(below), rng.random() < 0.2)
    return rng.choice(choices)


def cascade(rng, below):
    rules = []
    for _ in range(rng.randint(1, 5)):
        probability = rng.choice([2**30, 2**29, 715827883, 2**31, 0, rng.randrange(2**31)])
        rules.append(rs.Rule((rs.CommentMatch("x"), rs.StatisticRandom(probability)), rs.Jump(rng.choice(below))))
    if rng.random() < 0.5:
        rules.append(rs.Rule((), rs.Jump(rng.choice(below))))
    return rules


def dispatch_run(rng, below, table):
    rules = []
    for _ in range(rng.randint(4, 9)):
        made = []
        if rng.random() < 0.7:
            made.append(rs.DestinationAddress(ipaddress.ip_network(rng.choice(ADDRESSES))))
        if rng.random() < 0.2:
            made.append(rs.SourceAddress(ipaddress.ip_network(rng.choice(NETWORKS)), rng.random() < 0.5))
        number, name = rng.choice([(6, "tcp"), (6, "tcp"), (17, "udp")])
        port = rng.choice(PORTS)
        made += [rs.ProtocolMatch(number, name), rs.PortMatch(name, None, (port, port))]
        if rng.random() < 0.2:
            made.append(rs.AddressTypeMatch(None, "LOCAL"))
        rules.append(rs.Rule(tuple(made), target(rng, below, table)))
    return rules


def chain_map(rng, table, stateful):
    names = [f"C{i}" for i in range(rng.randint(1, 6))]
    chains = {}
    for level, name in reversed(list(enumerate(names))):
        chains[name] = rs.Chain(name, rules(rng, names[level + 1 :], table, stateful))
    chains["MARK"] = rs.Chain("MARK", (rs.Rule((), rs.SetMark(1, 1)),))
    built_in = "PREROUTING" if table == "nat" else "FORWARD"
    chains[built_in] = rs.Chain(built_in, rules(rng, [*names, "MARK"], table, stateful), rng.choice(["ACCEPT", "DROP"]))
    return chains


def rules(rng, below, table, stateful):
    made = []
    for _ in range(rng.randint(0, 4)):
        kind = rng.random()
        if below and kind < 0.25:
            made += cascade(rng, below)
        elif kind < 0.45:
            made += dispatch_run(rng, below, table)
        else:
            made.append(rs.Rule(matches(rng, stateful), target(rng, below, table)))
    return tuple(made)


def rulesets(rng, stateful=True):
    """One to three hosts; some share chains."""
    hosts = []
    for _ in range(rng.randint(1, 3)):
        if hosts and rng.random() < 0.6:  # one chain of its own, the others shared by identity
            chains = dict(hosts[0].tables["nat"].chains)
            name = rng.choice(list(chains))
            chains[name] = rs.Chain(name, (*chains[name].rules[1:],), chains[name].policy)
        else:
            chains = chain_map(rng, "nat", stateful)
        filter_chains = chain_map(rng, "filter", stateful)
        hosts.append(
            rs.Ruleset(rs.Family.IPV4, {"nat": rs.Table("nat", chains), "filter": rs.Table("filter", filter_chains)})
        )
    return hosts


def packets(rng, count, hosts, addresses: AddressTable):
    ids = [addresses.intern(a) for a in ADDRESSES]
    draw = np.random.default_rng(rng.randrange(2**32))
    one_value = rng.random() < 0.3
    return PacketColumns.of(
        count,
        host=draw.integers(hosts, size=count), source=draw.choice(ids, count), destination=draw.choice(ids, count),
        source_port=draw.choice([1000, 80, 4000], count), destination_port=draw.choice(PORTS, count),
        protocol=draw.choice([6, 17, 1], count, p=[0.6, 0.3, 0.1]),
        in_interface=draw.integers(-1, 3, count), out_interface=draw.integers(-1, 3, count),
        mark=draw.integers(4, size=count), state=draw.choice([1, 2, 4, 8, 65], count, p=[0.6, 0.1, 0.1, 0.1, 0.1]),
        source_is_local=draw.random(count) < 0.2, destination_is_local=draw.random(count) < 0.4,
        connection=draw.integers(1000, size=count), draw=draw.integers(3, size=count),
        length_bytes=60 if one_value else draw.integers(40, 1500, count),
        packets=1 if one_value else draw.integers(1, 9, count),
        time_ps=np.sort(draw.integers(0, 100 * 10**12, count)),
    )  # fmt: skip


def one(columns: PacketColumns, row: int) -> SimpleNamespace:
    """One packet as plain Python values, for the interpreter."""
    return SimpleNamespace(**{name: getattr(columns, name)[row].item() for name in _COLUMNS})
