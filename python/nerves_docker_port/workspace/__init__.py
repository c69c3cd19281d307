"""How a container sees the host: its working directory, environment, mounts, and the user it works as.

It must not know which step runs in a container or what the step is for.
"""
