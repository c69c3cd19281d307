defmodule NervesDockerPort.HelperCase do
  @moduledoc """
  The case template for tests with a scripted helper, `test/support/fake_helper.py`, in place of the real one.
  """
  use ExUnit.CaseTemplate

  alias NervesDockerPort.Command

  using do
    quote do
      import NervesDockerPort.HelperCase
    end
  end

  # Each test has a directory of its own, and gets the output of `Mix.shell/0` as messages.
  setup do
    directory = Path.join(System.tmp_dir!(), "shim-#{System.unique_integer([:positive])}-#{System.pid()}")

    File.mkdir_p!(directory)
    shell = Mix.shell()
    Mix.shell(Mix.Shell.Process)

    on_exit(fn ->
      Mix.shell(shell)
      File.rm_rf!(directory)
    end)

    {:ok, directory: directory}
  end

  def hello(changes \\ %{}) do
    {:hello,
     Map.merge(%{protocol: 1, version: NervesDockerPort.version(), python: "3.12.1", os_pid: 1}, changes)}
  end

  @doc "Returns the script step that sends a term."
  def say(term), do: {:frame, Base.encode64(:erlang.term_to_binary(term))}

  @doc "Returns the script step that sends bytes as a frame."
  def say_bytes(bytes), do: {:frame, Base.encode64(bytes)}

  # The first two steps of a healthy helper. A helper that exits before it has read the request can end the port while the
  # shim writes to it, and then its last message may be lost.
  defp expand(:greet), do: [say(hello()), {:read, nil}]
  defp expand(step), do: [step]

  @doc "Returns a command that plays the steps. Its standard output and error go to files in the directory."
  def fake_helper(directory, steps) do
    %Command{
      executable: "/bin/sh",
      arguments:
        ["-c", ~s(out="$1"; shift; exec "$@" >"$out/stdout" 2>"$out/stderr"), "sh", directory] ++
          fake_words(directory, steps) ++ ["port"],
      origin: :environment
    }
  end

  @doc "Returns the words of a command that plays the steps, without the operation at the end."
  def fake_words(directory, steps) do
    script = Path.join(directory, "script.json")
    File.write!(script, steps |> Enum.flat_map(&expand/1) |> Enum.map(&Tuple.to_list/1) |> json())
    ["python3", "-I", Path.join(__DIR__, "fake_helper.py"), script]
  end

  @doc "Waits for a file that the helper writes, and returns the term in it."
  def saved_term(path), do: path |> await_file() |> :erlang.binary_to_term()

  @doc "Waits for a file, and returns its content."
  def await_file(path) do
    await("#{path} to be written", fn -> File.exists?(path) end)
    File.read!(path)
  end

  def os_process_alive?(pid),
    do: match?({_, 0}, System.cmd("kill", ["-0", pid], stderr_to_stdout: true))

  def await(what, condition, left \\ 1_200) do
    cond do
      condition.() -> :ok
      left == 0 -> ExUnit.Assertions.flunk("waited a minute in vain for " <> what)
      true -> Process.sleep(50) && await(what, condition, left - 1)
    end
  end

  @doc "Returns the texts that were printed with `Mix.shell().info`, in order, as plain text."
  def printed(lines \\ []) do
    receive do
      {:mix_shell, :info, [text]} -> printed([text | lines])
    after
      0 -> Enum.reverse(lines)
    end
  end

  # Elixir 1.14 and OTP 25 have no JSON encoder. The strings here are ASCII, and only these three characters need an escape.
  defp json(list) when is_list(list), do: "[" <> Enum.map_join(list, ",", &json/1) <> "]"
  defp json(nil), do: "null"
  defp json(atom) when is_atom(atom), do: json(Atom.to_string(atom))
  defp json(number) when is_number(number), do: to_string(number)

  defp json(text) when is_binary(text) do
    escaped =
      text
      |> String.replace("\\", "\\\\")
      |> String.replace("\"", "\\\"")
      |> String.replace("\n", "\\n")

    "\"" <> escaped <> "\""
  end
end
