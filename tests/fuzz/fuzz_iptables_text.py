"""Coverage-guided fuzzing of the readers of rule text; needs atheris, which the tests do not.

python tests/fuzz/fuzz_iptables_text.py -max_total_time=180 [CORPUS]
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from simnet.errors import InputError
    from simnet.model.iptables.listing_printer import listing_text
    from simnet.model.iptables.parser import parse_rules, parse_save
    from simnet.model.iptables.printer import save_text


def one_input(data: bytes) -> None:
    """Rules that print and read back as they were, or an InputError with a line and a fix; else a crash to keep."""
    text = data.decode("utf-8", "replace")
    try:
        parsed = parse_rules(text, file="fuzz")
    except InputError as error:
        for problem in error.problems:
            if problem.where.file != "fuzz" or not problem.where.line or not problem.fix:
                raise RuntimeError(f"a problem without its file, line or fix: {problem}") from error
        return
    printed = save_text(parsed.ruleset, counters=True)
    for table in parsed.ruleset.tables:
        listing_text(parsed.ruleset, table)
    if parsed.form == "save" and not parsed.not_understood:
        again = parse_save(printed, file="again", family=parsed.ruleset.family)
        if again.ruleset.tables != parsed.ruleset.tables:
            raise RuntimeError("what was printed is read as other rules")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
