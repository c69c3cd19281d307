"""The terminal's side of a build shell: the command, the person's terminal, and the guardian of its modes.

It must not know how the container of a shell is made.
"""
