defmodule NervesDockerPort.CI do
  @moduledoc """
  Makes a CI service show a group of lines for each stage of a build, one annotation for a failure, and a summary.

  This module knows the formats that the services read. The facts come from the helper (`docs/protocol.md`), and
  `NervesDockerPort.Console` prints the groups.

    * GitHub Actions (`GITHUB_ACTIONS`): groups that can be folded, `::error` for a failure, and a summary in the file that
      `GITHUB_STEP_SUMMARY` names
    * GitLab (`GITLAB_CI`): sections that can be folded
    * elsewhere (`CI`): a line of plain text before and after each stage

  A variable that is unset, empty or `false` does not count.
  """

  alias NervesDockerPort.Console

  @enforce_keys [:service]
  defstruct [:service, open: nil]

  @typedoc "The service that reads the output."
  @type service :: :github | :gitlab | :other

  @typedoc "The service, and the stage whose group is open, with the name that the group has for the service."
  @opaque t :: %__MODULE__{service: service(), open: nil | {atom(), String.t()}}

  # The most characters of an error in an annotation. GitHub cuts a longer annotation.
  @longest_annotation 4_000

  @doc """
  Returns the service that this program runs in, or `nil` outside of a CI.

  ## Examples

      iex> NervesDockerPort.CI.service(%{"CI" => "true", "GITHUB_ACTIONS" => "true"})
      :github

      iex> NervesDockerPort.CI.service(%{"CI" => "false"})
      nil
  """
  @spec service(%{optional(String.t()) => String.t()}) :: service() | nil
  def service(environment \\ System.get_env()) do
    Enum.find_value([{"GITHUB_ACTIONS", :github}, {"GITLAB_CI", :gitlab}, {"CI", :other}], fn {name, service} ->
      if Map.get(environment, name, "") not in ["", "false"], do: service
    end)
  end

  @doc "Returns the state for a flow in which no group is open, or `nil` outside of a CI."
  @spec new() :: t() | nil
  def new do
    if service = service(), do: %__MODULE__{service: service}
  end

  @doc """
  Opens the group of a stage. Returns the lines to print.

  A stage can begin within another one, such as a pull within the preflight. The services treat a group within a group
  in different ways, so the group of the outer stage is closed first.
  """
  @spec open(t(), atom()) :: {[String.t()], t()}
  def open(ci, stage) do
    {ended, ci} = close(ci)
    # The name of a section must be unique in a job, and a job can build more than one package.
    name = "#{stage}_#{System.os_time(:microsecond)}"

    line =
      case ci.service do
        :github -> "::group::#{stage}"
        :gitlab -> "\e[0Ksection_start:#{seconds()}:#{name}[collapsed=true]\r\e[0K#{stage}"
        :other -> "== #{stage} =="
      end

    {ended ++ [line], %{ci | open: {stage, name}}}
  end

  @doc "Closes the group of a stage that has succeeded after `milliseconds`. Returns the lines to print."
  @spec close(t(), atom(), non_neg_integer()) :: {[String.t()], t()}
  def close(ci, stage, milliseconds) do
    ended = if match?({^stage, _name}, ci.open), do: close(ci), else: {[], ci}
    {lines, ci} = ended
    {lines ++ ["== #{stage}: #{duration(milliseconds)} =="], ci}
  end

  @doc "Closes the open group, if there is one. Returns the lines to print."
  @spec close(t()) :: {[String.t()], t()}
  def close(%__MODULE__{open: nil} = ci), do: {[], ci}
  def close(%__MODULE__{service: :other} = ci), do: {[], %{ci | open: nil}}
  def close(%__MODULE__{service: :github} = ci), do: {["::endgroup::"], %{ci | open: nil}}

  def close(%__MODULE__{service: :gitlab, open: {_stage, name}} = ci) do
    {["\e[0Ksection_end:#{seconds()}:#{name}\r\e[0K"], %{ci | open: nil}}
  end

  @doc ~S"""
  Returns the text so that no line of it is a command to a CI service.

  GitHub's runner obeys a line that begins with `::`, also after blanks, and `##[` anywhere in a line
  (`src/Runner.Common/ActionCommand.cs` in github.com/actions/runner). Azure Pipelines and TeamCity obey `##vso[` and
  `##teamcity[`. A build's log can contain all of them.

  ## Examples

      iex> NervesDockerPort.CI.harmless("a::b\n  ::add-path::/tmp\n##[error]no")
      "a::b\n  : :add-path::/tmp\n# #[error]no"
  """
  @spec harmless(String.t()) :: String.t()
  def harmless(text) do
    text
    |> String.replace(~r/^(\s*):(?=:)/mu, "\\1: ")
    |> String.replace(~r/#(?=#\w*\[)/u, "# ")
  end

  @doc """
  Tells GitHub by an annotation and in the summary that a package was not built. Does nothing with another service.

  `app` is the name of the Nerves package, or `nil` if it is not known yet. `message` is the whole error, and `cause` is
  what the helper has found out about it, or `nil`.
  """
  @spec failed(atom() | nil, String.t(), map() | nil) :: :ok
  def failed(app, message, cause) do
    if service() == :github do
      cause = if match?(%{"title" => _, "lines" => [_ | _]}, cause), do: cause
      {title, text} = in_short(cause, message)
      title = Console.printable(if app, do: "#{app}: #{title}", else: title)
      text = String.slice(text, 0, @longest_annotation)
      Mix.shell().info("::error title=#{property(title)}::#{data(text)}")
      summarize(failure(title, cause, message))
    end

    :ok
  end

  @doc """
  Tells GitHub in the summary that a package was built. Does nothing with another service.

  `value` is the outcome of a build or an archive, as in `docs/protocol.md`.
  """
  @spec passed(atom() | nil, map()) :: :ok
  def passed(app, %{path: path, size: size, sha256: sha256} = value) do
    # An archive directly after a build returns the build's artifact without packing. The build has written the summary.
    packed? = value |> Map.get(:stages, []) |> List.keymember?(:make_system, 0)
    if service() == :github and packed?, do: summarize(success(app, path, size, sha256, value))
    :ok
  end

  def passed(_app, _value), do: :ok

  defp in_short(nil, message), do: {"The build failed.", String.trim(message)}

  defp in_short(%{"title" => title, "lines" => lines} = cause, _message) do
    {title, Enum.map_join(lines ++ remedy(cause), "\n", &Console.printable/1)}
  end

  defp remedy(%{"remedy" => remedy}) when is_binary(remedy), do: ["What to do: " <> remedy]
  defp remedy(_not_certain), do: []

  # The escapes that GitHub expects, as in `toCommandValue` and `toCommandProperties` of @actions/core.
  defp data(text) do
    text |> String.replace("%", "%25") |> String.replace("\r", "%0D") |> String.replace("\n", "%0A")
  end

  defp property(text) do
    text |> data() |> String.replace(":", "%3A") |> String.replace(",", "%2C")
  end

  # GitHub allows 1 MiB for the summary of a step. This one has a few kilobytes.
  defp summarize(markdown) do
    with path when path not in [nil, ""] <- System.get_env("GITHUB_STEP_SUMMARY"),
         {:error, reason} <- File.write(path, markdown, [:append]) do
      Mix.shell().info("The summary #{path} could not be written: #{:file.format_error(reason)}.")
    end
  end

  defp failure(title, cause, message) do
    """
    ### #{escaped(title)}

    #{if cause, do: preformatted(Enum.join(cause["lines"], "\n"))}
    #{if cause, do: Enum.map(remedy(cause), &(escaped(&1) <> "\n"))}
    <details><summary>The whole error</summary>

    #{preformatted(message)}
    </details>

    """
  end

  defp success(app, path, size, sha256, value) do
    rows =
      [
        {"Artifact", escaped(Path.basename(path))},
        {"Size", quantity(size)},
        {"SHA-256", escaped(sha256)}
      ] ++ cache(value["ccache"])

    stages =
      for {stage, milliseconds} <- Map.get(value, :stages, []),
          do: {escaped("#{stage}"), duration(milliseconds)}

    packages =
      for [name, seconds] <- value["slowest"] || [], do: {escaped(name), duration(round(seconds * 1000))}

    """
    ### #{escaped("#{app} was built")}

    #{table({"", ""}, rows)}
    #{table({"Step", "Time"}, stages)}
    #{table({"Slowest packages", "Time"}, packages)}
    """
  end

  defp cache(%{"hits" => hits, "misses" => misses}) when hits + misses > 0 do
    [{"Compiler cache", "#{round(100 * hits / (hits + misses))} % hits (#{hits} of #{hits + misses})"}]
  end

  defp cache(_not_known), do: []

  defp table(_head, []), do: ""

  defp table({left, right}, rows) do
    Enum.map_join([{left, right}, {"---", "---"} | rows], "\n", fn {left, right} ->
      "| #{left} | #{right} |"
    end) <> "\n"
  end

  # In CommonMark, an ASCII punctuation character after a backslash has no special meaning.
  defp escaped(text) do
    text
    |> Console.printable()
    |> String.replace(~r/\s+/u, " ")
    |> String.replace(~r/[!-\/:-@\[-`{-~]/, "\\\\\\0")
  end

  # In CommonMark, everything from `<pre>` to `</pre>` is HTML, even if lines in it look like Markdown.
  defp preformatted(text) do
    html = text |> String.replace("&", "&amp;") |> String.replace("<", "&lt;") |> String.replace(">", "&gt;")
    "<pre>\n" <> Console.printable(html) <> "\n</pre>\n"
  end

  defp quantity(bytes) when bytes < 1_000_000, do: "#{bytes} bytes"
  defp quantity(bytes), do: "#{:erlang.float_to_binary(bytes / 1_000_000, decimals: 1)} MB"

  defp duration(milliseconds) when milliseconds < 60_000 do
    "#{:erlang.float_to_binary(milliseconds / 1_000, decimals: 1)} s"
  end

  defp duration(milliseconds) do
    minutes = div(milliseconds, 60_000)
    seconds = rem(div(milliseconds, 1_000), 60)
    if minutes < 60, do: "#{minutes} min #{seconds} s", else: "#{div(minutes, 60)} h #{rem(minutes, 60)} min"
  end

  defp seconds, do: System.os_time(:second)
end
