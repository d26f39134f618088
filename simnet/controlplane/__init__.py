"""Which tables does each box hold? Pure functions of objects and messages."""
