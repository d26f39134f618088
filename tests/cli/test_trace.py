"""`simnet trace`, `simnet shares`, `simnet rules` as a user calls them."""

from __future__ import annotations

import csv
import io
import json
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner

from simnet.cli import main as cli

CLUSTER = """
nodes: [{name: a, addresses: [10.0.0.11]}, {name: b, addresses: [10.0.0.12]}]
objects:
  - apiVersion: v1
    kind: Pod
    metadata: {name: one, labels: {app: web}}
    spec: {nodeName: a, containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
  - apiVersion: v1
    kind: Pod
    metadata: {name: two, labels: {app: web}}
    spec: {nodeName: b, containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
  - apiVersion: v1
    kind: Service
    metadata: {name: web}
    spec:
      type: NodePort
      clusterIP: 10.96.0.80
      selector: {app: web}
      ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER)
    return str(path)


def told(*args: str, code: int = 0) -> tuple[str, str]:
    """Run the command; (stdout, stderr) of it."""
    import contextlib

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert cli.exit_code(list(args)) == code, err.getvalue()
    assert "Traceback" not in err.getvalue()
    return out.getvalue(), err.getvalue()


def test_all_ways_as_json_sum_to_one(file):
    out, _ = told("trace", file, "--from", "198.51.100.10", "--to", "10.0.0.11:30080", "--all", "--json")
    outcomes = json.loads(out)["outcomes"]
    assert sum(each["probability"] for each in outcomes) == 1
    assert {(each["verdict"], each["pod"], each["source_seen"]) for each in outcomes} == {
        ("delivered", "default/one", "10.0.0.11"),
        ("delivered", "default/two", "10.0.0.11"),
    }


def test_one_way_as_text_shows_each_rule(file):
    out, _ = told("trace", file, "--from", "pod:default/one", "--to", "service:default/web:80", "--seed", "3")
    assert "one branch (seed 3" in out
    assert "-A KUBE-SERVICES -d 10.96.0.80/32" in out
    assert sum(line.startswith("probability ") for line in out.splitlines()) == 1


def test_one_nodes_rules_alone(file):
    out, _ = told(
        "trace", file, "--from", "198.51.100.10", "--to", "10.0.0.11:30080", "--node", "b", "--all", "-o", "json"
    )
    assert [each["verdict"] for each in json.loads(out)["outcomes"]] == ["none"]


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (("--from", "nobody", "--to", "10.0.0.11:1"), "an address, pod:NAMESPACE/NAME"),
        (("--from", "10.0.0.11", "--to", "10.0.0.11:1", "--node", "c"), "a node of the cluster: a, b"),
        (("--from", "10.0.0.11", "--to", "10.0.0.11:1", "--proto", "icmp"), "tcp, udp or sctp"),
    ],
)
def test_wrong_ends_exit_with_2_and_say_what_is_expected(file, args, what):
    out, err = told("trace", file, *args, code=2)
    assert out == ""
    assert what in err


def test_shares_print_as_table_json_and_csv_with_the_same_rows(file):
    table, _ = told("shares", file)
    rows = json.loads(told("shares", file, "-o", "json")[0])["shares"]
    lines = list(csv.DictReader(io.StringIO(told("shares", file, "-o", "csv")[0])))
    assert len(table.splitlines()) - 1 == len(rows) == len(lines)
    assert [row["exact"] for row in rows] == [line["exact"] for line in lines]
    outside = [row for row in rows if row["entry"] == "NodePort" and row["client"] == "outside"]
    assert sum(Fraction(row["exact"]) for row in outside) == 2  # two addresses
    told("shares", file, "--service", "default/none", code=2)


def test_rules_print_in_all_forms_and_one_table_of_them(file):
    saved, _ = told("rules", file, "--node", "a")
    nat, _ = told("rules", file, "--node", "a", "--table", "nat")
    assert nat in saved
    assert nat.startswith("*nat\n")
    assert nat.endswith("COMMIT\n")
    assert "--or-mark" in told("rules", file, "--node", "a", "--format", "restore")[0]
    listed, _ = told("rules", file, "--node", "a", "--format", "list", "--chain", "KUBE-SERVICES")
    assert listed.startswith("Chain KUBE-SERVICES (2 references)\n pkts bytes target ")
    told("rules", file, "--node", "a", "--format", "list", "--chain", "NO-SUCH", code=2)


def test_explained_rules_show_both_chances(file):
    out, _ = told("rules", file, "--node", "a", "--explain")
    assert "0.50000000   0.50000000" in out
    assert "1.00000000   0.50000000" in out


def test_a_real_dump_is_compared_and_what_differs_ends_with_1(file, tmp_path):
    saved, _ = told("rules", file, "--node", "a")
    dump = tmp_path / "dump"
    dump.write_text(saved)
    assert "agrees with" in told("rules", file, "--node", "a", "--check", str(dump))[0]
    lost = next(line for line in saved.splitlines() if "10.96.0.80" in line and "-A KUBE-SERVICES" in line)
    dump.write_text(saved.replace(lost + "\n", ""))
    out, _ = told("rules", file, "--node", "a", "--check", str(dump), code=1)
    assert f"missing  nat                {lost}" in out
    assert out.endswith("1 missing\n")
    told("rules", file, "--node", "a", "--check", str(tmp_path / "none"), code=2)


def test_help_of_each_command_names_its_options():
    for name, option in (("trace", "--from"), ("shares", "--service"), ("rules", "--check")):
        assert option in CliRunner().invoke(cli.group, [name, "--help"]).output
