defmodule Mix.Tasks.NervesDockerPort.Volumes do
  @shortdoc "Lists the build volumes of a Nerves system, and removes old ones"

  @moduledoc """
  Lists the build volumes at the engine, or removes those that are no longer needed.

      mix nerves_docker_port.volumes
      mix nerves_docker_port.volumes --prune
      mix nerves_docker_port.volumes --prune my_system-0123456789abcdef

  Every version of a system has a build volume of its own, which takes gigabytes. The task prints a line for each
  volume: its name, package and version, its size, and when this runner last built on it. If no build of this runner is
  recorded, the line says when the volume was made. When another runner last used a volume is not known.

  `--prune` removes this package's volumes whose package directory no longer exists, because you have deleted that copy
  of the package. With `--all`, it removes such volumes of other packages, too. A directory counts as deleted only on
  the machine and for the user that the volume was made for, and only if its parent directory still exists. Otherwise
  its disk may only not be mounted, or the volume may belong to another machine or container. Then the volume is kept,
  and the list says why.

  The volume of another version of the package is kept, because a branch may still need it. To remove it, name it:
  `--prune NAME...` removes these volumes even if their package still exists. For a volume of another package, give
  `--all`, too.

  The task first shows the volumes that it will remove, and asks you. Without a terminal it removes nothing unless
  `--yes` is given. It keeps a volume that is in use, and every volume that this runner did not make.

  Nerves builds a system that is stale before Mix runs this task; `mix help nerves_docker_port.doctor` has the variables
  with which it does not.

  ## Options

    * `--all` - list or remove the build volumes of all packages, not only this project's. The list then also has the
      volumes that another runner seems to have made.
    * `--prune` - remove the volumes whose package directory was deleted, or the volumes that are named
    * `--yes` - do not ask
  """

  use Mix.Task

  alias NervesDockerPort.{Console, Helper, Project}

  @switches [all: :boolean, prune: :boolean, yes: :boolean]

  @impl Mix.Task
  def run(arguments) do
    {options, names} = OptionParser.parse!(arguments, strict: @switches)

    if names != [] and options[:prune] != true do
      Mix.raise(
        "mix nerves_docker_port.volumes takes names of volumes only with `--prune`: #{Enum.join(names, " ")}"
      )
    end

    wanted = Map.new([:all, :prune, :yes], &{&1, options[&1] == true})
    request = wanted |> Map.put(:volumes, names) |> Project.request()

    if request.package == nil and not (request.all or request.prune) do
      Mix.raise(
        "There is no Nerves system here. Run this task in the directory of a system, or of a project with MIX_TARGET set; " <>
          "or list everybody's build volumes with `--all`."
      )
    end

    case Helper.request(:volumes, request) do
      %{text: text} ->
        Mix.shell().info(Console.printable(text))
        :ok

      other ->
        Mix.raise("The helper ended volumes well, but said nothing: #{inspect(other)}")
    end
  end
end
