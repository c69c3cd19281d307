"""The requests of Mix and the settings of the user, which are validated once and then frozen.

This package reads plain values. It must use neither the engine nor the file system.
"""
