"""Images: whether one is there, whether it is the right one, and how to pull or build it.

It must not know what an image is used for.
"""
