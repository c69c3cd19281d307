"""What Mix asks for and what a person has configured, validated once and then frozen.

It reads plain values and must touch neither the engine nor the file system.
"""
