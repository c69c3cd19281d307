"""The helper behind ``NervesDockerPort.BuildRunner``: builds Nerves systems on a Docker engine.

Each package's ``__init__.py`` says what the package is responsible for and what it must not know. See
``docs/architecture.md`` for how they fit together.
"""

__version__ = "0.1.0"
