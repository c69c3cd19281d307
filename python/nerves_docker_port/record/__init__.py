"""What is kept of a build and what a person sees of it: the log, its headlines, the cause of a failure, the journal.

It must know neither the engine nor the port.
"""
