defmodule NervesStandIn.MixProject do
  # Replaces Nerves on machines that cannot reach Hex; see README.md.
  use Mix.Project

  def project do
    [
      app: :nerves,
      # The version of Nerves whose behaviour this stand-in has.
      version: "1.14.1",
      elixir: "~> 1.14",
      deps: []
    ]
  end

  def application, do: [extra_applications: [:crypto]]
end
