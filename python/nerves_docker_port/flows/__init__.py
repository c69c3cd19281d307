"""The flows: build, archive, clean, shell, run and copy, each a recipe that reads from top to bottom.

This package must know neither the port nor the docker SDK, and it must not put shell commands together.
"""
