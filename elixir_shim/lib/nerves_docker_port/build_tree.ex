defmodule NervesDockerPort.BuildTree do
  @moduledoc """
  Runs a command in the build directory of the project's system, and copies files out of it, for the tasks
  `nerves_docker_port.run`, `nerves_docker_port.make` and `nerves_docker_port.copy`.
  """

  alias NervesDockerPort.{Command, Console, Helper, Project, Shell}

  # Milliseconds before a dot is printed: so many that there is never a dot in the output of a command.
  @no_dots :timer.hours(24)

  @doc """
  Runs the command `words` in the build directory, and then copies each path in `get` to the working directory. If the
  exit status of the command is not 0, nothing is copied, and Mix ends with that status.

  Raises `Mix.Error` if the command cannot be run, something else has ended it, or a path cannot be copied.
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
  Copies `source`, a path in the build directory, to `target`, a path on this machine, and prints where the copy is.

  Raises `Mix.Error` if it cannot be copied.
  """
  @spec copy(Path.t(), Path.t()) :: :ok
  def copy(source, target) do
    # A slash at the end says that the target is a directory. `Path.expand/1` would remove it.
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

  # Raises for a path that cannot be copied. This is checked before the command runs, because that may take an hour.
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
        # The command is resolved again, because the request has found out which Python works.
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
    # Without this trap, Erlang would end Mix with status 0 after SIGTERM. When Mix ends, its port is closed, and the
    # helper ends the command.
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
