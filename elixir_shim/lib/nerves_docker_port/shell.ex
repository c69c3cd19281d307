defmodule NervesDockerPort.Shell do
  @moduledoc """
  Gives the person's terminal to the helper for a build shell.

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
        hand_over(command, spec, request)

      other ->
        Mix.raise("The helper prepared the shell well, but named no file: #{inspect(other)}")
    end
  end

  defp hand_over(command, spec, request) do
    case interactive_cmd(request.terminal) do
      {:ok, interactive_cmd} ->
        [program | arguments] = Command.words(command, ["shell", spec] ++ surroundings())

        try do
          {_output, status} = apply(interactive_cmd, :cmd, [program, arguments])
          outcome(status, spec)
        after
          remove(spec)
        end

      {:error, reason} ->
        Mix.raise("""
        The build shell is prepared, but #{reason}. To open it, type in a terminal:

            #{command |> Command.words(["shell", spec]) |> Command.to_shell()}
        """)
    end
  end

  defp interactive_cmd(terminal) do
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

  defp outcome(0, _spec), do: :ok

  defp outcome(status, spec) do
    with {:ok, bytes} <- File.read(spec <> ".outcome"),
         {:ok, {:error, %{message: message} = error}} when is_binary(message) <-
           Protocol.decode(bytes) do
      Mix.raise(Helper.words(error))
    else
      _none ->
        Mix.raise(
          "The helper of the build shell ended before it was done (exit status #{status}). " <>
            "Its container is removed, and the build directory is kept."
        )
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
