"""Which packets exist.

Pure functions of the workload's specification, the seed and the state carried between windows.
"""
