defmodule Mix.Tasks.NervesDockerPort.Copy do
  @shortdoc "Copies a file or directory out of the build directory of a Nerves system"

  @moduledoc """
  Copies a file or a directory out of the build directory of the system, without a build.

      mix nerves_docker_port.copy BUILD_TREE_PATH HOST_PATH
      mix nerves_docker_port.copy .config buildroot.config
      mix nerves_docker_port.copy build/linux-6.12/.config linux.config
      mix nerves_docker_port.copy images .

  `BUILD_TREE_PATH` is relative to the build directory. If `HOST_PATH` is a directory, or ends with a slash, the copy goes
  into it. A file replaces a file; a directory with files in it is never replaced or merged with.

  The copy belongs to you. Symbolic links stay symbolic links, and hard links stay hard links. Permissions and times are
  kept, except special bits such as setuid. Only the path itself may lead through symbolic links, as long as it stays in
  the build directory. If the copy fails, nothing is left at its place, and nothing is written anywhere else.

  The task is refused while a build, a shell or a command uses the build volume. Nerves builds a system that is stale before
  Mix runs this task; `mix help nerves_docker_port.doctor` has the variables with which it does not.
  """

  use Mix.Task

  alias NervesDockerPort.BuildTree

  @impl Mix.Task
  def run(arguments) do
    case OptionParser.parse!(arguments, strict: []) do
      {[], [source, target]} ->
        BuildTree.copy(source, target)

      _other ->
        Mix.raise(
          "mix nerves_docker_port.copy takes a path in the build directory and a path on this machine, for example: " <>
            "mix nerves_docker_port.copy images ."
        )
    end
  end
end
