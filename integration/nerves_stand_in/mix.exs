defmodule NervesStandIn.MixProject do
  # In the place of Nerves where Hex cannot be reached; see README.md.
  use Mix.Project

  def project do
    [
      app: :nerves,
      # Of the Nerves whose behaviour it follows.
      version: "1.14.1",
      elixir: "~> 1.14",
      deps: []
    ]
  end

  def application, do: [extra_applications: [:crypto]]
end
