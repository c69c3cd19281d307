"""The helper behind ``NervesDockerPort.BuildRunner``: builds Nerves systems on a Docker engine.

The modules, from the outside in: ``__main__`` (commands), ``session`` (a conversation over the port), ``recipe`` (the
flows), ``workspace`` (how containers see the host), ``image``, ``volume`` and ``container`` (one kind of engine object
each), ``steps`` (what runs in a container, one after the other), ``engine`` (the connection). ``shell`` is the build
shell's command, on a ``terminal`` and a ``stream``, with a ``guardian``. Below them lie ``request``, ``protocol``,
``wire``, ``output``, ``owner``, ``cancellation`` and ``errors``. See ``docs/architecture.md``.
"""

__version__ = "0.1.0"
