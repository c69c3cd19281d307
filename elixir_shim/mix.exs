defmodule NervesDockerPort.MixProject do
  use Mix.Project

  @version "0.1.0"

  def project do
    [
      app: :nerves_docker_port,
      version: @version,
      elixir: "~> 1.14",
      elixirc_paths: elixirc_paths(Mix.env()),
      deps: deps(),
      # Nerves compiles its own packages before it builds a system, and nothing else. So we are one: else a `mix compile`
      # with nothing compiled yet would not find the build runner.
      nerves_package: [type: :package],
      description: "Builds Nerves systems on a Docker engine, without the docker CLI",
      package: package(),
      docs: docs()
    ]
  end

  # No application of its own: everything runs inside Mix.
  def application, do: []

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_env), do: ["lib"]

  # Nerves is not listed although it is called: it is the system's own dependency, which calls us at run time, and every
  # call to it is resolved then. So neither is compiled before the other, and a Nerves from a path needs no `override`.
  # ExDoc is there only for those who write documentation, so that compiling and testing need no Hex.
  defp deps do
    if System.get_env("NERVES_DOCKER_PORT_DOCS") do
      [{:ex_doc, "~> 0.34", only: :docs, runtime: false}]
    else
      []
    end
  end

  defp package do
    [
      licenses: ["Apache-2.0"],
      links: %{"Nerves" => "https://nerves-project.org"},
      files: ["lib", "priv/python", "mix.exs", ".formatter.exs", "README.md", "LICENSE"]
    ]
  end

  defp docs do
    [
      main: "NervesDockerPort",
      source_ref: "v#{@version}",
      extras: ["README.md"]
    ]
  end
end
