"""Finds out why a build would not work, and says what to do about it.

It only looks: it must not change anything, at the engine or on the host.
"""
