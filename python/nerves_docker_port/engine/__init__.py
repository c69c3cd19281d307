"""The engine: its address, the connection to it, containers, streams, transfers and registry credentials.

Only this package, `image`, `volume` and `workspace` may import the docker SDK.
This package must not know what a container is for.
"""
