[inputs: ["*.exs", "config/*.exs"]]
