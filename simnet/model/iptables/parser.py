"""Read a host's iptables rules from text: `iptables-save`, `iptables-restore` input, `iptables -S`, parts of them.

What simnet does not model is kept and named (`ParsedRules.not_understood`); odd places are read with a note; what has
no clear meaning is refused, every mistake at once, with its line. Listings (`iptables -L`) have a parser of their own
(`listing`); `parse_rules` tells which of the two a text is, or holds both, and takes off what pasting put around it.
Left out: several hosts in one text; `-R` and `-E`.
Source: iptables-restore(8) 1.8.9.
"""

from __future__ import annotations

from dataclasses import replace

from simnet.errors import InputError, Position, Problem
from simnet.model.iptables import listing, pasted_text
from simnet.model.iptables.parser_rule import RuleReader
from simnet.model.iptables.parser_text import (
    Draft,
    Note,
    NotUnderstood,
    ParsedRules,
)
from simnet.model.iptables.pasted_pick import family_shown, pick
from simnet.model.iptables.ruleset import Family
from simnet.model.iptables.save_reader import SaveReader

__all__ = ["Note", "NotUnderstood", "ParsedRules", "parse_rules", "parse_save"]


def parse_rules(text: str, *, file: str, family: Family | None = None) -> ParsedRules:
    """Return the rules of a text that people paste: a save (`parse_save`), a listing (`listing.parse_listing`) or both.

    `family` picks the rules of that family where the text holds both; None asks for a text of one. What stands around
    the rules is passed over with a note. Raises InputError.
    """
    text, taken_off = pasted_text.tidy(text)
    picked = pick(text, file, family)
    parsed = [
        read(picked.texts[form], file=file, family=picked.family)
        for form, read in (("save", parse_save), ("listing", listing.parse_listing))
        if form in picked.texts
    ]
    notes = [Note(0, what) for what in (*taken_off, *picked.notes)]
    if len(parsed) == 2:
        parsed = [_together(*parsed)]
    return replace(parsed[0], notes=(*notes, *parsed[0].notes)) if notes else parsed[0]


def _together(saved: ParsedRules, listed: ParsedRules) -> ParsedRules:
    """The tables of a save, and those that only a listing beside it holds: a save says more."""
    tables = dict(saved.ruleset.tables)
    notes = [*saved.notes]
    for name, table in listed.ruleset.tables.items():
        if name in tables:
            notes.append(Note(0, f"table {name} is there as a save and as a listing; the save counts"))
        else:
            tables[name] = table
    only_listed = tables.keys() - saved.ruleset.tables.keys()
    return ParsedRules(
        replace(saved.ruleset, tables=tables),
        (*saved.not_understood, *(item for item in listed.not_understood if item.table in only_listed)),
        (*notes, *(listed.notes if only_listed else ())),
        saved.form,
    )


def parse_save(text: str, *, file: str, family: Family | None = None) -> ParsedRules:
    """Return the rules of `iptables-save`, `iptables-restore` or `iptables -S` text, or of parts of one.

    `family` None: told by the first address or option that shows it, IPv4 if none does. Raises InputError.
    """
    if "\0" in text:
        raise InputError(
            [
                Problem(
                    Position(file, text.count("\n", 0, text.index("\0")) + 1),
                    "",
                    "a NUL byte",
                    "the text of iptables-save",
                    "save the rules with `iptables-save > FILE`",
                )
            ]
        )
    if family is None:
        family = family_shown(text) or Family.IPV4
    reader = SaveReader(Draft(file, family, "save"), RuleReader(family))
    return reader.read(text)
