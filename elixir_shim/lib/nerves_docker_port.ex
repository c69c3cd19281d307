defmodule NervesDockerPort do
  @moduledoc """
  Builds Nerves systems on a Docker engine, without the `docker` CLI.

  It is a drop-in replacement for `Nerves.Artifact.BuildRunners.Docker`. Nerves calls `NervesDockerPort.BuildRunner`,
  which starts a Python helper as an Erlang port, sends it the package, and prints the events that the helper sends
  back. The helper runs the build through the engine's API.

  ## Use

  In the `mix.exs` of a custom system:

      defp nerves_package do
        [
          type: :system,
          build_runner: NervesDockerPort.BuildRunner,
          build_runner_opts: [make_args: ["PARALLEL_JOBS=8"]],
          # ...
        ]
      end

      defp deps do
        [
          {:nerves_docker_port, "~> 0.1", runtime: false},
          # ...
        ]
      end

  It needs `python3` (3.10 or later) on the PATH, and a running engine. This package contains the helper and its
  dependencies.

  ## The parts

    * `NervesDockerPort.BuildRunner` - the callbacks that Nerves calls
    * `NervesDockerPort.Request` - makes the arguments of a request, with names and paths from Nerves
    * `NervesDockerPort.Shell` - gives the terminal to the helper for the build shell
    * `NervesDockerPort.Command` - finds the program that is the helper
    * `NervesDockerPort.Helper` - starts a helper and exchanges messages with it
    * `NervesDockerPort.Connection` - owns the port, and queues the helper's messages
    * `NervesDockerPort.Protocol` - encodes and decodes frames
    * `NervesDockerPort.Console` - prints the output of a build for the user
    * `NervesDockerPort.CI` - makes the groups, the annotation and the summary that a CI service shows
  """

  @version Mix.Project.config()[:version]

  @doc """
  Returns the version of this package, which is also the version of the helper in it.

  ## Examples

      iex> Version.match?(NervesDockerPort.version(), ">= 0.1.0")
      true
  """
  @spec version() :: String.t()
  def version, do: @version
end
