defmodule NervesDockerPort do
  @moduledoc """
  Builds Nerves systems on a Docker engine, without the `docker` CLI.

  A drop-in replacement for `Nerves.Artifact.BuildRunners.Docker`. `NervesDockerPort.BuildRunner` is what Nerves calls; it
  starts one Python helper as an Erlang port, hands it the package, and prints what the helper says. The helper runs the
  build over the engine's API.

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

  It needs `python3`, 3.10 or later, on the PATH, and an engine that answers. The helper and what it depends on come with
  this package.

  ## The parts

    * `NervesDockerPort.BuildRunner` - what Nerves calls
    * `NervesDockerPort.Request` - what the helper is told, asked from Nerves
    * `NervesDockerPort.Shell` - the terminal, given to the helper for the build shell
    * `NervesDockerPort.Command` - which program the helper is
    * `NervesDockerPort.Helper` - the conversation with it
    * `NervesDockerPort.Connection` - the port, and the events that wait
    * `NervesDockerPort.Protocol` - terms and frames
    * `NervesDockerPort.Console` - what the person sees
  """

  @version Mix.Project.config()[:version]

  @doc """
  The version of this package, and so of the helper that it carries.

  ## Examples

      iex> NervesDockerPort.version()
      "0.1.0"
  """
  @spec version() :: String.t()
  def version, do: @version
end
