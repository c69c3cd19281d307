"""The tags of the builder images that `integration/world.py run --image ...` makes."""

NEW = "nerves_docker_port/builder:new"
"""Like the images of nerves_system_br 1.28.1 and later."""
NEW_1_28_0 = "nerves_docker_port/builder:new-1.28.0"
"""Like the image of nerves_system_br 1.28.0, which has no `/home/nerves/project`."""
OLD = "nerves_docker_port/builder:old"
"""Like the images of nerves_system_br up to 1.27."""
