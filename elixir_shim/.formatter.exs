[
  inputs: ["{mix,.formatter}.exs", "{lib,test}/**/*.{ex,exs}"],
  # As for Python, in pyproject.toml.
  line_length: 110
]
