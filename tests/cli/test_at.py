"""`simnet routes --at` and `simnet trace --at`: the tables of an instant of an experiment's run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simnet.cli.main import exit_code

MANIFEST = Path(__file__).parents[2] / "experiments" / "manifests" / "nginx-demo.yaml"
SEED = Path(__file__).parent / "seed_cluster.yaml"
EVENTS = "[{at: 2s, node: node-2, do: die, for: 2s}, {at: 1s, link: [tor, node-2], do: silent, for: 500ms}]"
TO_NODE_2 = "192.168.64.58 dev p-node-2 proto kernel scope link src 192.168.64.1\n"


def written(folder: Path, events: str = EVENTS) -> str:
    file = folder / "experiment.yaml"
    file.write_text(f"""
name: failures
cluster:
  objects: [{MANIFEST}]
  nodes: {{count: 2}}
  calico: {{bgp: {{gracefulRestart: none}}}}
  fabric: {{bgp: {{bfd: 300ms}}}}  # which a session uses where both ends have it
workload:
  clients: {{count: 50, from: 198.51.100.0/24}}
  flows: {{arrivals: {{poisson: 1000/s}}, packets: 4, packetSize: 1000B}}
variants:
  first: {{entry: ExternalIP, service: nginx-demo-1}}
  second: {{entry: ExternalIP, service: nginx-demo-1}}
run: {{duration: 6s, repeat: 2, seed: 1}}
events: {events}
""")
    return str(file)


@pytest.fixture
def told(capsys):
    """Run a command: (stdout, stderr)."""

    def run(*args: str, code: int = 0) -> tuple[str, str]:
        assert exit_code(list(args)) == code
        out = capsys.readouterr()
        assert "Traceback" not in out.err
        return out.out, out.err

    return run


def test_a_switch_loses_the_routes_to_a_node_that_died_and_gets_them_again(tmp_path, told):
    file = written(tmp_path)
    at = {time: told("routes", file, "--switch", "tor", "--at", time) for time in ("0s", "2s", "2.1s", "6s")}
    whole = at["0s"][0]
    assert TO_NODE_2 in whole
    assert "10.217.69.128/26 via 192.168.64.58 dev p-node-2 proto bird\n" in whole
    assert at["2s"][0] == whole  # nobody has noticed yet
    assert "p-node-2" not in at["2.1s"][0]
    assert set(at["2.1s"][0].splitlines()) < set(whole.splitlines())
    assert at["6s"][0] == whole
    assert "  device down: node-2\n  link down: " in at["2s"][1]
    assert "down" not in at["6s"][1]


def test_at_the_start_the_table_is_the_converged_one(tmp_path, told):
    file = written(tmp_path)
    for box in (("--node", "node-1"), ("--node", "node-2")):
        for form in ("ip", "json"):
            args = ("routes", file, *box, "--format", form)
            assert told(*args, "--at", "0s")[0] == told(*args)[0]


def test_json_is_of_that_instant_too(tmp_path, told):
    file = written(tmp_path)
    routes = json.loads(told("routes", file, "--switch", "tor", "--at", "3s", "--format", "json")[0])["routes"]
    learned = [route for route in routes if route["type"] != "local"]  # addresses stay when a carrier goes
    assert {hop["dev"] for route in learned for hop in route["nextHops"]} == {"p-node-1", "p-clients"}


def test_a_trace_is_lost_where_the_wire_or_the_route_is_gone(tmp_path, told):
    file = written(tmp_path)
    ends = ("--from", "198.51.100.1", "--to", "192.168.64.58:8088", "--all", "--json")
    fates = {}
    for time in ("0s", "1.2s", "1.5s", "2s", "3s", "6s"):
        outcomes = json.loads(told("trace", file, *ends, "--at", time)[0])["outcomes"]
        fates[time] = {(each["verdict"], each["reason"]) for each in outcomes}
    there = fates["0s"]
    assert ("lost", "link down") not in there
    assert fates["1.5s"] == fates["6s"] == there
    assert fates["1.2s"] == fates["2s"] == {("lost", "link down")}
    assert fates["3s"] == {("lost", "no route")}
    text, _ = told("trace", file, *ends[:4], "--at", "1.2s")
    assert "stopped     link down" in text


def test_which_run_it_is_of_is_told_and_can_be_chosen(tmp_path, told):
    file = written(tmp_path)
    _, first = told("routes", file, "--node", "node-1", "--at", "1s")
    assert first.startswith("at 1s of variant first, repetition 0, seed ")
    _, other = told("routes", file, "--node", "node-1", "--at", "1s", "--variant", "second", "--repeat", "1")
    assert other.startswith("at 1s of variant second, repetition 1, seed ")
    _, again = told("routes", file, "--node", "node-1", "--at", "1s", "--seed", "2")
    assert first.splitlines()[0] != again.splitlines()[0]
    _, quiet = told("routes", written(tmp_path, "[]"), "--node", "node-1", "--at", "1s")
    assert "no events" in quiet


def test_a_point_of_the_sweep_can_be_chosen(tmp_path, told):
    file = written(tmp_path, "[{at: 1s, link: [tor, node-2], do: silent}]\nsweep: {calico.bgp.bfd: [none, 300ms]}")
    args = ("routes", file, "--switch", "tor", "--at", "3s")
    assert "10.217.69.128/26" in told(*args)[0]  # no hold time has run out
    out, err = told(*args, "--point", "calico.bgp.bfd=300ms")
    assert "10.217.69.128/26" not in out
    assert "variant first, calico.bgp.bfd=300ms, repetition 0" in err
    _, err = told(*args, "--point", "calico.bgp.bfd=1s", code=2)
    assert "calico.bgp.bfd=none, calico.bgp.bfd=300ms" in err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--at", "7s"), "from 0s to the end of the run, 6s"),
        (("--at", "7"), "a time with its unit"),
        (("--at", "1s", "--variant", "third"), "one of the variants first, second"),
        (("--at", "1s", "--repeat", "2"), "a repetition from 0 to 1"),
        (("--repeat", "1"), "--variant, --point and --repeat go with --at"),
        (("--at", "1s", "--point", "seed"), "give NAME=VALUE"),
        (("--at", "1s", "--point", "calico.wiring=S1"), "none: it does not sweep"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(tmp_path, told, args, said):
    out, err = told("routes", written(tmp_path), "--node", "node-1", *args, code=2)
    assert out == ""
    assert said in err


def test_a_cluster_file_has_no_run_and_one_nodes_rules_no_instant(tmp_path, told):
    assert "no workload" in told("routes", str(SEED), "--node", "A", "--at", "1s", code=2)[1]
    ends = ("--from", "198.51.100.1", "--to", "192.168.64.58:8088")
    args = ("trace", written(tmp_path), *ends, "--node", "node-1", "--at", "1s")
    assert "leave --at or --node away" in told(*args, code=2)[1]


def test_rules_and_traces_follow_a_drained_node(tmp_path, told):
    file = written(tmp_path, "[{at: 1s, node: node-2, do: drain, gracePeriod: 2s}]")
    at = {time: told("rules", file, "--node", "node-1", "--at", time) for time in ("0s", "1s", "1.5s", "4s")}
    assert at["1s"][0] == at["0s"][0]  # nobody has heard yet
    assert at["1.5s"][0] == at["4s"][0] != at["0s"][0]
    gone = set(at["0s"][0].splitlines()) - set(at["4s"][0].splitlines())
    assert any("--to-destination 10.217.69.128:80" in line for line in gone)
    assert at["1.5s"][1] == "at 1.5s of variant first, repetition 0, seed " + at["1.5s"][1].split()[-1] + "\n"
    assert at["4s"][1].endswith("\n  pod ended: default/nginx-demo-1-1\n")
    pods = {}
    for time in ("0s", "1.5s", "4s"):
        out, _ = told(
            "trace", file, "--from", "198.51.100.0", "--to", "192.168.64.57:8088", "--at", time, "--all", "--json"
        )
        pods[time] = [outcome["pod"] for outcome in json.loads(out)["outcomes"]]
    assert sorted(pods["0s"]) == ["default/nginx-demo-1-0", "default/nginx-demo-1-1"]
    assert pods["1.5s"] == pods["4s"] == ["default/nginx-demo-1-0"]
    told("rules", file, "--node", "node-1", "--at", "1s", "--check", "x", code=2)
    told("rules", file, "--node", "node-1", "--point", "a=1", code=2)


def test_a_switchs_bgp_table_of_an_instant_has_lost_what_a_dead_node_told(tmp_path, told):
    file = written(tmp_path)
    show = ("routes", file, "--switch", "tor", "--format", "bgp")
    steady = told(*show)[0]
    assert told(*show, "--at", "2s") == (steady, told(*show, "--at", "2s")[1])  # nobody has noticed yet
    table, err = told(*show, "--at", "2.1s", "--why")
    assert "bgp of tor running; sessions: node-1 Established, node-2 Idle" in err
    assert " *> 10.217.69.128/26" in steady
    assert "192.168.64.58" not in table
    assert "the only path, told by node-1" in table
    assert told(*show, "--at", "6s")[0] == steady
    nobody, err = told("routes", file, "--node", "node-2", "--format", "bgp", "--at", "3s")
    assert "bgp of node-2 not running" in err
    assert "Displayed  0 routes" in nobody


def test_paths_of_a_peer_that_restarts_gracefully_are_stale(tmp_path, told):
    file = written(tmp_path, "[{at: 1s, bgp: node-2, do: kill, for: 4s}]")
    text = Path(file).read_text().replace("gracefulRestart: none", "gracefulRestart: 120s")
    Path(file).write_text(text.replace("bfd: 300ms", "gracefulRestartHelper: true"))
    show = ("routes", file, "--switch", "tor", "--at", "2s")
    assert " S> 10.217.69.128/26 192.168.64.58" in told(*show, "--format", "bgp")[0]
    paths = {
        path["peer"]: path["stale"]
        for entry in json.loads(told(*show, "--format", "json", "--why")[0])["bgp"]["prefixes"]
        for path in entry["paths"]
    }
    assert paths == {"node-1": False, "node-2": True}


def test_a_node_no_longer_tells_of_a_service_whose_last_pod_here_is_gone(tmp_path, told):
    file = written(tmp_path, "[{at: 1s, node: node-2, do: drain}]")
    text = Path(file).read_text().replace("calico: {", "calico: {serviceExternalIPs: [192.168.64.57/32], ")
    Path(file).write_text(text.replace("  fabric:", "  externalTrafficPolicy: Local\n  fabric:"))
    told_of, err = told("routes", file, "--node", "node-2", "--why", "--at", "5s")
    assert "192.168.64.57/32: withdrawn by this time (see events)" in told_of
    assert "withdrawn" not in told("routes", file, "--node", "node-2", "--why", "--at", "0s")[0]
    assert "bgp of node-2 running" in err
