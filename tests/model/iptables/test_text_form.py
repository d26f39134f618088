"""The text of rules: what is printed reads back, what is odd is noted, what is wrong is refused with its line."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model.iptables.rule_sets import rule_sets

from simnet.errors import InputError
from simnet.model.iptables.parser import parse_rules, parse_save
from simnet.model.iptables.printer import rule_text, save_text
from simnet.model.iptables.ruleset import Family, Jump, Ruleset, Verdict

DATA = Path(__file__).parents[2] / "data" / "iptables"


@given(rule_sets(), st.sampled_from(["nft", "legacy"]), st.booleans())
def test_a_printed_rule_set_reads_back_as_it_was(ruleset: Ruleset, backend: str, counters: bool) -> None:
    text = save_text(ruleset, backend=backend, counters=counters)  # type: ignore[arg-type]
    parsed = parse_save(text, file="x", family=ruleset.family).ruleset
    assert parsed == ruleset
    assert save_text(parsed, backend="nft", counters=counters) == save_text(ruleset, backend="nft", counters=counters)


@given(rule_sets())
def test_counters_read_back_as_they_were(ruleset: Ruleset) -> None:
    parsed = parse_save(save_text(ruleset, counters=True), file="x", family=ruleset.family).ruleset
    for name, table in ruleset.tables.items():
        for chain in table.chains.values():
            held = parsed.tables[name].chains[chain.name]
            assert [(r.packets, r.bytes) for r in held.rules] == [(r.packets, r.bytes) for r in chain.rules]


def in_nat(*lines: str) -> str:
    return "\n".join(["*nat", ":KUBE-A - [0:0]", ":KUBE-B - [0:0]", *lines, "COMMIT", ""])


def refusal(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_rules(text, file="rules")
    return str(caught.value)


def test_every_mistake_is_told_at_once_with_its_line() -> None:
    text = in_nat(
        "-A KUBE-A -s 10.0.0.300 -j KUBE-B",
        "-A KUBE-A -j ACCEPT",
        "-A KUBE-A -p tcp --dport 70000 -j KUBE-B",
        '-A KUBE-A -m comment --comment "cut off',
    )
    assert (
        refusal(text)
        == """\
rules:4: address
  found:    '10.0.0.300'
  expected: an address or network in numbers, such as 10.0.0.0/8 or fd00::/8
  fix:      use numbers, not names (iptables-save, or iptables -n, prints them)
rules:6: --dport
  found:    '70000'
  expected: a port from 0 to 65535
  fix:      use the number (iptables -n prints numbers)
rules:7: quotes
  found:    a quoted text that does not end: '-A KUBE-A -m comment --comment "cut off'
  expected: a closing double quote
  fix:      the line seems cut off; save the rules again, whole"""
    )


def test_rules_of_two_tables_without_table_lines_are_refused() -> None:
    assert (
        refusal("-A FORWARD -j DROP\n-A KUBE-SEP-X -p tcp -j DNAT --to-destination 10.0.0.1:80\n")
        == """\
rules:1: table
  found:    rules of table nat (KUBE-SEP) and of table filter (-A FORWARD) without a table line
  expected: a line such as *nat before the rules of each table
  fix:      save with `iptables-save`, not `iptables -S`, or add the lines *nat and *filter"""
    )


def test_what_is_not_modelled_is_named_with_its_line_and_whether_a_verdict_hangs_on_it() -> None:
    parsed = parse_rules(in_nat("-A KUBE-A -m owner --uid-owner 0 -j KUBE-B", "-A KUBE-A -j LOG --log-prefix x",
                                "-A KUBE-A -m nosuch --one 1 ! --two -j RETURN", "-A KUBE-A -p tcp -m tcp --nosuch 1",
                                "-A KUBE-A -j CT --notrack"), file="rules")  # fmt: skip
    assert [(item.line, item.chain, item.what, item.could_change_verdict) for item in parsed.not_understood] == [
        (4, "KUBE-A", "match owner is not modelled", True),
        (5, "KUBE-A", "target LOG is not modelled", False),
        (6, "KUBE-A", "match nosuch is not known", True),
        (7, "KUBE-A", "option --nosuch 1 of match tcp is not known", False),
        (8, "KUBE-A", "target CT is not modelled", True),
    ]
    assert "-m nosuch --one 1 ! --two -j RETURN" in save_text(parsed.ruleset)


def test_restore_input_is_carried_out_in_order() -> None:
    text = in_nat("-A KUBE-A -j KUBE-B", "-I KUBE-A -j RETURN", "-I KUBE-A 2 -j ACCEPT", "-A KUBE-A -j DROP",
                  "-D KUBE-A -j ACCEPT", "-D KUBE-A 3", "-N KUBE-C", "-A KUBE-C -j RETURN", "-F KUBE-C", "-X KUBE-C",
                  "-P OUTPUT DROP")  # fmt: skip
    ruleset = parse_rules(text, file="rules").ruleset
    assert [rule.target for rule in ruleset.tables["nat"].chains["KUBE-A"].rules] == [Verdict("RETURN"), Jump("KUBE-B")]
    assert "KUBE-C" not in ruleset.tables["nat"].chains
    assert ruleset.tables["nat"].chains["OUTPUT"].policy == "DROP"


def test_a_wrapped_line_is_joined_with_a_note() -> None:
    parsed = parse_rules(
        in_nat(
            '-A KUBE-A -m comment --comment "two', 'words" -m statistic --mode random', "--probability 0.5 -j KUBE-B"
        ),
        file="rules",
    )
    (rule,) = parsed.ruleset.tables["nat"].chains["KUBE-A"].rules
    assert rule_text(rule, Family.IPV4) == (
        '-m comment --comment "two words" -m statistic --mode random --probability 0.50000000000 -j KUBE-B'
    )
    assert "the rule goes on over 3 lines; joined" in {note.text for note in parsed.notes}


def test_a_listing_without_v_says_that_interfaces_are_missing() -> None:
    text = "Chain INPUT (policy DROP)\ntarget     prot opt source               destination\n"
    text += "ACCEPT     all  --  anywhere             anywhere\n"
    (item,) = parse_rules(text, file="listing").not_understood
    assert item.what == "a listing without -v does not show the interfaces of rules"
    assert item.could_change_verdict


@pytest.mark.parametrize("text", ["", "[", "...", "COMMIT", "# a comment", '-A "a chain" -j DROP'])
def test_a_text_without_rules_or_with_a_name_that_no_chain_has_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_rules(text, file="rules")
    assert [problem.where.line for problem in caught.value.problems] == [1]


def clean_or_refused(text: str) -> None:
    start = time.perf_counter()
    try:
        parsed = parse_rules(text, file="fuzz")
    except InputError as error:
        problems = error.problems
    else:
        problems = ()
        printed = save_text(parsed.ruleset, counters=True)
        if parsed.form == "save" and not parsed.not_understood:  # what was printed is read again as the same rules
            again = parse_save(printed, file="again", family=parsed.ruleset.family)
            assert again.ruleset.tables == parsed.ruleset.tables
    assert all(problem.where.file == "fuzz" and problem.fix for problem in problems)
    assert time.perf_counter() - start < 20.0  # these take a second or two; a quadratic reader takes minutes


SEEDS = [path.read_text(encoding="utf-8") for path in sorted(DATA.iterdir()) if path.stat().st_size < 10_000]
TOKENS = [
    "!",
    "-A",
    "-j",
    "-m",
    '"',
    "\\",
    "[1:2]",
    "COMMIT",
    "*nat",
    ":X - [0:0]",
    "-s",
    "::1",
    "--dport",
    "9999999999",
    "0x",
    "\r",
    "\t",
    "\x00",
    "é",
    "-",
    "--",
    "--=",
    "-m tcp",
    "/",
    "*/",
    "/*",
    "(1 references)",
    "Chain ",
]


@settings(max_examples=200)
@given(st.integers(0, 2**63), st.integers(1, 12))
def test_damaged_text_gives_rules_or_a_named_error(seed: int, damages: int) -> None:
    draws = random.Random(seed)
    text = draws.choice(SEEDS)
    start = draws.randrange(len(text))
    text = text[start : start + 3000]
    for _ in range(damages):
        at = draws.randrange(len(text) + 1)
        kind = draws.randrange(5)
        if kind == 0:
            text = text[:at] + text[at + draws.randrange(20) :]
        elif kind == 1:
            text = text[:at] + draws.choice(TOKENS) + text[at:]
        elif kind == 2:
            text = text[:at] + " " + draws.choice(TOKENS) + " " + text[at:]
        elif kind == 3:
            text = text[:at] + chr(draws.randrange(1, 0x250)) + text[at + 1 :]
        else:
            other = draws.randrange(len(text) + 1)
            text = text[:at] + text[other : other + draws.randrange(80)] + text[at:]
    clean_or_refused(text)


@given(st.text(max_size=200))
def test_any_text_gives_rules_or_a_named_error(text: str) -> None:
    clean_or_refused("*nat\n-A KUBE-A " + text)
    clean_or_refused("Chain KUBE-A (1 references)\n target prot opt source destination\n" + text)


@pytest.mark.parametrize(
    "text",
    [
        "*nat\n-A PREROUTING -m comment --comment \"" + "a" * 1_000_000 + "\"\nCOMMIT\n",
        "*nat\n-A PREROUTING " + '"' * 1_000_001,
        "*nat\n-A PREROUTING " + "! " * 500_000,
        "*nat\n-A PREROUTING " + "-m comment --comment x " * 40_000,
        "*nat\n-A PREROUTING -m nosuch " + "--x y " * 150_000,
        "*nat\n-A PREROUTING -s " + "10.0.0.1," * 100_000 + "10.0.0.2 -j ACCEPT\nCOMMIT\n",
        "*nat\n" + "".join(f":C{i} - [0:0]\n" for i in range(100_000)) + "COMMIT\n",
        "".join(f"-A C{i} -j C{i + 1}\n" for i in range(60_000)),
        "*nat\n" + "junk\n" * 100_000,
        "*nat\n-A PREROUTING -j ACCEPT\n" + "word\n" * 100_000,
        "Chain X (1 references)\n" + " " * 1_000_000,
        "Chain X (1 references)\npkts bytes target prot opt in out source destination\n" + "1 1 " + "a " * 500_000,
        "Chain X (1 references)\npkts bytes target prot opt in out source destination\n" + "1 1 A all -- * * 0.0.0.0/0 0.0.0.0/0\n"  # noqa: E501
        + "wrap\n" * 50_000,
        "Chain X (1 references)\ntarget prot opt source destination\nA all -- anywhere anywhere " + "/* " * 300_000,
        "COMMIT\n" * 200_000,
        "-A FOO -j X\n*nat\n" * 50_000,
    ],
    ids=range(16),
)  # fmt: skip
def test_a_hostile_text_is_answered_in_seconds(text: str) -> None:
    clean_or_refused(text)
