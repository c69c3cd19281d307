defmodule Mix.Tasks.NervesDockerPort.Doctor do
  @shortdoc "Finds out why a Nerves system would not build on the engine"

  @moduledoc """
  Finds out why a Nerves system would not build, and says what to do about it.

      mix nerves_docker_port.doctor

  The task prints a line for each thing that a build needs: Python, the engine (where it was found, its version, whether it
  is rootless), the engine's memory, CPUs and disk, the image, whether containers can read and write the project's files and
  who owns a file that a container has written, and what earlier builds have left. Each line begins with one of

    * `ok`
    * `warning` - a build works, but not as well as it could
    * `problem` - a build would fail

  and a `warning` or a `problem` is followed by a remedy. The exit status is 1 if there is a problem, so the task can be the
  first step of a CI job.

  If the project is not a system and its target has none, the task examines only the engine and the host.

  The task changes nothing. It removes the files and containers that it makes for a test.

  ## Options

    * `--json` - print JSON instead: an object with `ok` (a boolean) and `findings`, a list of objects with `topic`,
      `state`, `text` and `remedy` (text, or `null`)

  ## If a build prevents the examination

  Before Mix runs a task of a dependency, it loads the dependencies, and then Nerves builds a system that is stale. If this
  build fails, tell Nerves to skip it:

      NERVES_PRECOMPILE=1 NERVES_ENV_DISABLED=1 mix nerves_docker_port.doctor

  If Mix itself does not work, run the helper directly. It then examines the engine and the host:

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
