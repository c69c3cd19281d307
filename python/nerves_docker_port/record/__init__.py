"""What is kept of a build and what a person sees of it: the log, the headlines, the journal, the reporter.

It must know neither the engine nor the port.
"""
