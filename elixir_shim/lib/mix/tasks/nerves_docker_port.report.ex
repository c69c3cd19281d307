defmodule Mix.Tasks.NervesDockerPort.Report do
  @shortdoc "Says how a build of a Nerves system went and where its time went"

  @moduledoc """
  Says how a build went, where its time went, and what changed since the build before.

      mix nerves_docker_port.report
      mix nerves_docker_port.report --html report.html

  The task prints how the latest build of the project's system ended (after a failure with its cause), the engine, the image
  and the artifact, the time of each stage, the slowest packages, the time of each step of Buildroot, and the packages that
  are new, gone, slower or faster than in the build before. It reads the journals that builds write
  (`.nerves/artifacts/<name>/journal` in the package), and asks no engine.

      mix nerves_docker_port.report path/to/record

  reads the journals in another directory, for example one that a CI has uploaded (`NERVES_DOCKER_RECORD_DIR`).

  Nerves builds a system that is stale before Mix runs this task, and so it would build a system again whose build has just
  failed. These variables keep it from doing that:

      NERVES_PRECOMPILE=1 NERVES_ENV_DISABLED=1 mix nerves_docker_port.report

  Without Mix: `python3 deps/nerves_docker_port/priv/python report`.

  ## Options

    * `--html FILE` - also write a page with a timeline of the packages and a table that can be sorted and searched; the page
      is one file, and it loads nothing
    * `--json` - print one JSON object instead
    * `--list` - list the builds instead, the latest first
    * `--build ID` - report on this build, by its id or the beginning of its id
  """

  use Mix.Task

  alias NervesDockerPort.{Console, Helper, Project}

  @switches [html: :string, json: :boolean, list: :boolean, build: :string]

  @impl Mix.Task
  def run(arguments) do
    {options, rest} = OptionParser.parse!(arguments, strict: @switches)

    if length(rest) > 1,
      do: Mix.raise("mix nerves_docker_port.report takes one directory: #{Enum.join(rest, " ")}")

    texts = %{where: List.first(rest) || "", html: options[:html] || "", build: options[:build] || ""}
    request = Map.merge(texts, %{json: options[:json] == true, list: options[:list] == true})

    case Helper.request(:report, Project.request(request)) do
      %{text: text} ->
        Mix.shell().info(Console.printable(text))
        :ok

      other ->
        Mix.raise("The helper ended report well, but said nothing: #{inspect(other)}")
    end
  end
end
