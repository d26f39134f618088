"""`simnet rules --check`: a real node's dump, edited as things go wrong, and the report names exactly the edits."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import pytest

import simnet
from simnet.cli import main as cli

DATA = Path(__file__).parents[1] / "data"
CLUSTER = str(DATA / "rule_check" / "cluster.yaml")
DUMP = (DATA / "rule_check" / "test-node.iptables-save").read_text()
REAL = sorted((DATA / "iptables").glob("*.[it]*[et]"))
SVC, FIRST, LAST = "KUBE-SVC-4SW47YFZTEDKD3PK", "KUBE-SEP-UKSFD7AGPMPPLUHC", "KUBE-SEP-C6EBXVWJJZMIWKLZ"
STALE = "KUBE-SEP-AAAAAAAAAAAAAAAA"


@pytest.fixture
def told(tmp_path):
    """Write a dump and check it; (exit code, stdout, the JSON form)."""

    def check(text: str, cluster: str = CLUSTER, node: str = "test-node") -> tuple[int, str, dict]:
        file = tmp_path / "node.iptables-save"
        file.write_text(text)
        arguments = ["rules", cluster, "--node", node, "--check", str(file)]
        code, out, _ = run(arguments)
        return code, out, json.loads(run([*arguments, "--json"])[1])

    return check


def run(arguments: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.exit_code(arguments)
    assert "Traceback" not in err.getvalue()
    return code, out.getvalue(), err.getvalue()


def named(report: dict) -> list[tuple[str, str]]:
    return [(each["kind"], each["rule"]) for each in report["differences"]]


def after(text: str, line: str, *new: str) -> str:
    """The text with lines put after one of its own."""
    assert line + "\n" in text
    return text.replace(line + "\n", "\n".join([line, *new]) + "\n", 1)


def line_with(*words: str) -> str:
    """The one line of the dump that holds all words."""
    (found,) = [line for line in DUMP.splitlines() if all(word in line for word in words)]
    return found


def test_what_a_kernel_printed_of_kube_proxys_rules_agrees(told):
    code, out, report = told(DUMP)
    assert code == 0
    assert report["agrees"]
    assert report["compared"] == len([line for line in DUMP.splitlines() if line.startswith("-A")])
    assert report["differences"] == []
    assert "agrees with the 79 rules that the objects ask for on test-node" in out


def test_counters_comments_the_order_of_chains_and_of_services_make_no_difference(told):
    lines = [line for line in DUMP.splitlines() if not line.startswith("#")]
    text = ""
    for table in "\n".join(lines).split("COMMIT")[:-1]:
        head, *rest = table.strip().splitlines()
        chains = [line.replace("[0:0]", "[17:1020]") for line in rest if line.startswith(":")]
        rules = [line for line in rest if line.startswith("-A")]
        rules.sort(key=lambda line: line.split()[1], reverse=True)  # stable: the order inside a chain stays
        services = [line for line in rules if line.startswith("-A KUBE-SERVICES -d")]
        places = [at for at, line in enumerate(rules) if line in services]
        for at, line in zip(places, reversed(services), strict=True):
            rules[at] = line
        rules = [f"[5:300] {line}".replace("ns4/svc4:p80", "another note") for line in rules]
        text += "\n".join([head, *reversed(chains), *rules, "COMMIT", ""])
    code, _, report = told(text)
    assert named(report) == []
    assert code == 0


def test_the_restore_input_of_kube_proxy_is_read_as_well_as_what_the_kernel_prints(told):
    restore = simnet.load_cluster(CLUSTER).rules("test-node").to_restore()
    assert "0.5000000000 " in restore  # as kube-proxy writes it; the kernel prints 0.50000000000
    assert told(restore)[0] == 0


def test_an_endpoint_that_is_gone_from_the_objects_is_named_with_its_rules_and_the_probability_that_moved(told):
    half = line_with(SVC, "0.50000000000")
    new = [
        f'-A {SVC} -m comment --comment "ns4/svc4:p80 -> 10.180.0.9:80" -m statistic --mode random '
        f"--probability 0.50000000000 -j {STALE}",
        f'-A {STALE} -s 10.180.0.9/32 -m comment --comment "ns4/svc4:p80" -j KUBE-MARK-MASQ',
        f'-A {STALE} -p tcp -m comment --comment "ns4/svc4:p80" -m tcp -j DNAT --to-destination 10.180.0.9:80',
    ]
    third = half.replace("0.50000000000", "0.33333333349")
    text = after(DUMP, half, *new).replace(half + "\n", third + "\n").replace("*nat\n", f"*nat\n:{STALE} - [0:0]\n")
    code, out, report = told(text)
    assert code == 1
    assert sorted(named(report)) == sorted([("changed", third), *(("stale", rule) for rule in new)])
    assert [each["asked"] for each in report["differences"] if each["kind"] == "changed"] == [half]
    assert {each["service"] for each in report["differences"]} == {"ns4/svc4:p80"}
    assert out.splitlines()[0] == "ns4/svc4:p80: stale endpoint 10.180.0.9:80; changed probabilities"
    assert out.splitlines()[-1].endswith("on test-node: 3 stale, 1 changed")
    lines = text.splitlines()
    assert all(lines[each["line"] - 1] == each["rule"] for each in report["differences"])


def test_a_missing_service_is_told_as_a_whole_with_its_ways_in(told):
    gone = [line for line in DUMP.splitlines() if line.startswith("-A") and ("svc4:p80" in line or "4SW47YFZ" in line)]
    assert len(gone) == 11
    text = "".join(line + "\n" for line in DUMP.splitlines() if line not in gone)
    code, out, report = told(text)
    assert code == 1
    assert sorted(named(report)) == sorted(("missing", line) for line in gone)
    assert report["absent_services"] == ["ns4/svc4:p80"]
    assert out.splitlines()[0] == "ns4/svc4:p80: missing as a whole"
    assert [line.split("-A ")[1][:13] for line in out.splitlines()[1:3]] == ["KUBE-SERVICES", "KUBE-SERVICES"]
    assert out.splitlines()[3] == "  and 9 rules in chains of its own"


@pytest.mark.parametrize(
    ("where", "rule", "kind", "agrees"),
    [
        ("-A PREROUTING", "-A PREROUTING -d 192.0.2.9/32 -j ACCEPT", "foreign", True),
        ("-A PREROUTING", "-A CNI-HOSTPORT-DNAT -p tcp -m tcp --dport 80 -j ACCEPT", "foreign", True),
        ("-A KUBE-MARK-MASQ", "-A KUBE-SERVICES -d 192.0.2.9/32 -j ACCEPT", "foreign", False),
        ("-A KUBE-MARK-MASQ", f"-A {SVC} -s 192.0.2.9/32 -j LOG", "foreign", False),
        ("-A KUBE-MARK-MASQ", f"-A KUBE-SERVICES -d 192.0.2.9/32 -p tcp -m tcp --dport 80 -j {SVC}", "stale", False),
    ],
)
def test_a_rule_that_nobody_asked_for_is_named_and_disagrees_only_among_kube_proxys(told, where, rule, kind, agrees):
    text = after(DUMP, next(line for line in DUMP.splitlines()[60:] if line.startswith(where)), rule)
    text = text.replace("*nat\n", "*nat\n:CNI-HOSTPORT-DNAT - [0:0]\n")
    code, _, report = told(text)
    assert named(report) == [(kind, rule)]
    assert report["agrees"] is agrees
    assert code == (0 if agrees else 1)


def test_a_translation_to_another_port_and_a_missing_mark_are_told_apart(told):
    there = line_with(LAST, "DNAT")
    mark = line_with(FIRST, "KUBE-MARK-MASQ")
    moved = there.replace("10.180.0.5:80", "10.180.0.5:81")
    _, _, report = told(DUMP.replace(there, moved).replace(mark + "\n", ""))
    assert named(report) == [("missing", mark), ("changed", moved)]
    assert report["differences"][1]["asked"] == there


def test_spread_rules_in_another_order_are_told_even_beside_other_edits(told):
    first, second = line_with(SVC, FIRST), line_with(SVC, LAST)
    text = DUMP.replace(first, "@").replace(second, first).replace("@", second)
    extra = "-A KUBE-SVC-4SW47YFZTEDKD3PK -s 192.0.2.9/32 -j KUBE-MARK-MASQ"
    _, _, report = told(after(text, first, extra))
    assert named(report) == [("stale", extra), ("order", second)]


def test_a_host_without_nfacct_objects_lacks_neither_rule_nor_match(told):
    text = "".join(
        re.sub(r" -m nfacct --nfacct-name  \S+", "", line) + "\n"
        for line in DUMP.splitlines()
        if "localhost_nps" not in line
    )
    assert told(text)[0] == 0
    one = next(line for line in DUMP.splitlines() if "localhost_nps" in line)
    _, _, report = told(DUMP.replace(one + "\n", ""))  # the host has them, and one rule is gone
    assert named(report) == [("missing", one)]


@pytest.mark.parametrize("file", REAL, ids=lambda file: file.name)
def test_every_real_dump_is_compared_or_refused_with_a_reason(file):
    code, out, err = run(["rules", CLUSTER, "--node", "test-node", "--check", str(file)])
    if code == 2:
        assert re.search(r"expected: .*\n +fix: ", err)
    else:
        assert code == 1
        assert "rules that the objects ask for on test-node" in out.splitlines()[-1]


def test_every_shared_dump_is_compared_or_refused_with_a_reason(shared_cases):
    codes = {}
    for file in sorted((shared_cases / "real" / "iptables").iterdir()):
        code, _, err = run(["rules", CLUSTER, "--node", "test-node", "--check", str(file)])
        assert code == 1 or re.search(r"expected: .*\n +fix: ", err), file
        codes[file.name] = code
    assert len(codes) >= 16
    assert sum(code == 1 for code in codes.values()) >= len(codes) - 2


def test_an_ipv6_dump_is_compared_with_the_ipv6_rules(told):
    saved = simnet.load_cluster(CLUSTER).rules("test-node", "ipv6").to_save()
    assert told(saved)[0] == 0
