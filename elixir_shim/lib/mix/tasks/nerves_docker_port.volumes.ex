defmodule Mix.Tasks.NervesDockerPort.Volumes do
  @shortdoc "Lists the build volumes of a Nerves system, and removes old ones"

  @moduledoc """
  Lists the build volumes at the engine, or removes those that are no longer needed.

      mix nerves_docker_port.volumes
      mix nerves_docker_port.volumes --prune
      mix nerves_docker_port.volumes --prune my_system-0123456789abcdef

  Every version of a system has a build volume of its own, and each takes gigabytes. A line for each: its name, package and
  version, its size, and when this runner last built on it (or when it was made, where no build of this runner was
  recorded since). When another runner last used a volume is not known.

  `--prune` removes this package's volumes whose directory is gone: that of a copy of the package that you have deleted.
  With `--all`, it removes those of other packages, too. A directory counts as gone only on the machine and for the user
  that the volume was made for, and only if the directory that held it is still there. Otherwise its disk may just not be
  mounted, or the volume may belong to another machine or container: it is kept, and the list says why nothing is known.

  The volume of another version of the package is kept, because a branch may still need it. Name it to remove it:
  `--prune NAME...` removes these volumes, whatever they were made for. One of another package needs `--all` besides.

  What will be removed is shown first, and you are asked. Without a terminal to ask at, nothing is removed unless `--yes` is
  given. A volume that is in use is kept, and so is every one that this runner did not make.

  Nerves builds a system that is stale before Mix runs this task; `mix help nerves_docker_port.doctor` has the variables
  with which it does not.

  ## Options

    * `--all` - the build volumes of all packages, not only this project's; with those that another runner seems to have
      made
    * `--prune` - remove those whose package is gone, or those that are named
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
