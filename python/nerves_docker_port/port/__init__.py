"""The conversation with the Elixir shim: hello, frames, terms, messages, and the session that serves requests.

It passes requests on to operations that it is given. It must know neither Docker nor what a request is for.
"""
