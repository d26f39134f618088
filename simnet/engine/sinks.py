"""Who takes packet rows while a run is under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from simnet.model.recording import ColumnData

PacketSink = Callable[[Mapping[str, ColumnData]], None]
