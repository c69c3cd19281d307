defmodule Mix.Tasks.NervesDockerPort.Volumes do
  @shortdoc "Lists the build volumes of a Nerves system, and removes old ones"

  @moduledoc """
  Lists the build volumes at the engine, or removes those that nobody comes back to.

      mix nerves_docker_port.volumes
      mix nerves_docker_port.volumes --prune

  Every version of a system has a build volume of its own, and each takes gigabytes. A line for each: its name, package and
  version, its size, and when it was last used (or made, where no build of this runner was recorded since).

  `--prune` removes a volume if the directory of its package is gone, or if it was made for another version of this project's
  package than the present one. It shows them and asks first. Without a terminal to ask at, nothing is removed unless
  `--yes` is given. A volume that is in use is kept, and so is every one that this runner did not make.

  Nerves builds a system that is stale before Mix runs this task; `mix help nerves_docker_port.doctor` has the variables
  with which it does not.

  ## Options

    * `--all` - list everybody's build volumes, not only this project's
    * `--prune` - remove those that nobody comes back to
    * `--yes` - do not ask
  """

  use Mix.Task

  alias NervesDockerPort.{Console, Helper, Project}

  @switches [all: :boolean, prune: :boolean, yes: :boolean]

  @impl Mix.Task
  def run(arguments) do
    {options, rest} = OptionParser.parse!(arguments, strict: @switches)
    if rest != [], do: Mix.raise("mix nerves_docker_port.volumes takes no #{hd(rest)}")

    request = Project.request(Map.new([:all, :prune, :yes], &{&1, options[&1] == true}))

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
