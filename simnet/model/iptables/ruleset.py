"""A host's iptables rules: tables of chains of rules, for one address family.

The one form in which rules travel: the kube-proxy generator writes it, the parser of `iptables-save` text reads it, the
printer prints it, and the compiler of the data plane turns it into a program. A rule is a conjunction of matches in the
order in which they were given, then a target.
Source: iptables(8), iptables-extensions(8).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

TABLES = ("raw", "mangle", "nat", "filter", "security")  # in the order in which a hook visits them
BUILT_IN_CHAINS: Mapping[str, tuple[str, ...]] = {  # in hook order, as iptables-save prints them
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
PROBABILITY_ONE = 1 << 31  # xt_statistic keeps a probability as a 31-bit fixed-point number


class Family(Enum):
    """The address family of a rule set; its value is the family's name in design.md and on the command line."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"


# --- matches --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SourceAddress:
    """`[!] -s NETWORK`."""

    network: IPNetwork
    negated: bool = False
    text: str = field(default="", compare=False)  # NETWORK as restore input writes it, where that is not the shortest


@dataclass(frozen=True, slots=True)
class DestinationAddress:
    """`[!] -d NETWORK`."""

    network: IPNetwork
    negated: bool = False
    text: str = field(default="", compare=False)  # as for SourceAddress


@dataclass(frozen=True, slots=True)
class InInterface:
    """`[!] -i NAME`; a trailing `+` matches any name that begins so."""

    name: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class OutInterface:
    """`[!] -o NAME`; a trailing `+` matches any name that begins so."""

    name: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class ProtocolMatch:
    """`[!] -p PROTOCOL`: the IANA number; `text` is the word as iptables-save prints it (`tcp`, `icmp`, `47`)."""

    number: int
    text: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class PortMatch:
    """`-m tcp|udp|sctp [!] --sport A[:B] [!] --dport A[:B]`; None: no such option (then any port matches)."""

    module: str  # "tcp", "udp", "sctp", "dccp", "udplite"
    source_ports: tuple[int, int] | None = None  # inclusive
    destination_ports: tuple[int, int] | None = None
    source_negated: bool = False
    destination_negated: bool = False


@dataclass(frozen=True, slots=True)
class TcpFlagsMatch:
    """`[!] --tcp-flags MASK COMP` (or `--syn`) of the `-m tcp` whose `PortMatch` stands just before it."""

    mask: tuple[str, ...]  # FIN, SYN, RST, PSH, ACK, URG, in this order: the flags looked at
    set_flags: tuple[str, ...]  # those of them that must be set, the others clear
    negated: bool = False


@dataclass(frozen=True, slots=True)
class MultiportMatch:
    """`-m multiport [!] --sports|--dports|--ports LIST`: inclusive ranges."""

    ranges: tuple[tuple[int, int], ...]
    which: str  # "sports", "dports", "ports"
    negated: bool = False


@dataclass(frozen=True, slots=True)
class CommentMatch:
    """`-m comment --comment TEXT`; always true."""

    text: str


@dataclass(frozen=True, slots=True)
class MarkMatch:
    """`-m mark [!] --mark VALUE/MASK`: (mark & mask) == value."""

    value: int
    mask: int = 0xFFFFFFFF
    negated: bool = False


@dataclass(frozen=True, slots=True)
class StatisticRandom:
    """`-m statistic --mode random [!] --probability P`; true if a fresh 31-bit number is below `threshold`."""

    threshold: int  # round(2**31 * P), 0 .. 2**31
    negated: bool = False
    text: str = field(default="", compare=False)  # P as written, where it was written: 0.3333333333


@dataclass(frozen=True, slots=True)
class StatisticNth:
    """`-m statistic --mode nth [!] --every N --packet P`; counts the packets that reach this rule."""

    every: int
    packet: int = 0
    negated: bool = False


@dataclass(frozen=True, slots=True)
class RecentMatch:
    """`-m recent --rcheck|--set|--update|--remove --name NAME [--seconds T] [--reap] [--hitcount H] ...`.

    `set` records the address and is true; `rcheck` is true if the address is in the list and, with `seconds`, was
    seen within that time; `update` is `rcheck` that also records; `remove` deletes and is true if it was there.
    """

    action: str  # "set", "rcheck", "update", "remove"
    name: str
    seconds: int | None = None
    hitcount: int | None = None
    reap: bool = False
    rttl: bool = False
    side: str = "rsource"  # or "rdest"
    mask: str | None = None  # as printed; None: the family's full mask
    negated: bool = False


@dataclass(frozen=True, slots=True)
class AddressTypeMatch:
    """`-m addrtype [!] --src-type T [!] --dst-type T [--limit-iface-in|--limit-iface-out]`."""

    source_type: str | None = None  # "LOCAL", "UNICAST", "BROADCAST", ... comma list as given
    destination_type: str | None = None
    source_negated: bool = False
    destination_negated: bool = False
    limit_interface: str | None = None  # "in", "out"


@dataclass(frozen=True, slots=True)
class ConntrackStateMatch:
    """`-m conntrack [!] --ctstate LIST`, or `-m state [!] --state LIST` (`module` says which)."""

    states: tuple[str, ...]  # NEW, ESTABLISHED, RELATED, INVALID, UNTRACKED, SNAT, DNAT
    negated: bool = False
    module: str = "conntrack"


@dataclass(frozen=True, slots=True)
class NfacctMatch:
    """`-m nfacct --nfacct-name NAME`: counts; always true."""

    name: str


@dataclass(frozen=True, slots=True)
class OpaqueMatch:
    """A match that simnet does not model, kept as the tokens after `-m MODULE` so that it prints back.

    With the empty module it is an option of no module: `-f`, or `-s` and `-d` with a mask that is not a prefix.
    """

    module: str
    arguments: tuple[str, ...] = ()


Match = (
    SourceAddress | DestinationAddress | InInterface | OutInterface | ProtocolMatch | PortMatch | TcpFlagsMatch
    | MultiportMatch
    | CommentMatch | MarkMatch | StatisticRandom | StatisticNth | RecentMatch | AddressTypeMatch
    | ConntrackStateMatch | NfacctMatch | OpaqueMatch
)  # fmt: skip


# --- targets --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """`-j ACCEPT`, `-j DROP` or `-j RETURN`."""

    name: str


@dataclass(frozen=True, slots=True)
class Jump:
    """`-j CHAIN`, or `-g CHAIN` (goto: a RETURN there goes back to the caller of this chain)."""

    chain: str
    goto: bool = False


@dataclass(frozen=True, slots=True)
class Reject:
    """`-j REJECT --reject-with TYPE`."""

    reject_with: str


@dataclass(frozen=True, slots=True)
class SetMark:
    """`-j MARK --set-xmark VALUE/MASK`: mark = (mark & ~mask) ^ value."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class Dnat:
    """`-j DNAT --to-destination [ADDRESS][:PORT[-PORT]] [--random] [--persistent]`; REDIRECT is `address=None`."""

    address: str | None  # canonical text, without brackets; None: unchanged (REDIRECT: the interface's own)
    ports: tuple[int, int] | None = None
    options: tuple[str, ...] = ()
    last_address: str | None = None  # of a range A-B
    redirect: bool = False


@dataclass(frozen=True, slots=True)
class Snat:
    """`-j SNAT --to-source ADDRESS[-ADDRESS][:PORT-PORT] [--random|--random-fully|--persistent]`."""

    address: str
    ports: tuple[int, int] | None = None
    options: tuple[str, ...] = ()
    last_address: str | None = None


@dataclass(frozen=True, slots=True)
class Masquerade:
    """`-j MASQUERADE [--to-ports A[-B]] [--random] [--random-fully]`."""

    random_fully: bool = False
    ports: tuple[int, int] | None = None
    random: bool = False


@dataclass(frozen=True, slots=True)
class OpaqueTarget:
    """A target that simnet does not model, kept as its tokens so that it prints back (LOG, NFLOG, CT, NOTRACK...)."""

    name: str
    arguments: tuple[str, ...] = ()


Target = Verdict | Jump | Reject | SetMark | Dnat | Snat | Masquerade | OpaqueTarget


# --- rules, chains, tables -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: all matches must hold, then the target acts; no target: the rule only counts.

    `packets` and `bytes` are what a saved text said (else 0); `line` is its line there, 0 if generated.
    """

    matches: tuple[Match, ...]
    target: Target | None
    packets: int = field(default=0, compare=False)
    bytes: int = field(default=0, compare=False)
    line: int = field(default=0, compare=False)

    @property
    def comment(self) -> str | None:
        """The text of the first comment, None without one."""
        return next((match.text for match in self.matches if isinstance(match, CommentMatch)), None)


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain and its rules in order; `policy` is ACCEPT or DROP for a built-in chain, None (`-`) for others."""

    name: str
    rules: tuple[Rule, ...] = ()
    policy: str | None = None
    packets: int = field(default=0, compare=False)
    bytes: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its chains in the order in which they were declared (built-in chains first when generated)."""

    name: str
    chains: Mapping[str, Chain]


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All tables of one host and family that hold something, in the order in which they were written."""

    family: Family
    tables: Mapping[str, Table]
    source: str = field(default="", compare=False)  # file name of an imported set, empty if generated

    def chain(self, table: str, name: str) -> Chain | None:
        """The chain of that name, None if the table does not hold it."""
        held = self.tables.get(table)
        return held.chains.get(name) if held else None
