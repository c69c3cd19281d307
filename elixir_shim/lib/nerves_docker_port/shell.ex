defmodule NervesDockerPort.Shell do
  @moduledoc """
  Gives the person's terminal to the helper, for a build shell or for one command.

  The port prepares: engine, image, questions, volume. Its helper has no terminal, so a second one, in the foreground, opens
  the shell: `shell SPEC`, with the file that the first one left. Erlang gives the terminal away only through what
  `InteractiveCmd` does, which Nerves brings from 1.13.0 on and which works from OTP 26 on. Without it, and where there is
  no terminal, the error says what to type.
  """

  alias NervesDockerPort.{Command, Console, Helper, Protocol}

  # Not ours (see `NervesDockerPort.Request` on calls to what may not be there).
  @interactive_cmd "InteractiveCmd"

  @doc """
  Prepares the shell that `request` describes, and opens it on this terminal. Returns when the person has left it, with
  whatever status.

  Raises `Mix.Error` where it cannot be prepared or opened, or was ended from outside.
  """
  @spec open(map(), keyword()) :: :ok
  def open(request, options \\ []) do
    case Helper.request(:shell, request, options) do
      %{spec: spec} when is_binary(spec) ->
        # Asked for again: only now is it known which Python runs the helper.
        command = Keyword.get_lazy(options, :command, &Command.resolve/0)
        open_prepared(command, spec, request)

      other ->
        Mix.raise("The helper prepared the shell well, but named no file: #{inspect(other)}")
    end
  end

  defp open_prepared(command, spec, request) do
    case interactive_cmd(request.terminal) do
      {:ok, interactive_cmd} ->
        case hand_over(interactive_cmd, command, "shell", spec) do
          {:ok, _status} -> :ok
          {:error, message, _status} -> Mix.raise(message)
        end

      {:error, reason} ->
        Mix.raise("""
        The build shell is prepared, but #{reason}. To open it, type in a terminal:

            #{command |> Command.words(["shell", spec]) |> Command.to_shell()}
        """)
    end
  end

  @doc """
  Has the helper do `operation` on this terminal, as the file `spec` says, and removes the file.

  Returns the exit status that the helper names, or an error in words and the exit status of the helper's process.
  `interactive_cmd` is the module from `interactive_cmd/1`.
  """
  @spec hand_over(module(), Command.t(), String.t(), Path.t()) ::
          {:ok, non_neg_integer()} | {:error, String.t(), non_neg_integer()}
  def hand_over(interactive_cmd, command, operation, spec) do
    [program | arguments] = Command.words(command, [operation, spec] ++ surroundings())
    {_output, status} = apply(interactive_cmd, :cmd, [program, arguments])
    outcome(status, operation, spec)
  after
    remove(spec)
  end

  @doc """
  Returns the module that can give the terminal of Mix away, or why there is none, as the end of a sentence.
  """
  @spec interactive_cmd(Console.terminal()) :: {:ok, module()} | {:error, String.t()}
  def interactive_cmd(terminal) do
    module = Module.concat([@interactive_cmd])

    cond do
      not terminal.interactive ->
        {:error, "Mix has no terminal to open it on"}

      not Code.ensure_loaded?(module) ->
        {:error, "Mix cannot give its terminal away: that takes Nerves 1.13 or later"}

      # What InteractiveCmd asks of it, earlier ones ignore, and it would wait for ever.
      Process.whereis(:user_drv) == nil or otp_release() < 26 ->
        {:error, "Mix cannot give its terminal away: that takes Erlang/OTP 26 or later"}

      true ->
        check(module)
    end
  end

  # From InteractiveCmd 0.1.3 on it can say whether it will work.
  defp check(module) do
    if function_exported?(module, :check_requirements, 0) do
      case apply(module, :check_requirements, []) do
        :ok ->
          {:ok, module}

        {:error, reason} ->
          {:error, "Mix cannot give its terminal away: #{Console.printable(reason)}"}
      end
    else
      {:ok, module}
    end
  end

  defp otp_release, do: :otp_release |> :erlang.system_info() |> List.to_integer()

  # InteractiveCmd puts a terminal of its own between the helper and the person's, and that one does not tell of the size
  # and the end of the outer one. The helper looks itself.
  defp surroundings do
    terminal =
      case Console.device() do
        nil -> []
        device -> ["--terminal", device]
      end

    ["--mix", System.pid()] ++ terminal
  end

  # The helper leaves its outcome in a file: an exit status may be that of a command or of the helper itself.
  defp outcome(status, operation, spec) do
    with {:ok, bytes} <- File.read(spec <> ".outcome"), {:ok, outcome} <- Protocol.decode(bytes) do
      case outcome do
        {:ok, %{status: status}} when is_integer(status) -> {:ok, status}
        {:error, %{message: _} = error} -> {:error, Helper.words(error), status}
      end
    else
      _none ->
        {:error,
         "The helper of the #{if operation == "run", do: "command", else: "build shell"} ended before it was done " <>
           "(exit status #{status}). Its container is removed, and the build directory is kept.", status}
    end
  end

  # Ours, so nothing else is there; a directory that is not empty stays.
  defp remove(spec) do
    _ = File.rm(spec <> ".outcome")
    _ = File.rm(spec)
    _ = File.rmdir(Path.dirname(spec))
    :ok
  end
end
