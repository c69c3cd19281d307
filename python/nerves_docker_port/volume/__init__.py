"""The build volume: its name, who may use it, and which volumes may be removed.

This package must not know which step runs on a volume or what the step is for.
"""
