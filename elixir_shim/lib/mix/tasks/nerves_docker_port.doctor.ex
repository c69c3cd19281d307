defmodule Mix.Tasks.NervesDockerPort.Doctor do
  @shortdoc "Finds out why a Nerves system would not build on the engine"

  @moduledoc """
  Finds out why a Nerves system would not build, and says what to do about it.

      mix nerves_docker_port.doctor

  A line for each thing that a build needs: Python, the engine (where it was found, its version, whether it is rootless),
  its memory, CPUs and disk, the image, whether containers can read and write the project's files and to whom they belong
  then, and what earlier builds have left. Each line begins with one of

    * `ok`
    * `warning` - a build works, but not as well as it could
    * `problem` - a build would fail

  and is followed by a remedy where it is not `ok`. The exit status is 1 if there is a problem, so it can be the first step
  of a CI job.

  Outside a system, and without a target's system, only the engine and the host are examined.

  Nothing is changed: what is tried is tried with files and containers that are gone afterwards.

  ## Options

    * `--json` - print JSON instead: an object with `ok` (a boolean) and `findings`, a list of objects with `topic`,
      `state`, `text` and `remedy` (or `null`)

  ## Where a build is in the way

  Before Mix runs a task of a dependency it loads the dependencies, and Nerves builds a system that is stale then. Where it
  is this build that fails, have Nerves leave it out:

      NERVES_PRECOMPILE=1 NERVES_ENV_DISABLED=1 mix nerves_docker_port.doctor

  Where Mix itself does not work, the helper can be asked directly; it examines the engine and the host:

      python3 deps/nerves_docker_port/priv/python doctor
  """

  use Mix.Task

  alias NervesDockerPort.{Console, Helper, Project}

  @impl Mix.Task
  def run(arguments) do
    {options, rest} = OptionParser.parse!(arguments, strict: [json: :boolean])
    if rest != [], do: Mix.raise("mix nerves_docker_port.doctor takes no #{hd(rest)}")

    case Helper.request(:doctor, Project.request()) do
      %{ok: ok?, text: text, json: json} ->
        Mix.shell().info(Console.printable(if options[:json], do: json, else: text))
        if not ok?, do: exit({:shutdown, 1})
        :ok

      other ->
        Mix.raise("The helper ended doctor well, but made no report: #{inspect(other)}")
    end
  end
end
