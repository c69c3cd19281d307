defmodule NervesDockerPort.Shell do
  @moduledoc """
  Gives the user's terminal to the helper, for a build shell or for one command.

  First, a helper behind the port prepares the engine, the image and the volume, asks its questions, and writes a file.
  This helper has no terminal. So a second helper in the foreground opens the shell (`shell SPEC`, where SPEC is that
  file). Erlang gives its terminal away only with `InteractiveCmd`, which is a part of Nerves from 1.13.0 on and needs
  OTP 26. If it is missing, or Mix has no terminal, the error contains the command to type.
  """

  alias NervesDockerPort.{Command, Console, Helper, Protocol}

  # A module of a dependency of Nerves, which may be missing. `NervesDockerPort.Request` says why it is called by
  # `apply/3`.
  @interactive_cmd "InteractiveCmd"

  @doc """
  Prepares the shell that `request` describes, and opens it on this terminal. Returns when the user has left the shell,
  and ignores the shell's exit status.

  Raises `Mix.Error` if the shell cannot be prepared or opened, or if something else than the user has ended it.
  """
  @spec open(map(), keyword()) :: :ok
  def open(request, options \\ []) do
    case Helper.request(:shell, request, options) do
      %{spec: spec} when is_binary(spec) ->
        # The command is resolved again, because the request has found out which Python works.
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
  Runs `operation` in a helper on this terminal, with the file `spec`, and removes the file.

  Returns the exit status that the helper reports, or the text of an error and the exit status of the helper's process.
  `interactive_cmd` is the module that `interactive_cmd/1` has returned.
  """
  @spec hand_over(module(), Command.t(), String.t(), Path.t()) ::
          {:ok, non_neg_integer()} | {:error, String.t(), non_neg_integer()}
  def hand_over(interactive_cmd, command, operation, spec) do
    [program | arguments] = Command.words(command, [operation, spec] ++ outer_terminal())
    {_output, status} = apply(interactive_cmd, :cmd, [program, arguments])
    outcome(status, operation, spec)
  after
    remove(spec)
  end

  @doc """
  Returns the module that can give the terminal of Mix away, or the reason why this is not possible, as a part of a
  sentence.
  """
  @spec interactive_cmd(Console.terminal()) :: {:ok, module()} | {:error, String.t()}
  def interactive_cmd(terminal) do
    module = Module.concat([@interactive_cmd])

    cond do
      not terminal.interactive ->
        {:error, "Mix has no terminal to open it on"}

      not Code.ensure_loaded?(module) ->
        {:error, "Mix cannot give its terminal away: that takes Nerves 1.13 or later"}

      # An earlier Erlang ignores the request of InteractiveCmd, which would then wait for ever.
      Process.whereis(:user_drv) == nil or otp_release() < 26 ->
        {:error, "Mix cannot give its terminal away: that takes Erlang/OTP 26 or later"}

      true ->
        check(module)
    end
  end

  # InteractiveCmd 0.1.3 and later can say whether it will work.
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

  # InteractiveCmd runs the helper on a terminal of its own, which does not follow the size and the end of the user's
  # terminal. So the helper gets the user's terminal and the pid of Mix, and checks them itself.
  defp outer_terminal do
    terminal =
      case Console.device() do
        nil -> []
        device -> ["--terminal", device]
      end

    ["--mix", System.pid()] ++ terminal
  end

  # The helper writes its outcome to a file, because the exit status may be that of the user's command or its own.
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

  # The helper has made the directory for this file only. If it is not empty, it is kept.
  defp remove(spec) do
    _ = File.rm(spec <> ".outcome")
    _ = File.rm(spec)
    _ = File.rmdir(Path.dirname(spec))
    :ok
  end
end
