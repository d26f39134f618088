"""`cluster.nodes[].iptables`: the saved rules that a node runs on in place of generated ones, one file a family.

What a file does not hold is not there: a table that it lacks is empty, with a warning. A family that no file is of
keeps its generated rules, since `iptables-save` and `ip6tables-save` each speak of their own family only.
"""

from __future__ import annotations

from collections.abc import Sequence

from simnet.config.documents import FieldPath
from simnet.config.reading import Reading
from simnet.errors import InputError, Position, Problem
from simnet.model.iptables.modelled import LeftOutRule, left_out_rules
from simnet.model.iptables.parser import ParsedRules, parse_rules
from simnet.model.scenario import SavedRules

MOST_TOLD = 100  # rules that are not modelled, of one file


def saved_rules_of(names: Sequence[str], reading: Reading, path: FieldPath) -> tuple[SavedRules, ...]:
    """Return the rules of the files; mistakes and rules that are not modelled are reported, the latter unless skipped.

    Each file is read once however many nodes and points of a sweep name it.
    """
    found: dict[str, SavedRules] = {}
    for name in names:
        if name not in reading.saved_rules:
            reading.saved_rules[name] = _read(name, reading, path)
        saved, problems, warnings = reading.saved_rules[name]
        reading.problems += problems
        reading.warnings += [each for each in warnings if each not in reading.warnings]
        if saved is None:
            continue
        if saved.family.value in found:
            fix = "name one file a family: the text of iptables-save, and that of ip6tables-save"
            both = f"{found[saved.family.value].saved_file} and {saved.saved_file}, both {saved.family.value}"
            reading.refuse(path, both, "one file a family", fix)
        found[saved.family.value] = saved
    return tuple(found.values())


def _read(name: str, reading: Reading, path: FieldPath) -> tuple[SavedRules | None, list[Problem], list[Problem]]:
    """The rules of one file with the problems and warnings that it gives rise to."""
    file = reading.folder / name
    before = len(reading.problems)
    try:
        text = file.read_text(encoding="utf-8", errors="strict")
        reading.files[str(file)] = None
        parsed = parse_rules(text, file=str(file))
    except InputError as error:
        return None, list(error.problems), []
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        reading.refuse(path, f"{name}: {reason}", "a file of iptables-save text", reading.relative_fix)
        problems = reading.problems[before:]
        del reading.problems[before:]
        return None, problems, []
    left_out = left_out_rules(parsed)
    if left_out and not reading.skip_unknown:
        return None, _refused(left_out), []
    return SavedRules(parsed.ruleset.family, text, str(file), left_out), [], _odd(parsed, str(file))


def _refused(left_out: Sequence[LeftOutRule]) -> list[Problem]:
    problems = [
        Problem(
            Position(each.file, each.line),
            each.table,
            f"{each.rule}  ({each.reason})",
            "matches and targets that simnet models, where a verdict hangs on them",
            "leave such rules out with --skip-unknown, or take them out of the file",
        )
        for each in left_out[:MOST_TOLD]
    ]
    if len(left_out) > MOST_TOLD:
        more = f"{len(left_out) - MOST_TOLD} more rules that are not modelled"
        problems.append(
            Problem(Position(left_out[0].file, 10**9), "", more, "rules that simnet models", "see those above")
        )
    return problems


def _odd(parsed: ParsedRules, file: str) -> list[Problem]:
    """How odd places were read, and which of kube-proxy's tables the text lacks."""
    odd = [
        Problem(
            Position(file, note.line), "", note.text, "the whole text of iptables-save", "nothing, if that is meant"
        )
        for note in parsed.notes
    ]
    lacking = [name for name in ("nat", "filter") if name not in parsed.ruleset.tables]
    for name in lacking:
        effect = "no Service is translated here" if name == "nat" else "nothing is dropped or rejected here"
        odd.append(
            Problem(
                Position(file), "", f"no table {name}: {effect}", "the tables nat and filter",
                "nothing, if that is meant; else save with iptables-save without -t",
            )
        )  # fmt: skip
    return odd
