"""Route tables that people posted, read as tables; what is none is refused with its line."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simnet.controlplane.route_lines import route_lines
from simnet.errors import InputError
from simnet.model.fib import Fib, NextHop, Route, RouteKind
from simnet.model.route_text import parse_routes, routes_in

TABLES = {  # file -> routes of the main table, hidden by metric, of other tables, passed over
    "bird-31-gce-gateway.ip-route": (5, 0, 0, 0),
    "calico-9010-ecmp-borrowed.ip-route": (41, 1, 0, 0),
    "newrelic-proc-net-route--route": (4, 0, 0, 0),
    "yaobank-worker1.ip-route": (10, 0, 0, 0),
    "ynote-router-route-n.txt": (10, 3, 0, 0),
    "test_ip.py.IP_ROUTE_SHOW_TABLE_ALL_TEST.txt": (6, 3, 2, 3),
    "test_ip.py.IP_ROUTE_SHOW_TABLE_ALL_TEST_2.txt": (27, 0, 2, 17),
}


def _real(shared_cases: Path, name: str) -> str:
    (found,) = (shared_cases / "real" / "routes").rglob(name)
    return found.read_text()


def _route(fib: Fib, prefix: str) -> Route:
    return next(route for route in fib.routes if route.prefix == ipaddress.ip_network(prefix))


def test_every_real_file_is_a_table_or_refused_with_line_and_advice(shared_cases: Path) -> None:
    files = [file for file in sorted((shared_cases / "real" / "routes").rglob("*")) if file.is_file()]
    assert len(files) == 13
    read = {}
    for file in files:
        try:
            found = parse_routes(file.read_text(), device="box", file=file.name)
        except InputError as error:
            assert file.name not in TABLES
            for problem in error.problems:
                assert problem.where.file == file.name
                assert problem.where.line > 0
                assert problem.fix
        else:
            read[file.name] = tuple(map(len, (found.fib.routes, found.hidden, found.other_tables, found.passed_over)))
    assert read == TABLES


def test_ecmp_borrowed_addresses_blackhole_and_unreachable(shared_cases: Path) -> None:
    found = parse_routes(_real(shared_cases, "calico-9010-ecmp-borrowed.ip-route"))
    group = _route(found.fib, "172.27.5.128/26")
    assert group.next_hops == (NextHop("eth0", "10.77.7.160"), NextHop("eth1", "10.83.147.123"))
    assert (group.kind, group.protocol) == (RouteKind.VIA, "bird")
    assert _route(found.fib, "172.27.10.64/26").kind is RouteKind.UNREACHABLE
    assert _route(found.fib, "172.27.198.192/26").kind is RouteKind.BLACKHOLE
    borrowed = _route(found.fib, "172.27.198.225/32")  # within the own block, at another node
    assert borrowed.next_hops == (NextHop("tunl0", "10.77.20.145"),)
    assert _route(found.fib, "172.27.198.195/32").kind is RouteKind.DIRECT
    assert [route.metric for route in found.hidden] == [1003]  # 169.254.0.0/16 a second time
    assert dict(found.flags)[ipaddress.ip_network("172.27.198.225/32")] == "onlink"


def test_route_n_and_proc_net_route(shared_cases: Path) -> None:
    router = parse_routes(_real(shared_cases, "ynote-router-route-n.txt")).fib
    assert _route(router, "10.244.240.64/26").next_hops == (NextHop("eth2", "12.1.0.253"),)
    assert _route(router, "11.1.0.0/24").kind is RouteKind.DIRECT
    host = parse_routes(_real(shared_cases, "newrelic-proc-net-route--route")).fib
    assert [(str(route.prefix), route.next_hops[0], route.metric) for route in host.routes] == [
        ("10.0.128.0/19", NextHop("ens5"), 100),
        ("10.128.0.0/14", NextHop("tun0"), None),
        ("172.30.0.0/16", NextHop("tun0"), None),
        ("0.0.0.0/0", NextHop("ens5", "10.0.128.1"), 100),
    ]


def test_what_simnet_prints_of_a_read_table_is_the_text_without_flags(shared_cases: Path) -> None:
    for name in ("yaobank-worker1.ip-route", "bird-31-gce-gateway.ip-route"):
        text = _real(shared_cases, name)
        printed = [" ".join(line.split()) for line in route_lines(parse_routes(text).fib)]
        assert printed == [" ".join(line.replace(" linkdown", "").split()) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("10.0.0.0/24 dev eth0\nff01::/16 dev\n", 2, "`dev` at the end of the line"),
        ("10.0.0.0/24 proto bird\n", 1, "10.0.0.0/24 proto bird"),
        ("nexthop via 10.0.0.1 dev eth0\n", 1, "nexthop via 10.0.0.1 dev eth0"),
        ("10.0.0.0/24 proto bird\n\tnexthop via 10.0.0.1 dev eth0 weight 300\n", 2, "weight 300"),
        ("10.0.0.300 dev eth0\n", 1, "10.0.0.300"),
        ("10.0.0.1/24 dev eth0\n", 1, "10.0.0.1/24"),
        ("default via 10.0.0.1\n", 1, "default via 10.0.0.1 without dev"),
        ("10.0.0.0/24 dev eth0 metric low\n", 1, "metric low"),
        ("10.0.0.0/24 dev eth0 tableau main\n", 1, "the word 'tableau'"),
        ("\n\n", 2, "no route"),
        ("Destination Gateway Genmask Flags Metric Ref Use Iface\n10.0.0.0 * 255.0.0.0 U 0 0 0\n", 2,
         "10.0.0.0 * 255.0.0.0 U 0 0 0"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_route_is_refused_by_its_number(text: str, line: int, found: str) -> None:
    with pytest.raises(InputError) as error:
        parse_routes(text, file="routes.txt")
    problem = next(each for each in error.value.problems if each.where.line == line)
    assert problem.found == found


@st.composite
def _fibs(draw: st.DrawFn) -> Fib:
    """Tables as simnet makes them: a route a prefix, of every kind."""
    prefixes = draw(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 32)), max_size=8))
    routes = {}
    hops = st.builds(NextHop, st.sampled_from(["eth0", "br0"]), st.ip_addresses(v=4).map(str))
    for number, length in prefixes:
        prefix = ipaddress.ip_network((number, length), strict=False)
        kind = draw(st.sampled_from([RouteKind.VIA, RouteKind.DIRECT, RouteKind.BLACKHOLE, RouteKind.UNREACHABLE]))
        next_hops: tuple[NextHop, ...] = ()
        if kind is RouteKind.VIA:
            next_hops = tuple(draw(st.lists(hops, min_size=1, max_size=4)))
        elif kind is RouteKind.DIRECT:
            next_hops = (NextHop("cali0"),)
        routes[prefix] = Route(
            prefix, kind, next_hops, draw(st.sampled_from(["boot", "bird", "kernel"])),
            draw(st.none() | st.integers(1, 2**31 - 1)),
            draw(st.none() | st.just("10.0.0.11")) if kind is not RouteKind.VIA else None,
            kind is RouteKind.DIRECT,
        )  # fmt: skip
    return Fib("box", tuple(routes.values()))


@given(_fibs())
def test_reading_what_simnet_prints_gives_the_table_back(fib: Fib) -> None:
    lines = route_lines(fib)
    if not lines:
        return
    read = parse_routes("\n".join(lines), device="box").fib
    assert read == fib
    assert list(routes_in(read)) == list(routes_in(fib))


def test_weights_of_next_hops_are_read_and_printed() -> None:
    lines = ["10.0.0.0/24 proto bird", "\tnexthop via 10.0.1.1 dev eth0 weight 3", "\tnexthop dev eth1 weight 1"]
    read = parse_routes("\n".join(lines), device="box").fib
    assert [hop.weight for hop in read.routes[0].next_hops] == [3, 1]
    assert route_lines(read) == lines
