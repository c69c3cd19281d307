"""The tags of the builder images that `integration/world.py run --image ...` brings."""

NEW = "nerves_docker_port/builder:new"
"""As from nerves_system_br 1.28.1 on."""
NEW_1_28_0 = "nerves_docker_port/builder:new-1.28.0"
"""As nerves_system_br 1.28.0's own: without `/home/nerves/project`."""
OLD = "nerves_docker_port/builder:old"
"""As up to nerves_system_br 1.27."""
