defmodule Mix.Tasks.NervesDockerPort.Run do
  @shortdoc "Runs a command in the build directory of a Nerves system"

  @moduledoc """
  Runs one command in the build directory of the system.

      mix nerves_docker_port.run -- COMMAND [ARGUMENT...]
      mix nerves_docker_port.run -- make menuconfig
      mix nerves_docker_port.run --get build/hello-1.0/config.log -- make hello-reconfigure

  The command runs in a container like that of a build step, as the same user, with the same settings, after
  `create-build.sh`. `mix nerves_docker_port.make` is shorter for targets of `make`.

  If Mix has a terminal, the command gets it, so full-screen programs and Ctrl-C work. Without a terminal (in a CI, or
  with a pipe), the output of the command goes to the standard output unchanged, and its standard input is empty. The
  exit status of Mix is that of the command. The output is also written to `run.log` in the working directory.

  A build, a shell and a command exclude each other on one build volume: while one of them runs, the others are refused.

  Nerves builds a system that is stale before Mix runs this task; `mix help nerves_docker_port.doctor` has the variables
  with which it does not.

  ## Options

    * `--get PATH` - if the command has ended with status 0, copy a file or directory of the build directory to the
      working directory. The option may be given more than once. A file of the same name is replaced, a directory with
      files is not.
  """

  use Mix.Task

  alias NervesDockerPort.BuildTree

  @impl Mix.Task
  def run(arguments) do
    {options, words} = OptionParser.parse_head!(arguments, strict: [get: :keep])

    if words == [] do
      Mix.raise(
        "mix nerves_docker_port.run takes a command, for example: mix nerves_docker_port.run -- make help"
      )
    end

    BuildTree.run(words, Keyword.get_values(options, :get))
  end
end
