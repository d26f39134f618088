"""What real clusters' rule sets hold is read, or refused with the line and what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from model.iptables.real_iptables import ipsets_in, run_in_fresh_namespace, without_comments

from simnet.errors import InputError
from simnet.model.iptables.parser import ParsedRules, parse_rules, parse_save
from simnet.model.iptables.printer import save_text
from simnet.model.iptables.ruleset import Family

DATA = Path(__file__).parents[2] / "data" / "iptables"
# file -> form, family, rules per table, opaque places that could change a verdict, lines read with a note (0: the whole)  # noqa: E501
READ = {
    "aks-npm-v2-2022.iptables-save":
        ("save", "ipv4", {"mangle": 0, "nat": 226, "filter": 41, "security": 3}, 16, set()),
    "batfish-parser-test.iptables-save": ("save", "ipv4", {"mangle": 0, "filter": 5, "nat": 0}, 0, {11, 24}),
    "calico-felix-2025.iptables-save": ("save", "ipv4", {"raw": 13, "nat": 8, "filter": 26, "mangle": 10}, 3, set()),
    "calico-felix-foreign-2019.iptables-save": ("save", "ipv4", {"filter": 25, "nat": 19}, 0, set()),
    "cni-hostport-grep-2023.iptables-save": ("save", "ipv4", {"nat": 8}, 0, {0, 1}),
    "insights-2016-rhel6.iptables-save": ("save", "ipv4", {"filter": 8, "mangle": 0, "nat": 0}, 0, {8, 27}),
    "istio-sidecar-2022.iptables-save": ("save", "ipv4", {"nat": 19}, 6, set()),
    "k3s-externalips-2026.iptables-save": ("save", "ipv4", {"nat": 105}, 0, {1}),
    "k8s-issue-47533-affinity.iptables-save": ("save", "ipv4", {"nat": 8}, 5, {0, 1}),
    "k8s-issue-85397-xlb-counters.iptables-save": ("save", "ipv4", {"nat": 4}, 1, {0, 2}),
    "moby-bridge-hairpin6.iptables-save": ("save", "ipv6", {"raw": 0, "filter": 9, "nat": 6}, 0, set()),
    "moby-bridge-snat.iptables-save": ("save", "ipv4", {"raw": 2, "filter": 9, "nat": 4}, 0, set()),
    "moby-usernet-portmap.txt": ("listing", "ipv4", {"filter": 14, "nat": 5, "raw": 1}, 0, {0, 14, 106, 146}),
    "qifangsu-nat-counters.txt": ("listing", "ipv4", {"nat": 43}, 0, {1}),
    "weave-kubeadm-1.11-2018.iptables-save": ("save", "ipv4", {"nat": 36, "filter": 49}, 11, set()),
}  # fmt: skip
REFUSED = {
    "insights-special-names.iptables-save": """\
insights-special-names.iptables-save:8: --reject-with
  found:    'icmp6-adm-prohibited'
  expected: one of icmp-net-unreachable, icmp-host-unreachable, icmp-proto-unreachable, icmp-port-unreachable, \
icmp-net-prohibited, icmp-host-prohibited, tcp-reset, icmp-admin-prohibited
  fix:      use the word of this address family (iptables-save and ip6tables-save differ)
insights-special-names.iptables-save:10: chain
  found:    chain DROP
  expected: a chain that table filter declares, or a target of iptables
  fix:      add the line `:DROP - [0:0]` to table filter, or save the rules again, whole
insights-special-names.iptables-save:12: chain
  found:    chain {s_1}
  expected: a chain that table filter declares, or a target of iptables
  fix:      add the line `:{s_1} - [0:0]` to table filter, or save the rules again, whole
insights-special-names.iptables-save:14: -A
  found:    -A without a chain
  expected: -A CHAIN ...
  fix:      the line seems cut off; save the rules again, whole, or remove it""",
}
ALL = sorted(path.name for path in DATA.iterdir() if path.suffix in (".iptables-save", ".txt"))
GIVEN_AND_SAVED = [
    tuple(line.split("\t"))
    for line in (DATA / "rules-1.8.9.tsv").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


def read(path: Path) -> ParsedRules:
    return parse_rules(path.read_text(encoding="utf-8"), file=path.name)


def check(path: Path) -> None:
    """Hold one file against the tables above."""
    if path.name in REFUSED:
        with pytest.raises(InputError) as caught:
            read(path)
        assert str(caught.value) == REFUSED[path.name]
        return
    parsed = read(path)
    form, family, rules, opaque, noted = READ[path.name]
    assert (parsed.form, parsed.ruleset.family.value) == (form, family)
    counted = {name: sum(len(c.rules) for c in table.chains.values()) for name, table in parsed.ruleset.tables.items()}
    assert counted == rules
    assert sum(item.could_change_verdict for item in parsed.not_understood) == opaque
    assert {note.line for note in parsed.notes} == noted


@pytest.mark.parametrize("name", ALL)
def test_a_real_rule_set_is_read_or_refused_with_line_and_advice(name: str) -> None:
    check(DATA / name)


def test_every_shared_rule_set_is_read_or_refused_with_line_and_advice(shared_cases: Path) -> None:
    folder = shared_cases / "real" / "iptables"
    names = {path.name for path in folder.iterdir()}
    assert names == READ.keys() | REFUSED.keys()
    for name in sorted(names):
        check(folder / name)


def test_the_two_forms_of_one_rule_set_say_the_same() -> None:
    text = (DATA / "moby-usernet-portmap.txt").read_text(encoding="utf-8")
    listed = parse_rules(text, file="moby").ruleset
    commands = [block.split("</details>")[0] for block in text.split("<summary>iptables commands</summary>")[1:]]
    for table, block in zip(("filter", "nat", "raw"), commands, strict=True):
        saved = parse_save(f"*{table}\n{block}\nCOMMIT\n", file="moby").ruleset
        without_port_modules = saved.tables[table]
        assert listed.tables[table].chains == without_port_modules.chains


def test_rounded_counters_of_a_listing_are_noted() -> None:
    text = "Chain KUBE-SVC-X (1 references)\n pkts bytes target     prot opt in     out     source               "
    text += "destination\n 123K   12M KUBE-SEP-Y  all  --  *      *       0.0.0.0/0            0.0.0.0/0\n"
    parsed = parse_rules(text, file="listing")
    rule = parsed.ruleset.tables["nat"].chains["KUBE-SVC-X"].rules[0]
    assert (rule.packets, rule.bytes) == (123_000, 12_000_000)
    assert "counters with K, M, G or T are rounded in a listing; iptables -x shows them whole" in {
        note.text for note in parsed.notes
    }


@pytest.mark.parametrize(("family", "table", "given", "saved"), GIVEN_AND_SAVED)
def test_a_rule_is_printed_as_iptables_save_prints_it(family: str, table: str, given: str, saved: str) -> None:
    text = f"*{table}\n:FOO - [0:0]\n:FOO2 - [0:0]\n{given}\nCOMMIT\n"
    printed = save_text(parse_save(text, file="rule", family=Family(family)).ruleset)
    assert [line for line in printed.splitlines() if line.startswith("-A")] == saved.split(" && ")


@pytest.mark.root
@pytest.mark.parametrize("backend", ["nft", "legacy"])
@pytest.mark.parametrize("name", [name for name in ALL if name in READ and READ[name][0] == "save"])
def test_a_real_iptables_prints_a_real_rule_set_as_simnet_does(name: str, backend: str) -> None:
    text = (DATA / name).read_text(encoding="utf-8")
    if name.startswith("insights-2016"):
        text = text.replace("-g ACCEPT", "-j ACCEPT")  # which iptables 1.8 refuses
    parsed = parse_save(text, file=name)
    six = "6" if parsed.ruleset.family is Family.IPV6 else ""
    script = f"ip{six}tables-{backend}-restore -c && ip{six}tables-{backend}-save -c"
    real = run_in_fresh_namespace(script, text, ipsets=ipsets_in(text))
    assert without_comments(save_text(parsed.ruleset, backend=backend, counters=True)) == without_comments(real)  # type: ignore[arg-type]


@pytest.mark.root
@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_a_real_iptables_prints_the_shared_rule_sets_as_simnet_does(shared_cases: Path, backend: str) -> None:
    for path in sorted((shared_cases / "real" / "iptables").glob("*.iptables-save")):
        if path.name in REFUSED or path.name in ALL:
            continue
        parsed = read(path)
        whole = save_text(parsed.ruleset, backend=backend, counters=True)  # type: ignore[arg-type]
        text = path.read_text(encoding="utf-8")
        text = text if "\nCOMMIT" in text else whole  # parts of a save cannot be loaded: their completion can
        script = f"iptables-{backend}-restore -c && iptables-{backend}-save -c"
        real = run_in_fresh_namespace(script, text, ipsets=ipsets_in(text))
        assert without_comments(whole) == without_comments(real), path.name
