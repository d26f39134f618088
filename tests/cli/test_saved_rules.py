"""`nodes[].iptables` from the command line: what is not modelled is refused with its line, or left out and named."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest

from simnet.cli import main as cli

CLUSTER = """
nodes:
  - {name: a, addresses: [10.0.0.11], iptables: a.save}
  - {name: b, addresses: [10.0.0.12]}
objects:
  - apiVersion: v1
    kind: Pod
    metadata: {name: one, labels: {app: web}}
    spec: {nodeName: a, containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
  - apiVersion: v1
    kind: Service
    metadata: {name: web}
    spec:
      type: NodePort
      clusterIP: 10.96.0.80
      selector: {app: web}
      ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
"""
UNKNOWN = "-A PREROUTING -m set --match-set banned src -j DROP"
SAVED = f"*raw\n:PREROUTING ACCEPT [0:0]\n{UNKNOWN}\n-A PREROUTING -m limit --limit 5/min -j LOG\nCOMMIT\n"
EXPERIMENT = """
name: saved
cluster:
{cluster}
workload: {{clients: {{count: 3}}, flows: {{arrivals: {{poisson: 100/s}}, packets: 1}}}}
variants: {{port: {{entry: NodePort, service: web}}}}
run: {{duration: 1s, seed: 1}}
"""


def told(*args: str, code: int = 0) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert cli.exit_code(list(args)) == code, err.getvalue()
    assert "Traceback" not in err.getvalue()
    return out.getvalue(), err.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plain.yaml").write_text(CLUSTER.replace(", iptables: a.save", ""))
    generated, _ = told("rules", str(tmp_path / "plain.yaml"), "--node", "a")
    (tmp_path / "a.save").write_text(SAVED + generated)
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    indented = "".join(f"  {line}\n" for line in CLUSTER.strip().splitlines())
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT.format(cluster=indented))
    return tmp_path


COMMANDS = {
    "validate": ("validate", "cluster.yaml"),
    "trace": ("trace", "cluster.yaml", "--from", "198.51.100.7", "--to", "10.0.0.11:30080", "--json"),
    "shares": ("shares", "cluster.yaml", "--json"),
    "rules": ("rules", "cluster.yaml", "--node", "b"),
    "plan": ("plan", "experiment.yaml"),
    "run": ("run", "experiment.yaml", "--no-figures", "--out", "out"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_rule_that_is_not_modelled_is_an_error_with_its_line_or_left_out_and_named(folder, monkeypatch, name):
    monkeypatch.chdir(folder)
    _, err = told(*COMMANDS[name], code=2)
    assert f"a.save:3: raw\n  found:    {UNKNOWN}  (match set)\n" in err
    assert "LOG" not in err  # it only logs, whatever its match says
    out, err = told(*COMMANDS[name], "--skip-unknown")
    assert f"  a.save:3: raw {UNKNOWN}  (match set)\n" in err
    assert "1 rule is not modelled and left out" in err
    if name in ("trace", "shares"):
        plain, _ = told(*[word.replace("cluster", "plain") for word in COMMANDS[name]])
        assert json.loads(out).keys() == json.loads(plain).keys()
    if name == "shares":
        assert out == plain


def test_a_run_says_in_its_manifest_and_report_what_was_left_out(folder, monkeypatch):
    monkeypatch.chdir(folder)
    told("run", "experiment.yaml", "--out", "out", "--skip-unknown")
    (manifest,) = Path("out").glob("runs/*/manifest.json")
    (rule,) = json.loads(manifest.read_text())["manifest"]["left_out_rules"]
    assert (rule["file"], rule["line"], rule["rule"]) == ("a.save", 3, UNKNOWN)
    assert UNKNOWN in Path("out/report.html").read_text()


def test_the_python_functions_take_the_same_word(folder, monkeypatch):
    import simnet

    monkeypatch.chdir(folder)
    with pytest.raises(simnet.InputError, match="match set"):
        simnet.load_cluster("cluster.yaml")
    with pytest.raises(simnet.InputError, match="match set"):
        simnet.load_experiment("experiment.yaml")
    cluster = simnet.load_cluster("cluster.yaml", skip_unknown=True)
    assert [str(rule) for rule in cluster.left_out_rules] == [f"a.save:3: raw {UNKNOWN}  (match set)"]
    experiment = simnet.load_experiment("experiment.yaml", skip_unknown=True)
    assert experiment.left_out_rules == cluster.left_out_rules


def test_two_files_of_one_family_and_a_table_that_is_missing_are_told(folder, monkeypatch):
    monkeypatch.chdir(folder)
    Path("twice.yaml").write_text(CLUSTER.replace("a.save", "[a.save, a.save]"))
    _, err = told("validate", "twice.yaml", "--skip-unknown", code=2)
    assert "both ipv4" in err
    Path("a.save").write_text("*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n")
    _, err = told("validate", "cluster.yaml")
    assert "no table filter" in err


def test_other_protocols_rules_are_no_reason_to_refuse_a_file(folder, monkeypatch):
    monkeypatch.chdir(folder)
    Path("a.save").write_text("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p icmp -m icmp --icmp-type 8 -j DROP\nCOMMIT\n")
    told("validate", "cluster.yaml")
    told("shares", "cluster.yaml")
