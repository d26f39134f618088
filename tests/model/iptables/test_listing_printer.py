"""A printed listing is what a real `iptables -L` prints, and reads back as the rules it was made of."""

from __future__ import annotations

import re

import pytest
from model.iptables.real_iptables import run_in_fresh_namespace

from simnet.model.iptables.listing_printer import scaled
from simnet.model.iptables.parser import parse_rules, parse_save
from simnet.model.iptables.printer import listing_text, save_text

TEXT = """\
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-A - [0:0]
:KUBE-B - [0:0]
[123456:99999] -A KUBE-A ! -s 10.0.0.0/8 -d 1.2.3.4/32 -i eth0 ! -o lo -p tcp -m comment --comment "a b" -m tcp --dport 80 -j KUBE-B
[12345678:10000000] -A KUBE-A -p udp -m udp ! --sport 53:54 -m statistic --mode random --probability 0.50000000000 -j MARK --set-xmark 0x4000/0x4000
[0:0] -A KUBE-A -p tcp -m multiport --dports 80,443 -m addrtype --dst-type LOCAL -j DNAT --to-destination 1.2.3.4:80
[0:0] -A KUBE-A -p sctp -m sctp --dport 9 -m recent --rcheck --seconds 10800 --reap --name X --mask 255.255.255.255 --rsource -j MASQUERADE --random-fully
[0:0] -A KUBE-A -m recent --set --name X --mask 255.255.255.255 --rsource -j SNAT --to-source 1.2.3.4
[0:0] -A KUBE-A -j MARK --set-xmark 0x4000/0x0
[0:0] -A KUBE-A -j MARK --set-xmark 0x4000/0xff00
[0:0] -A KUBE-A -m mark ! --mark 0x4000/0x4000 -j RETURN
[0:0] -A KUBE-A -p tcp -j REDIRECT --to-ports 15006
[0:0] -A KUBE-A -m conntrack ! --ctstate NEW,DNAT
[0:0] -A KUBE-A -m state --state RELATED -g KUBE-B
[0:0] -A KUBE-A -p tcp -m tcp --tcp-flags SYN,RST SYN -j ACCEPT
COMMIT
"""  # noqa: E501
STYLES = {
    "-nv": {},
    "-nvx --line-numbers": {"exact": True, "line_numbers": True},
    "-v": {"numeric": False},
    "": {"numeric": False, "verbose": False},
}
PROTOCOLS = {"0": "all", "6": "tcp", "17": "udp", "132": "sctp"}


def with_names(listing: str) -> str:
    """Protocols as names: iptables 1.8.8 and 1.8.9 print numbers with -n, all others names."""
    pattern = re.compile(r"^((?:\d+ +)? *\S+ +\S+ (?:\S+ +| {10}))([ !])(0|6|17|132) +(?=(?:--|-f|!f)  )", re.MULTILINE)
    return pattern.sub(lambda found: f"{found[1]}{found[2]}{PROTOCOLS[found[3]]:<4} ", listing)


@pytest.mark.root
@pytest.mark.parametrize("backend", ["nft", "legacy"])
@pytest.mark.parametrize("options", STYLES)
def test_a_listing_is_printed_as_a_real_iptables_prints_it(options: str, backend: str) -> None:
    script = f"iptables-{backend}-restore -c && iptables-{backend} -t nat -L {options}"
    real = run_in_fresh_namespace(script, TEXT)
    style = STYLES[options]
    assert listing_text(parse_save(TEXT, file="x").ruleset, "nat", **style) == with_names(real)  # type: ignore[arg-type]


def test_a_printed_listing_reads_back_as_the_rules_it_was_made_of() -> None:
    ruleset = parse_save(TEXT, file="x").ruleset
    listed = parse_rules(listing_text(ruleset, "nat", exact=True, line_numbers=True), file="y").ruleset
    assert save_text(listed, counters=True) == TEXT == save_text(ruleset, counters=True)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (99_999, "99999"),
        (100_000, "100K"),
        (9_999_499, "9999K"),
        (9_999_500, "10M"),
        (12_345_678, "12M"),
        (10**10, "10G"),
    ],
)
def test_counters_are_scaled_as_iptables_scales_them(count: int, shown: str) -> None:
    assert scaled(count) == shown
