from __future__ import annotations
def listing_text(*a: object, **k: object) -> str: raise NotImplementedError
