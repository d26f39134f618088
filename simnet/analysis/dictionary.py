"""Prints the data dictionary: `python -m simnet.analysis.dictionary > docs/data-dictionary.md`."""

from __future__ import annotations

import sys

from simnet.analysis.measures import MEASURES
from simnet.results.data_dictionary import data_dictionary


def text() -> str:
    """Return the whole data dictionary, measures of the summary included."""
    return data_dictionary(measures=MEASURES)


if __name__ == "__main__":
    sys.stdout.write(text())
