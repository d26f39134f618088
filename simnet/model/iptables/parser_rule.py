"""One rule: from the words of an `iptables -A` line to matches and a target.

iptables keeps no order between the options of a rule: addresses, interfaces and protocol come out first, then the
matches in the order in which they were loaded, each with its own options wherever they stood. So does `RuleReader`.
It remembers what it has read (networks, matches), for a large rule set repeats itself.
Source: iptables(8) 1.8.9, checked against `iptables-restore` and `iptables-save` (tests/model/iptables).
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simnet.model.iptables import parser_match, parser_target
from simnet.model.iptables.extensions import (
    MATCH_OPTIONS,
    MODELLED_TARGETS,
    PASSING_TARGETS,
    PROTOCOL_MODULES,
    PROTOCOL_NAMES,
    PROTOCOL_NUMBERS,
    TARGET_OPTIONS,
    VERDICTS,
    Option,
)
from simnet.model.iptables.parser_errors import RuleError
from simnet.model.iptables.ruleset import (
    DestinationAddress,
    Family,
    InInterface,
    IPNetwork,
    Jump,
    Match,
    OpaqueMatch,
    OpaqueTarget,
    OutInterface,
    ProtocolMatch,
    SourceAddress,
    Target,
    Verdict,
)

Given = tuple[str, bool, tuple[str, ...]]  # an option of a module: printed name, negated, values

_HEADER = {
    "-s": "-s", "--source": "-s", "--src": "-s", "-d": "-d", "--destination": "-d", "--dst": "-d",
    "-i": "-i", "--in-interface": "-i", "-o": "-o", "--out-interface": "-o",
    "-p": "-p", "--protocol": "-p", "--proto": "-p", "-m": "-m", "--match": "-m", "-j": "-j", "--jump": "-j",
    "-g": "-g", "--goto": "-g", "-f": "-f", "--fragment": "-f", "-c": "-c", "--set-counters": "-c",
    "-4": "-4", "--ipv4": "-4", "-6": "-6", "--ipv6": "-6",
}  # fmt: skip
_NEEDS_PROTOCOL = {"tcp": (6,), "udp": (17,), "sctp": (132,), "dccp": (33,), "udplite": (136,),
                   "multiport": (6, 17, 132, 33, 136), "icmp": (1,), "icmp6": (58,)}  # fmt: skip
_PLAIN_IPV4 = re.compile(r"(\d{1,3})(?:\.(\d{1,3}))?(?:\.(\d{1,3}))?(?:\.(\d{1,3}))?")


@dataclass(frozen=True, slots=True)
class RuleParts:
    """What the words of a rule say; `opaque` names what simnet does not model, with whether a verdict hangs on it."""

    matches: tuple[Match, ...]
    target: Target | None
    opaque: tuple[tuple[str, bool], ...] = ()
    counters: tuple[int, int] | None = None
    goto_verdict: bool = False


class _Module:
    """A match or target while its options are collected."""

    __slots__ = ("given", "name", "options", "raw")

    def __init__(self, name: str, options: dict[str, Option] | None) -> None:
        self.name = name
        self.options = options  # None: not known, everything goes to raw
        self.given: list[Given] = []
        self.raw: list[str] = []

    def tokens(self) -> tuple[str, ...]:
        """All options as words, known ones in the order in which iptables-save prints them."""
        order = {option.name: place for place, option in enumerate((self.options or {}).values())}
        words: list[str] = []
        for name, negated, values in sorted(self.given, key=lambda given: order[given[0]]):
            words += ["!", name, *values] if negated else [name, *values]
        return (*words, *self.raw)


class RuleReader:
    """Reads rules of one address family; keeps what it has read, so use one per text."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self._networks: dict[str, tuple[IPNetwork | str, ...]] = {}
        self._headers: dict[tuple[str, str, bool], tuple[Match | None, ...]] = {}
        self._matches: dict[tuple[str, tuple[Given, ...]], tuple[Match, ...]] = {}
        self._targets: dict[tuple[str, tuple[Given, ...]], Target] = {}
        self._jumps: dict[tuple[str, bool], Jump] = {}
        self._verdicts = {name: Verdict(name) for name in VERDICTS}
        self._tuples: dict[tuple[Match, ...], tuple[Match, ...]] = {}

    def read(self, words: Sequence[str], at: int, is_chain: Callable[[str], bool]) -> list[RuleParts]:
        """Return the rules that `words[at:]` make (several if `-s` or `-d` lists addresses; none for the other family).

        `is_chain` says whether a name is a chain of the table, which decides what `-j` means for names that are also a
        target's. Raises RuleError.
        """
        header: dict[str, tuple[Match | None, ...]] = {}
        loaded: list[_Module] = []
        target: _Module | None = None
        jump: tuple[str, bool] | None = None
        last_raw: _Module | None = None
        counters: tuple[int, int] | None = None
        protocol = 0
        negated = False
        end = len(words)
        while at < end:
            word = words[at]
            at += 1
            if word == "!":
                if negated:
                    raise RuleError("!", "two '!' in a row", "at most one '!' before an option", "remove one")
                negated = True
                continue
            kind = _HEADER.get(word)
            if kind is None and word[:2] != "--":
                kind, attached = _attached(word)
                if kind is not None:
                    words = [*words[:at], attached, *words[at:]]
                    end += 1
            if kind is None:
                # --- an option of a loaded module, or of the protocol's own
                option = owner = None
                if target is not None and target.options is not None:
                    option, owner = target.options.get(word), target
                if option is None:
                    for module in reversed(loaded):
                        if module.options is not None:
                            option = module.options.get(word)
                            if option is not None:
                                owner = module
                                break
                if option is None and word[:2] == "--" and len(word) > 2:
                    found = self._resolve(word, loaded, target, protocol)
                    if found is not None:
                        option, owner, value = found
                        if value is not None:
                            words = [*words[:at], value, *words[at:]]
                            end += 1
                if option is None or owner is None:
                    if word[:1] != "-" or word == "-":  # a bare word: the value of an option not known
                        if last_raw is None or negated:
                            raise RuleError(
                                word,
                                f"the word {word!r}, which belongs to no option",
                                "an option, such as -s",
                                "put the text of a comment in double quotes, or remove the word",
                            )
                        last_raw.raw.append(word)
                        continue
                    last_raw = target if target is not None else loaded[-1] if loaded else None
                    if last_raw is None:
                        raise RuleError(
                            word,
                            f"option {word}",
                            "an option of iptables or of a match loaded with -m",
                            "check the spelling, or put the -m MODULE of this option before it",
                        )
                    last_raw.raw += ["!", word] if negated else [word]
                    negated = False
                    continue
                last_raw = None
                values: tuple[str, ...]
                if option.values == 1:
                    if at >= end:
                        raise _cut_off(word)
                    value = words[at]
                    at += 1
                    if value == "!" and at < end:  # the old spelling: --dport ! 80
                        negated, value = True, words[at]
                        at += 1
                    values = (value,)
                elif option.values == 0:
                    values = ()
                else:
                    if at < end and words[at] == "!":
                        negated = True
                        at += 1
                    values = tuple(words[at : at + option.values])
                    at += option.values
                    if len(values) < option.values:
                        raise _cut_off(word)
                owner.given.append((option.name, negated, values))
                negated = False
                continue
            if kind == "-f":
                header["-f"] = self._headers.setdefault(
                    ("-f", "", negated), (OpaqueMatch("", ("!", "-f") if negated else ("-f",)),)
                )
                negated = False
                continue
            if kind in ("-4", "-6"):
                if (kind == "-4") != (self.family is Family.IPV4):
                    return []
                continue
            if at >= end:
                raise _cut_off(word)
            value = words[at]
            at += 1
            if kind == "-m":
                if negated:
                    raise RuleError(
                        "-m", "! -m", "the '!' before an option of the match", "move the '!' behind -m MODULE"
                    )
                last_raw = module = _Module(value, MATCH_OPTIONS.get(value))  # type: ignore[arg-type]
                loaded.append(module)
                continue
            if kind == "-c":
                if at >= end or not (
                    value.isascii() and value.isdigit() and words[at].isascii() and words[at].isdigit()
                ):
                    raise RuleError("-c", f"-c {value}", "two numbers, packets and bytes", "write -c PACKETS BYTES")
                counters = (int(value[:20]), int(words[at][:20]))
                at += 1
                continue
            if kind in ("-j", "-g"):
                if negated:
                    raise RuleError(word, f"! {word}", f"{word} without '!'", "remove the '!'")
                if jump is not None:
                    raise RuleError(word, f"a second target, {value}", "one target per rule", "make two rules of it")
                jump = (value, kind == "-g")
                if value not in VERDICTS and not jump[1] and not is_chain(value):
                    last_raw = target = _Module(value, TARGET_OPTIONS.get(value))  # type: ignore[arg-type]
                continue
            if value == "!" and at < end:  # the old spelling: -s ! 10.0.0.0/8
                negated, value = True, words[at]
                at += 1
            if kind in header:
                raise RuleError(word, f"{word} twice", "each of -s, -d, -i, -o, -p once", "make two rules of it")
            key = (kind, value, negated)
            built = self._headers.get(key)
            if built is None:
                built = self._headers[key] = self.header(kind, value, negated)
            if kind == "-p" and isinstance(built[0], ProtocolMatch) and not negated:
                protocol = built[0].number
            header[kind] = built
            negated = False
        if negated:
            raise _cut_off("!")
        for module in loaded:
            needed = _NEEDS_PROTOCOL.get(module.name)
            if needed is not None and protocol not in needed:
                names = ", ".join(PROTOCOL_NAMES[number] for number in needed)
                raise RuleError(f"-m {module.name}", f"-m {module.name} without -p", f"-p with one of {names}",
                                f"add -p {PROTOCOL_NAMES[needed[0]]}, as iptables-restore asks")  # fmt: skip
        return self._build(header, loaded, target, jump, counters)

    def _build(
        self,
        header: dict[str, tuple[Match | None, ...]],
        loaded: list[_Module],
        target: _Module | None,
        jump: tuple[str, bool] | None,
        counters: tuple[int, int] | None,
    ) -> list[RuleParts]:
        matches: list[Match] = []
        opaque: list[str] = []
        for module in loaded:
            key = (module.name, tuple(module.given))
            built = self._matches.get(key) if not module.raw else None
            if built is None:
                built = self._match(module)
                if not module.raw:
                    self._matches[key] = built
            matches += built
            if built and type(built[-1]) is OpaqueMatch:
                opaque.append(_why(module, "match"))
        acts, passes, goto_verdict = self._target(target, jump, opaque)
        heads = [header[kind] for kind in ("-s", "-d", "-i", "-o", "-p", "-f") if kind in header]
        rules = []
        for combination in itertools.product(*heads):
            parts = (*(match for match in combination if match is not None), *matches)
            whats = opaque + [
                f"option {' '.join(match.arguments)} is not modelled"
                for match in combination
                if type(match) is OpaqueMatch
            ]
            rules.append(
                RuleParts(
                    self._tuples.setdefault(parts, parts),
                    acts,
                    tuple((what, not passes) for what in whats),
                    counters,
                    goto_verdict,
                )
            )
        return rules

    def _target(
        self, target: _Module | None, jump: tuple[str, bool] | None, opaque: list[str]
    ) -> tuple[Target | None, bool, bool]:
        """The target; whether the packet goes on after it whatever happens; whether it was `-g VERDICT`."""
        if jump is None:
            return None, True, False
        name, goto = jump
        if name in VERDICTS:
            return self._verdicts[name], False, goto
        if target is None or (target.options is None and not target.given and not target.raw):
            held = self._jumps.get(jump)
            if held is None:
                held = self._jumps[jump] = Jump(name, goto)
            return held, False, False
        if name in MODELLED_TARGETS and not target.raw:
            key = (name, tuple(target.given))
            acts = self._targets.get(key)
            if acts is None:
                acts = self._targets[key] = parser_target.build(name, target.given, target.tokens(), self.family)
        else:
            acts = OpaqueTarget(name, target.tokens())
        if not isinstance(acts, OpaqueTarget):
            return acts, False, False
        passes = name in PASSING_TARGETS or (name == "CONNMARK" and "--restore-mark" not in acts.arguments)
        opaque.append(_why(target, "target"))
        return acts, passes, False

    def _match(self, module: _Module) -> tuple[Match, ...]:
        if module.options is not None and not module.raw:
            names = [name for name, _, _ in module.given]
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise RuleError(twice, f"{twice} twice in one -m {module.name}", "each option once per match",
                                f"load the match a second time: -m {module.name} {twice} ...")  # fmt: skip
            built = parser_match.build(module.name, module.given, self.family)
            if built is not None:
                return built
        return (OpaqueMatch(module.name, module.tokens()),)

    def _resolve(
        self, word: str, loaded: list[_Module], target: _Module | None, protocol: int
    ) -> tuple[Option, _Module, str | None] | None:
        """Find an option written as `--name=value`, shortened, or of the protocol's own match, which is then loaded."""
        name, equals, value = word.partition("=")
        owners = ([target] if target is not None else []) + loaded[::-1]
        for owner in owners:
            option = _by_prefix(owner.options, name)
            if option is not None:
                return option, owner, value if equals else None
        own = PROTOCOL_MODULES.get(protocol)
        if own is not None:
            option = _by_prefix(MATCH_OPTIONS[own], name)  # type: ignore[arg-type]
            if option is not None:
                module = _Module(own, MATCH_OPTIONS[own])  # type: ignore[arg-type]
                loaded.append(module)
                return option, module, value if equals else None
        return None

    def header(self, kind: str, value: str, negated: bool) -> tuple[Match | None, ...]:
        """The match of `-s`, `-d`, `-i`, `-o` or `-p`; None where it lets everything pass. Raises RuleError."""
        if kind in ("-s", "-d"):
            networks = self.networks(value)
            if negated and len(networks) > 1:
                raise RuleError(kind, f"! {kind} {value}", "one address after '!'", "write one rule per address")
            kept: list[Match | None] = []
            for network in networks:
                if isinstance(network, str):
                    kept.append(OpaqueMatch("", ("!", kind, network) if negated else (kind, network)))
                elif network.prefixlen == 0 and not negated:
                    kept.append(None)
                else:
                    kept.append((SourceAddress if kind == "-s" else DestinationAddress)(network, negated))
            return tuple(kept)
        if kind in ("-i", "-o"):
            if not value or len(value.encode("utf-8", "replace")) > 15 or "/" in value:
                raise RuleError(kind, f"interface {value[:60]!r}", "a name of 1 to 15 characters without '/'",
                                "use the name that `ip link` shows")  # fmt: skip
            if value == "+" and not negated:
                return (None,)
            return ((InInterface if kind == "-i" else OutInterface)(value, negated),)
        number = PROTOCOL_NUMBERS.get(value.lower())
        if number is None:
            if not (value.isascii() and value.isdigit() and len(value) <= 3 and int(value) <= 255):
                raise RuleError("-p", f"protocol {value[:60]!r}", "a protocol's name, or a number from 0 to 255",
                                "use the number of /etc/protocols")  # fmt: skip
            number = int(value)
        if number == 0:
            if negated:
                raise RuleError("-p", "! -p all", "a protocol after '!'", "remove the rule: it can never match")
            return (None,)
        return (ProtocolMatch(number, PROTOCOL_NAMES.get(number, str(number)), negated),)

    def networks(self, text: str) -> tuple[IPNetwork | str, ...]:
        """The networks of an address list; a mask that is not a prefix is kept as text `address/mask`."""
        held = self._networks.get(text)
        if held is None:
            held = self._networks[text] = tuple(self._network(part) for part in text.split(","))
        return held

    def _network(self, text: str) -> IPNetwork | str:
        address, slash, mask = text.partition("/")
        try:
            if ":" in address:
                if self.family is Family.IPV4:
                    raise _other_family(text, "IPv4", "IPv6")
                if "%" in address:
                    raise ValueError
                return ipaddress.IPv6Network(text, strict=False)
            found = _PLAIN_IPV4.fullmatch(address)
            if found is None:
                raise ValueError
            octets = [int(octet) for octet in found.groups(default="0")]
            if max(octets) > 255 or any(len(octet or "") > 1 and octet[0] == "0" for octet in found.groups("")):
                raise ValueError
            if self.family is Family.IPV6:
                raise _other_family(text, "IPv6", "IPv4")
            bits = int.from_bytes(bytes(octets), "big")
            if not slash:
                return ipaddress.IPv4Network((bits, 32))
            if mask.isascii() and mask.isdigit() and len(mask) < 3 and int(mask) <= 32:
                return ipaddress.IPv4Network((bits, int(mask)), strict=False)
            mask_bits = int(ipaddress.IPv4Address(mask))
        except ValueError:
            raise RuleError(
                "address",
                repr(text[:80]),
                "an address or network in numbers, such as 10.0.0.0/8 or fd00::/8",
                "use numbers, not names (iptables-save, or iptables -n, prints them)",
            ) from None
        inverse = mask_bits ^ 0xFFFFFFFF
        if inverse & (inverse + 1) == 0:
            return ipaddress.IPv4Network((bits, 32 - inverse.bit_length()), strict=False)
        return f"{ipaddress.IPv4Address(bits & mask_bits)}/{ipaddress.IPv4Address(mask_bits)}"


def _attached(word: str) -> tuple[str | None, str]:
    """Split `-ptcp` or `-jDROP`, as getopt does."""
    if len(word) > 2 and word[0] == "-" and word[:2] in ("-s", "-d", "-i", "-o", "-p", "-m", "-j", "-g"):
        return word[:2], word[2:]
    return None, ""


def _by_prefix(options: dict[str, Option] | None, name: str) -> Option | None:
    """The option of that name or, as getopt allows, the only one that begins so."""
    if not options:
        return None
    exact = options.get(name)
    if exact is not None:
        return exact
    begun = {option.name: option for spelled, option in options.items() if spelled.startswith(name)}
    return next(iter(begun.values())) if len(begun) == 1 and len(name) > 3 else None


def _why(module: _Module, what: str) -> str:
    if module.options is None:
        return f"{what} {module.name} is not known"
    if module.raw:
        return f"option {' '.join(module.raw)} of {what} {module.name} is not known"
    return f"{what} {module.name} is not modelled"


def _other_family(text: str, family: str, other: str) -> RuleError:
    return RuleError(
        "address",
        text[:80],
        f"{family} addresses, as in the rest of the text",
        f"keep iptables-save and ip6tables-save in files of their own; this looks like {other}",
    )


def _cut_off(word: str) -> RuleError:
    return RuleError(word, f"the line ends after {word}", f"a value after {word}",
                     "the line seems cut off; save the rules again, whole")  # fmt: skip
