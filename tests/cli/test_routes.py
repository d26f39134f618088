"""`simnet routes` as a user calls it: the texts of the seed scenario's specification, and the reasons beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from simnet.cli.main import exit_code
from simnet.cli.routes import command

SEED = Path(__file__).parent / "seed_cluster.yaml"


def routes(*args: str, file: Path = SEED) -> Result:
    return CliRunner().invoke(command, [str(file), *args], catch_exceptions=False)


def wired(tmp_path: Path, wiring: str, mode: str = "bridged") -> Path:
    file = tmp_path / "cluster.yaml"
    file.write_text(SEED.read_text().replace("wiring: S2", f"wiring: {wiring}").replace("bridged}", f"{mode}}}"))
    return file


def test_a_node_prints_what_ip_route_prints() -> None:
    assert routes("--node", "A").stdout == (
        "default via 10.0.0.1 dev eth0\n"
        "10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.11\n"
        "blackhole 192.168.10.0/26 proto bird\n"
        "192.168.10.5 dev calic440f455693 scope link metric 1024\n"
        "192.168.20.64/26 via 10.0.0.12 dev eth0 proto bird metric 1024\n"
    )
    assert routes("--node", "A", "--local").stdout == "local 10.0.0.11 dev eth0 proto kernel scope host src 10.0.0.11\n"


def test_a_switch_prints_its_groups_with_a_line_a_next_hop() -> None:
    assert routes("--switch", "tor").stdout == (
        "10.0.0.0/24 dev br0 proto kernel scope link src 10.0.0.1\n"
        "192.168.10.0/26 via 10.0.0.11 dev br0 proto bird\n"
        "192.168.20.64/26 via 10.0.0.12 dev br0 proto bird\n"
        "203.0.113.0/24 proto bird\n"
        "\tnexthop via 10.0.0.11 dev br0 weight 1\n"
        "\tnexthop via 10.0.0.12 dev br0 weight 1\n"
        "203.0.113.80 via 10.0.0.12 dev br0 proto bird\n"
    )


def test_a_switchs_bgp_table_is_printed_as_frr_prints_it() -> None:
    assert (
        routes("--switch", "tor", "--format", "bgp").stdout
        == """\
BGP table version is 0, local router ID is 10.0.0.1, vrf id 0
Default local pref 100, local AS 65001
Status codes:  s suppressed, d damped, h history, * valid, > best, = multipath,
               i internal, r RIB-failure, S Stale, R Removed
Origin codes:  i - IGP, e - EGP, ? - incomplete

    Network          Next Hop            Metric LocPrf Weight Path
 *> 192.168.10.0/26  10.0.0.11                              0 64512 i
 *> 192.168.20.64/26 10.0.0.12                              0 64512 i
 *> 203.0.113.0/24   10.0.0.11                              0 64512 i
 *=                  10.0.0.12                              0 64512 i
 *> 203.0.113.80/32  10.0.0.12                              0 64512 i

Displayed  4 routes and 5 total paths
"""
    )


def test_a_reflecting_switch_shows_internal_paths_with_local_pref(tmp_path: Path) -> None:
    lines = routes("--switch", "tor", "--format", "bgp", file=wired(tmp_path, "S4")).stdout.splitlines()
    assert " *>i192.168.20.64/26 10.0.0.12" + " " * 17 + "2147482623      0 i" in lines  # wider than its column


def test_why_names_the_rule_of_each_route_path_and_missing_prefix() -> None:
    lines = routes("--node", "A", "--why").stdout.splitlines()
    assert all("  # " in line for line in lines[:5])
    assert lines[5:] == [
        "# paths not taken:",
        "#   192.168.20.64/26 from tor next hop 10.0.0.12: own AS 64512 in AS_PATH (RFC 4271, 9.1.2)",
        "#   203.0.113.0/24 from B next hop 10.0.0.12: "
        "a route of its own (preference 200) beats one that BGP brought (100)",
        "#   203.0.113.80/32 from tor next hop 10.0.0.12: own AS 64512 in AS_PATH (RFC 4271, 9.1.2)",
        "# not told to anyone:",
        "#   192.168.10.5/32: within 192.168.10.0/26, a block of its own, which is told as one aggregate",
        "#   10.96.0.80/32: default/v: in no CIDR of serviceClusterIPs",
        "#   203.0.113.80/32: default/v: externalTrafficPolicy Local, and no ready endpoint on this node",
        "# not told by this box:",
        "#   192.168.20.64/26 to tor: export filter: learned from a BGP peer",
        "#   203.0.113.80/32 to tor: export filter: learned from a BGP peer",
    ]


@pytest.mark.parametrize(
    ("wiring", "mode", "at_a"),
    [
        ("S1", "bridged", None),
        ("S2", "routed", "192.168.20.64/26 via 10.0.0.1 dev eth0 proto bird metric 1024"),
        ("S4", "bridged", "192.168.20.64/26 via 10.0.0.12 dev eth0 proto bird metric 1024"),
        ("S5", "bridged", "192.168.20.64/26 via 10.0.0.12 dev eth0 proto bird metric 2147483547"),
        ("S5", "routed", "192.168.20.64/26 via 10.0.0.1 dev eth0 proto bird metric 2147483547"),
    ],
)
def test_the_wiring_decides_how_a_reaches_bs_block(tmp_path: Path, wiring: str, mode: str, at_a: str | None) -> None:
    lines = routes("--node", "A", file=wired(tmp_path, wiring, mode)).stdout.splitlines()
    assert [line for line in lines if line.startswith("192.168.20.64/26")] == ([at_a] if at_a else [])


def test_json_holds_the_routes_and_with_why_the_paths() -> None:
    told = json.loads(routes("--switch", "tor", "--format", "json", "--why").stdout)
    assert told["device"] == "tor"
    assert told["bgp"]["as"] == 65001
    group = next(route for route in told["routes"] if route["prefix"] == "203.0.113.0/24")
    assert group["nextHops"] == [{"via": "10.0.0.11", "dev": "br0"}, {"via": "10.0.0.12", "dev": "br0"}]
    paths = next(each["paths"] for each in told["bgp"]["prefixes"] if each["prefix"] == "203.0.113.0/24")
    assert [(path["peer"], path["best"], path["multipath"], path["asPath"]) for path in paths] == [
        ("A", True, True, [64512]),
        ("B", False, True, [64512]),
    ]
    assert "bgp" not in json.loads(routes("--node", "A", "--format", "json").stdout)


def test_an_unknown_box_is_answered_with_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["routes", str(SEED), "--switch", "toor"]) == 2
    assert capsys.readouterr().err == (
        "command line: --switch\n"
        "  found:    toor\n"
        "  expected: a switch of the cluster: tor\n"
        "  fix:      did you mean tor?\n"
    )
    assert exit_code(["routes", str(SEED)]) == 2
    assert "give --node NODE or --switch NAME" in capsys.readouterr().err
