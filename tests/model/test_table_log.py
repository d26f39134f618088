"""A table kept as changes is at each of them what it would have been, kept whole."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from simnet.model.fib import Fib, NextHop, Route, RouteKind, Way, print_order
from simnet.model.table_log import RouteLog, TableLog

PREFIXES = [
    ipaddress.ip_network(text)
    for text in ("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "10.0.0.0/32", "10.0.1.0/24", "fd00::/64", "fd00::1/128")
]
WAYS = [Way((NextHop("eth0", f"10.9.0.{i}"),), "bird", 1024, f"told by {i}") for i in range(3)]
prefixes = st.sampled_from(PREFIXES)
ways = st.sampled_from(WAYS)


def blackhole(prefix):
    return Route(prefix, RouteKind.BLACKHOLE, (), "bird")


@given(
    st.dictionaries(prefixes, ways),
    st.lists(st.dictionaries(prefixes, st.none() | ways), max_size=6),
    st.sets(prefixes, max_size=3),
    st.sets(prefixes, max_size=3),
    st.data(),
)
def test_a_log_gives_the_table_after_any_number_of_changes_in_any_order_of_asking(start, deltas, own, hidden, data):
    table = TableLog("n", RouteLog(start), {prefix: blackhole(prefix) for prefix in own}, hidden)
    now, whole = dict(start), [dict(start)]
    for delta in deltas:
        table.log.change(delta)
        now = {prefix: way for prefix, way in {**now, **delta}.items() if way is not None}
        whole.append(now)
    for number in data.draw(st.lists(st.integers(0, len(deltas)), max_size=8)):
        routes = [way.to(prefix) for prefix, way in whole[number].items() if prefix not in own | hidden]
        routes += [blackhole(prefix) for prefix in own]
        routes.sort(key=lambda route: print_order(route.prefix))
        assert table.fib(number) == Fib("n", tuple(routes))


@given(st.sets(prefixes, max_size=3), st.sets(prefixes))
def test_a_change_of_prefixes_that_a_table_has_for_itself_is_none_of_it(own, changed):
    table = TableLog("n", RouteLog({}), {prefix: blackhole(prefix) for prefix in own})
    assert table.changes(changed) == bool(changed - own)


def test_routes_of_one_way_are_the_same_object_each_time():
    """So that what compiles tables meets each route once."""
    assert WAYS[0].to(PREFIXES[1]) is WAYS[0].to(PREFIXES[1])
