defmodule Mix.Tasks.NervesDockerPort.Make do
  @shortdoc "Runs make in the build directory of a Nerves system"

  @moduledoc """
  Runs `make` with these targets in the build directory of the system.

      mix nerves_docker_port.make savedefconfig
      mix nerves_docker_port.make legal-info --get legal-info
      mix nerves_docker_port.make linux-rebuild V=1
      mix nerves_docker_port.make -- -n world

  It is short for `mix nerves_docker_port.run -- make TARGET...`, and works as described in its documentation
  (`mix help nerves_docker_port.run`). Options of `make` itself follow after `--`.

  ## Options

    * `--get PATH` - if `make` has ended with status 0, copy a file or directory of the build directory to the working
      directory. The option may be given more than once. A file of the same name is replaced, a directory with files is
      not.
  """

  use Mix.Task

  alias NervesDockerPort.BuildTree

  @impl Mix.Task
  def run(arguments) do
    {options, targets} = OptionParser.parse!(arguments, strict: [get: :keep])

    if targets == [] do
      Mix.raise(
        "mix nerves_docker_port.make takes a target, for example: mix nerves_docker_port.make savedefconfig"
      )
    end

    BuildTree.run(["make" | targets], Keyword.get_values(options, :get))
  end
end
