"""The flows: build, archive, clean and shell, each a recipe that reads from top to bottom.

It must know neither the port nor the docker SDK, and it must not put shell commands together.
"""
