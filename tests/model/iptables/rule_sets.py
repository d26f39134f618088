"""Random rule sets, in the form in which a parser hands them on."""

from __future__ import annotations

import ipaddress

from hypothesis import strategies as st

from simnet.model.iptables import ruleset as rs
from simnet.model.iptables.extensions import ADDRESS_TYPES, CONNTRACK_STATES, REJECT_TYPES, TCP_FLAGS

ports = st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(lambda pair: (min(pair), max(pair)))
port_ranges = ports.filter(lambda pair: pair != (0, 65535))
u32 = st.integers(0, 2**32 - 1)
names = st.from_regex(r"[A-Za-z0-9_.:-]{1,14}", fullmatch=True).filter(lambda name: name[0] not in "-:.")
comments = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=40)


def ordered(allowed: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.sets(st.sampled_from(allowed), min_size=1).map(lambda held: tuple(n for n in allowed if n in held))


def networks(family: rs.Family) -> st.SearchStrategy[rs.IPNetwork]:
    kind, bits = (ipaddress.IPv4Network, 32) if family is rs.Family.IPV4 else (ipaddress.IPv6Network, 128)
    return st.builds(
        lambda address, prefix: kind((address >> (bits - prefix) << (bits - prefix), prefix)),
        st.integers(0, 2**bits - 1), st.integers(1, bits),
    )  # fmt: skip


def addresses(family: rs.Family) -> st.SearchStrategy[str]:
    kind = ipaddress.IPv4Address if family is rs.Family.IPV4 else ipaddress.IPv6Address
    return st.integers(0, 2 ** (32 if family is rs.Family.IPV4 else 128) - 1).map(lambda bits: str(kind(bits)))


flags = st.booleans()
loose_matches = st.one_of(
    st.builds(rs.CommentMatch, comments),
    st.builds(rs.MarkMatch, u32, u32, flags),
    st.builds(rs.StatisticRandom, st.integers(0, 2**31), flags),
    st.integers(1, 1000).flatmap(lambda n: st.builds(rs.StatisticNth, st.just(n), st.integers(0, n - 1), flags)),
    st.builds(
        rs.RecentMatch,
        st.sampled_from(["set", "rcheck", "update", "remove"]),
        names,
        st.none() | st.integers(1, 10**6),
        st.none() | st.integers(1, 20),
        flags,
        flags,
        st.sampled_from(["rsource", "rdest"]),
        negated=flags,
    ),
    st.builds(
        rs.AddressTypeMatch,
        ordered(ADDRESS_TYPES).map(",".join),
        st.none() | ordered(ADDRESS_TYPES).map(",".join),
        flags,
        st.just(False),
        st.sampled_from([None, "in", "out"]),
    ),
    st.builds(rs.ConntrackStateMatch, ordered(CONNTRACK_STATES), flags),
    st.builds(rs.ConntrackStateMatch, ordered(CONNTRACK_STATES[:5]), flags, st.just("state")),
    st.builds(rs.NfacctMatch, names),
    st.builds(
        lambda name, side: rs.OpaqueMatch("set", ("--match-set", name, side)), names, st.sampled_from(["src", "dst"])
    ),
)


@st.composite
def rules(draw: st.DrawFn, family: rs.Family, chains: list[str]) -> rs.Rule:
    matches: list[rs.Match] = []
    for kind in (rs.SourceAddress, rs.DestinationAddress):
        if draw(st.booleans()):
            matches.append(kind(draw(networks(family)), draw(flags)))
    for interface in (rs.InInterface, rs.OutInterface):
        if draw(st.booleans()):
            matches.append(interface(draw(names), draw(flags)))
    later = draw(st.lists(loose_matches, max_size=3))
    if draw(st.booleans()):
        number, name = draw(st.sampled_from([(6, "tcp"), (17, "udp"), (132, "sctp")]))
        matches.append(rs.ProtocolMatch(number, name))
        if draw(st.booleans()):
            source, destination = draw(st.none() | port_ranges), draw(st.none() | port_ranges)
            port_match: list[rs.Match] = [rs.PortMatch(name, source, destination, source is not None and draw(flags),
                                                       destination is not None and draw(flags))]  # fmt: skip
            if name == "tcp" and draw(st.booleans()):
                port_match.append(
                    rs.TcpFlagsMatch(draw(ordered(tuple(TCP_FLAGS))), draw(ordered(tuple(TCP_FLAGS))), draw(flags))
                )
            at = draw(st.integers(0, len(later)))
            later[at:at] = port_match
        if draw(st.booleans()):
            ranges = tuple(draw(st.lists(ports, min_size=1, max_size=7)))
            later.append(rs.MultiportMatch(ranges, draw(st.sampled_from(["sports", "dports", "ports"])), draw(flags)))
    address = addresses(family)
    options = st.sets(st.sampled_from(["--random", "--random-fully", "--persistent"])).map(
        lambda held: tuple(o for o in ("--random", "--random-fully", "--persistent") if o in held)
    )
    target = draw(st.one_of(
        st.none(),
        st.builds(rs.Verdict, st.sampled_from(["ACCEPT", "DROP", "RETURN"])),
        st.builds(rs.Jump, st.sampled_from(chains), flags),
        st.builds(rs.Reject, st.sampled_from(sorted(set(REJECT_TYPES[family].values())))),
        st.builds(rs.SetMark, u32, u32),
        st.builds(rs.Dnat, address, st.none() | ports, options, st.none() | address),
        st.builds(rs.Dnat, st.none(), ports, st.sampled_from([(), ("--random",)]), redirect=st.just(True)),
        st.builds(rs.Snat, address, st.none() | ports, options, st.none() | address),
        st.builds(rs.Masquerade, flags, st.none() | ports, flags),
        st.builds(lambda text: rs.OpaqueTarget("LOG", ("--log-prefix", text)), comments),
    ))  # fmt: skip
    return rs.Rule((*matches, *later), target, draw(st.integers(0, 2**40)), draw(st.integers(0, 2**40)))


@st.composite
def rule_sets(draw: st.DrawFn) -> rs.Ruleset:
    family = draw(st.sampled_from(rs.Family))
    tables = {}
    for name in draw(st.permutations(rs.TABLES))[: draw(st.integers(1, 2))]:
        own = sorted(draw(st.sets(st.from_regex(r"KUBE-[A-Z0-9]{1,12}", fullmatch=True), min_size=1, max_size=3)))
        held = {}
        for chain in (*rs.BUILT_IN_CHAINS[name], *own):
            policy = draw(st.sampled_from(["ACCEPT", "DROP"])) if chain not in own else None
            held[chain] = rs.Chain(chain, tuple(draw(st.lists(rules(family, own), max_size=2))), policy)
        tables[name] = rs.Table(name, held)
    return rs.Ruleset(family, tables)
