defmodule NervesDockerPort.HelperCase do
  @moduledoc """
  For tests with a scripted helper in place of the real one: `test/support/fake_helper.py`.
  """
  use ExUnit.CaseTemplate

  alias NervesDockerPort.Command

  using do
    quote do
      import NervesDockerPort.HelperCase
    end
  end

  # Each test has a directory; Mix's shell is the test's own.
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
    {:hello, Map.merge(%{protocol: 1, version: "0.1.0", python: "3.12.1", os_pid: 1}, changes)}
  end

  @doc "The step that sends a term."
  def say(term), do: {:frame, Base.encode64(:erlang.term_to_binary(term))}

  @doc "The step that sends bytes as a frame."
  def say_bytes(bytes), do: {:frame, Base.encode64(bytes)}

  # What every helper does first when it is well. One that goes without reading the request ends the port while it is
  # written to, and what it said last may be lost with it.
  defp expand(:greet), do: [say(hello()), {:read, nil}]
  defp expand(step), do: [step]

  @doc "A command that plays the steps. Its standard output and error go to files in the directory."
  def fake_helper(directory, steps) do
    %Command{
      executable: "/bin/sh",
      arguments:
        ["-c", ~s(out="$1"; shift; exec "$@" >"$out/stdout" 2>"$out/stderr"), "sh", directory] ++
          fake_words(directory, steps) ++ ["port"],
      origin: :environment
    }
  end

  @doc "The words of a command that plays the steps, without the operation at the end."
  def fake_words(directory, steps) do
    script = Path.join(directory, "script.json")
    File.write!(script, steps |> Enum.flat_map(&expand/1) |> Enum.map(&Tuple.to_list/1) |> json())
    ["python3", "-I", Path.join(__DIR__, "fake_helper.py"), script]
  end

  @doc "The term in a file that the helper has written."
  def saved_term(path), do: path |> await_file() |> :erlang.binary_to_term()

  @doc "What is in a file, once it is there."
  def await_file(path) do
    await("#{path} to be written", fn -> File.exists?(path) end)
    File.read!(path)
  end

  def os_process_alive?(pid),
    do: match?({_, 0}, System.cmd("kill", ["-0", pid], stderr_to_stdout: true))

  def await(what, condition, left \\ 200) do
    cond do
      condition.() -> :ok
      left == 0 -> ExUnit.Assertions.flunk("waited 10 s in vain for " <> what)
      true -> Process.sleep(50) && await(what, condition, left - 1)
    end
  end

  @doc "What was printed with `Mix.shell().info`, in order, as plain text."
  def printed(lines \\ []) do
    receive do
      {:mix_shell, :info, [text]} -> printed([text | lines])
    after
      0 -> Enum.reverse(lines)
    end
  end

  # Elixir 1.14 and OTP 25 have no JSON; strings here are ASCII without anything to escape but these.
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
