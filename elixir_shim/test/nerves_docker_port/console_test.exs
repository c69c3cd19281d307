defmodule NervesDockerPort.ConsoleTest do
  use ExUnit.Case, async: false

  import ExUnit.CaptureIO

  alias NervesDockerPort.Console

  doctest Console

  setup do
    shell = Mix.shell()
    colours = Application.get_env(:elixir, :ansi_enabled, false)

    on_exit(fn ->
      Mix.shell(shell)
      Application.put_env(:elixir, :ansi_enabled, colours)
    end)
  end

  # What a person with a terminal sees.
  defp seen(events, options) do
    Mix.shell(Mix.Shell.IO)
    Application.put_env(:elixir, :ansi_enabled, Keyword.fetch!(options, :colours))

    capture_io(fn ->
      console =
        Enum.reduce(events, Console.new(), fn
          :idle, console ->
            Console.idle(console)

          event, console ->
            {:ok, console} = Console.show(console, event)
            console
        end)

      Console.end_line(console)
    end)
  end

  test "a headline is in inverse video, with an empty line after it" do
    assert seen([{:headline, "Create image"}], colours: true) ==
             "\e[7m|Docker| Create image\e[0m\e[0m\n\n"

    assert seen([{:headline, "Create image"}], colours: false) == "|Docker| Create image\n\n"
  end

  test "a warning is yellow" do
    assert seen([{:warning, "careful"}], colours: true) == "\e[33mcareful\e[0m\e[0m\n"
  end

  test "dots are on one line, which ends before anything else" do
    events = [{:log, ">>> a"}, :idle, :idle, {:headline, "B"}, :idle]
    assert seen(events, colours: false) == ">>> a\n..\n|Docker| B\n\n.\n"
  end

  test "progress is for terminals" do
    progress = {:progress, %{what: "Pulling", current: 1, total: 2, unit: :layers}}
    # What captures is no terminal: it has no columns.
    assert seen([progress], colours: true) == ""
    assert seen([progress], colours: false) == ""
  end

  test "a quiet shell prints nothing" do
    Mix.shell(Mix.Shell.Quiet)

    assert capture_io(fn ->
             for event <- [{:headline, "a"}, {:log, "b"}, {:warning, "c"}] do
               Console.new() |> Console.show(event)
             end

             Console.new() |> Console.idle() |> Console.end_line()
           end) == ""
  end

  test "patience runs out, and is renewed by a dot" do
    Mix.shell(Mix.Shell.Process)
    console = Console.new(dot_every: 30)
    assert Console.patience(console) in 1..30
    Process.sleep(40)
    assert Console.patience(console) == 0
    assert Console.patience(Console.idle(console)) in 1..30
  end

  test "text that is not UTF-8 is made so" do
    assert Console.printable("é") == "é"
    assert Console.printable(<<"a", 0xFF, 0xFE, "b">>) == "a\uFFFD\uFFFDb"
    assert Console.printable(<<"a", 0xC3>>) == "a\uFFFD"

    # In time proportional to its length: a log can be anything.
    long = :binary.copy(<<0xFF>>, 2_000_000)
    assert byte_size(Console.printable(long)) == 6_000_000
  end

  test "what is no event is told" do
    for event <- [
          nil,
          :log,
          {:log, nil},
          {:progress, %{}},
          {:headline, ~c"chars"},
          {:stage, :make, {:finished, -1}}
        ] do
      assert Console.show(Console.new(), event) == :unknown
    end
  end

  test "in CI there is nobody to ask, whatever the terminal" do
    saved = System.get_env("CI")
    System.put_env("CI", "true")
    on_exit(fn -> if saved, do: System.put_env("CI", saved), else: System.delete_env("CI") end)

    assert %{interactive: false, columns: columns, ansi: ansi} = Console.terminal()
    assert columns > 0 and is_boolean(ansi)
  end
end
