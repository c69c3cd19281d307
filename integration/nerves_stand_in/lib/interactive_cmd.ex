defmodule InteractiveCmd do
  @moduledoc """
  The functions of `interactive_cmd` 0.1.4 (a dependency of Nerves 1.13 and later) that a build runner needs, written for
  these tests. There is one way to run a program on the terminal of Erlang's terminal driver: ask it to open an editor, which
  is the command in `VISUAL`. As with the original, `script` gives the program a terminal of its own.
  """

  @spec cmd(String.t(), [String.t()], keyword()) :: {String.t(), non_neg_integer()}
  def cmd(program, arguments, options \\ []) do
    [program | arguments] |> Enum.map_join(" ", &quoted/1) |> shell(options)
  end

  @spec shell(String.t(), keyword()) :: {String.t(), non_neg_integer()}
  def shell(command, options \\ []) do
    with {:error, reason} <- driver(), do: raise(reason)

    settings =
      options
      |> Keyword.get(:env, [])
      |> Map.new()
      |> Map.merge(%{"STAND_IN_COMMAND" => command, "VISUAL" => launcher()})

    {"", settings |> with_env(&edit/0) |> status()}
  end

  @spec check_requirements() :: :ok | {:error, String.t()}
  def check_requirements do
    with :ok <- driver() do
      case Enum.reject(["script", "stty"], &System.find_executable/1) do
        [] -> :ok
        [program | _] -> {:error, "there is no #{program}"}
      end
    end
  end

  # The driver appends the name of the file to edit. The exit status is written to this file, whose text the driver sends.
  defp launcher do
    ~s(sh -c 'stty opost; script -q -e -c "$STAND_IN_COMMAND" /dev/null; echo $? > "$1"' sh)
  end

  defp edit do
    send(:user_drv, {self(), {:open_editor, ""}})

    receive do
      {_driver, {:editor_data, text}} -> text
    end
  end

  defp status(text) do
    case text |> to_string() |> String.trim() |> Integer.parse() do
      {status, ""} -> status
      _other -> 255
    end
  end

  defp driver do
    with driver when is_pid(driver) <- Process.whereis(:user_drv),
         {:parent, ^driver} <- Process.info(Process.group_leader(), :parent) do
      :ok
    else
      _other -> {:error, "this is not the console that Erlang started on"}
    end
  end

  defp with_env(settings, do_it) do
    before = Map.new(settings, fn {name, _value} -> {name, System.get_env(name)} end)
    System.put_env(settings)

    try do
      do_it.()
    after
      System.put_env(before)
    end
  end

  defp quoted(word), do: "'" <> String.replace(word, "'", "'\\''") <> "'"
end
