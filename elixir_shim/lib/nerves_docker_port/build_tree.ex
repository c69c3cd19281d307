defmodule NervesDockerPort.BuildTree do
  @moduledoc """
  Runs a command in the build directory of the project's system, and copies files out of it: what the tasks
  `nerves_docker_port.run`, `nerves_docker_port.make` and `nerves_docker_port.copy` have in common.
  """

  alias NervesDockerPort.{Command, Console, Helper, Project, Shell}

  # The output of a command is its own: no dots go between it.
  @no_dots :timer.hours(24)

  @doc """
  Runs `words` in the build directory, and then copies each path in `get` to the working directory. Ends Mix with the exit
  status of the command where that is not 0; then nothing is copied.

  Raises `Mix.Error` where the command cannot be run or was ended from outside, and where a path cannot be copied.
  """
  @spec run([String.t()], [Path.t()]) :: :ok
  def run(words, get) do
    targets = Enum.map(get, &{&1, target(&1)})

    case status(words) do
      0 -> Enum.each(targets, fn {path, target} -> copy(path, target) end)
      status -> exit({:shutdown, status})
    end
  end

  @doc """
  Copies `source`, a path in the build directory, to `target`, a path on this machine, and says so.

  Raises `Mix.Error` where it cannot be copied.
  """
  @spec copy(Path.t(), Path.t()) :: :ok
  def copy(source, target) do
    # `Path.expand/1` takes a slash at the end away, which says that it is a directory.
    slash = if String.ends_with?(target, "/"), do: "/", else: ""
    request = request(%{source: source, target: Path.expand(target) <> slash})

    case Helper.request(:copy, request) do
      %{path: path} when is_binary(path) ->
        Mix.shell().info(Console.printable("Copied #{source} to #{path}"))
        :ok

      other ->
        Mix.raise("The helper ended copy well, but named no file: #{inspect(other)}")
    end
  end

  # What would be refused after the command is refused before it: the command may take an hour.
  defp target(path) do
    name = Path.basename(path)

    if name in ["", ".", ".."] do
      Mix.raise("--get takes the path of a file or a directory in the build directory, not #{inspect(path)}")
    end

    target = Path.expand(name)

    if match?({:ok, [_ | _]}, File.ls(target)) do
      Mix.raise("--get #{path}: #{target} is a directory with files in it already. Move or remove it first.")
    end

    target
  end

  defp status(words) do
    request = request(%{command: words})

    case Shell.interactive_cmd(request.terminal) do
      {:ok, interactive_cmd} ->
        at_terminal(request, interactive_cmd)

      {:error, reason} ->
        if request.terminal.interactive do
          Mix.shell().info([:yellow, "The command gets no terminal: #{reason}.", :reset])
        end

        plain(request)
    end
  end

  defp at_terminal(request, interactive_cmd) do
    case Helper.request(:run, Map.put(request, :at_terminal, true)) do
      %{spec: spec} when is_binary(spec) ->
        # Asked for again: only now is it known which Python runs the helper.
        case Shell.hand_over(interactive_cmd, Command.resolve(), "run", spec) do
          {:ok, status} ->
            status

          {:error, message, status} when status > 128 ->
            Mix.shell().error(message)
            status

          {:error, message, _status} ->
            Mix.raise(message)
        end

      other ->
        Mix.raise("The helper prepared the command well, but named no file: #{inspect(other)}")
    end
  end

  defp plain(request) do
    # Erlang would end Mix with status 0. The end of the port makes the helper end the command.
    {:ok, trap} = System.trap_signal(:sigterm, fn -> System.stop(143) end)

    case Helper.request(:run, request, dot_every: @no_dots) do
      %{status: status} when is_integer(status) ->
        :ok = System.untrap_signal(:sigterm, trap)
        status

      other ->
        Mix.raise("The helper ended run well, but named no exit status: #{inspect(other)}")
    end
  end

  defp request(extra) do
    case Project.request(extra) do
      %{package: nil} ->
        Mix.raise(
          "There is no Nerves system here. Run this task in the directory of a system, or of a project with MIX_TARGET set."
        )

      request ->
        request
    end
  end
end
