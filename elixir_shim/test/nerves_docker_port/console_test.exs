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

  # Returns the output that a user with a terminal sees.
  defp seen(events, options) do
    Mix.shell(Mix.Shell.IO)
    Application.put_env(:elixir, :ansi_enabled, Keyword.fetch!(options, :colours))

    capture_io(fn ->
      console =
        Enum.reduce(events, Console.new(Keyword.take(options, [:columns, :line_every, :status_every])), fn
          :idle, console ->
            Console.idle(console)

          {:sleep, milliseconds}, console ->
            Process.sleep(milliseconds)
            console

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

  defp pulling(current, total, layers \\ "1 of 2") do
    what = "Pulling image, #{layers} layers"
    {:progress, %{what: what, current: current, total: total, unit: :bytes}}
  end

  test "on a terminal, progress is one line that is drawn again" do
    line = "Pulling image, 1 of 2 layers: "

    assert seen([pulling(0, nil), pulling(16_000_000, 64_000_000)], colours: true, columns: 80) ==
             "\r#{line}0.0 MB\e[K" <>
               "\r#{line}[=====                 ] 16.0 MB of 64.0 MB (25%)\e[K" <> "\r\e[K"

    assert seen([pulling(1, 1)], colours: true, columns: 200) =~ "[#{String.duplicate("=", 30)}]"
  end

  test "a line of progress fits a terminal of any width" do
    for columns <- 1..100, event <- [pulling(5_500_000_000, 64_000_000_000), pulling(1, nil)] do
      ["", drawn, ""] = String.split(seen([event], colours: true, columns: columns), ["\r", "\e[K\r\e[K"])
      assert String.length(drawn) < columns
    end

    assert seen([pulling(5_500_000_000, 64_000_000_000)], colours: true, columns: 80) =~
             "5.50 GB of 64.00 GB (8%)"
  end

  test "the next output replaces progress, which stays if there is none" do
    events = [:idle, pulling(1, 2), :idle, {:log, ">>> a"}]

    assert seen(events, colours: true, columns: 40) ==
             ".\n\rPulling image, 1 of 2 layers: 0.0 MB of\e[K\r\e[K>>> a\n"
  end

  test "without a terminal, short progress is one plain line at its end" do
    events = [
      {:stage, :pull, :started},
      pulling(0, nil, "0 of 2"),
      pulling(32_000_000, 64_000_000),
      pulling(64_000_000, 64_000_000, "2 of 2"),
      {:stage, :pull, {:finished, 900}},
      {:stage, :preflight, {:finished, 1_000}}
    ]

    line = "Pulling image, 2 of 2 layers: 64.0 MB of 64.0 MB (100%)\n"
    # Without colours, or without a terminal: the captured output has no columns.
    assert seen(events, colours: false, columns: 80) == line
    assert seen(events, colours: true, columns: nil) == line
    assert seen(events, colours: true) == line
  end

  test "without a terminal, long progress is a plain line now and then" do
    events =
      [pulling(0, 100_000_000)] ++
        Enum.flat_map(1..10, &[{:sleep, 30}, pulling(&1 * 10_000_000, 100_000_000)]) ++
        [{:stage, :pull, {:finished, 300}}]

    last = "Pulling image, 1 of 2 layers: 100.0 MB of 100.0 MB (100%)"
    lines = String.split(seen(events, colours: false, columns: nil, line_every: 100), "\n", trim: true)
    assert length(lines) >= 2
    assert List.last(lines) == last
    assert lines == Enum.uniq(lines)
    assert seen(events, colours: false, columns: nil, line_every: 60_000) == last <> "\n"
  end

  test "without a terminal, silence prints the last progress, then dots" do
    events = [pulling(1_000_000, nil), :idle, :idle, :idle, pulling(2_000_000, nil), :idle]

    assert seen(events, colours: false, columns: nil) ==
             "Pulling image, 1 of 2 layers: 1.0 MB\n..\nPulling image, 1 of 2 layers: 2.0 MB\n"
  end

  test "progress of a stage that has not finished is not printed" do
    assert seen([pulling(1, 2), {:warning, "w"}], colours: false, columns: nil) == "w\n"
  end

  defp at(task, changes \\ %{}) do
    {:status, Map.merge(%{elapsed: 60_000, tasks: [{task, 0}], done: 1, total: 9, left: nil}, changes)}
  end

  test "the live line is the last line, below all output, and is erased at the end" do
    events = [
      at("a Building"),
      {:sleep, 60},
      {:log, ">>> a\n>>> b"},
      at("b Building"),
      {:warning, "w"},
      {:log, ">>> c"},
      {:sleep, 60},
      {:headline, "H"},
      {:log, ">>> d"}
    ]

    line = &"\e[?7l1:00 | #{&1} Building 0:00 | 1 of 9 packages | time left unknown\e[?7h"

    # Events that arrive at the same time are written together.
    assert seen(events, colours: true, columns: 80) ==
             "\r#{line.("a")}\e[J\r" <>
               "\r\e[J>>> a\n>>> b\n#{line.("a")}\r" <>
               "\r#{line.("b")}\e[J\r" <>
               "\r\e[J\e[33mw\e[0m\e[0m\n>>> c\n\e[7m|Docker| H\e[0m\e[0m\n\n#{line.("b")}\r" <>
               "\r\e[J>>> d\n"
  end

  test "text that waits for the live line is written soon, and patience says when" do
    Mix.shell(Mix.Shell.IO)
    Application.put_env(:elixir, :ansi_enabled, true)

    assert capture_io(fn ->
             {:ok, console} = Console.show(Console.new(columns: 80), at("a"))
             assert Console.patience(console) > 500
             {:ok, console} = Console.show(console, {:log, ">>> a"})
             assert Console.patience(console) <= 50
             console = Console.idle(console)
             assert Console.patience(console) > 500
           end) =~ ">>> a\n"
  end

  test "with a live line there are no dots" do
    assert seen([:idle, at("a"), :idle, :idle], colours: true, columns: 80) =~ ~r/^\.\n\r\e\[\?7l1:00 [^.]*$/
  end

  test "the live line is erased at the end of the stage, and a progress bar replaces it" do
    events = [at("a"), {:stage, :make, {:finished, 1}}, {:log, ">>> x"}, pulling(1, nil), at("b"), :idle]

    assert seen(events, colours: true, columns: 60) ==
             "\r\e[?7l1:00 | a 0:00 | 1 of 9 packages | time left unknown\e[?7h\e[J\r\r\e[J>>> x\n" <>
               "\rPulling image, 1 of 2 layers: 0.0 MB\e[K\r\e[K"
  end

  test "without a terminal, a plain line shows the status now and then" do
    events = [at("a"), {:sleep, 60}, at("b"), :idle, {:log, ">>> x"}, at("c"), {:sleep, 60}, :idle]

    assert seen(events, colours: false, columns: nil, status_every: 50) =~
             ~r/^1:00 \| b 0:00 \| 1 of 9 packages \| time left unknown\n\.\n>>> x\n1:00 \| c 0:00 [^\n]*\n$/

    assert seen(events, colours: false, columns: nil) == ".\n>>> x\n.\n"
  end

  test "with NO_COLOR nothing has a colour" do
    System.put_env("NO_COLOR", "1")
    on_exit(fn -> System.delete_env("NO_COLOR") end)

    assert seen([{:headline, "H"}, {:warning, "w"}, at("a"), {:warning, "v"}], colours: true, columns: 6) ==
             "|Docker| H\n\nw\n\r\e[?7l1:00\e[?7h\e[J\r\r\e[Jv\n"
  end

  test "a term that is no status is not shown" do
    assert Console.show(Console.new(), {:status, %{elapsed: 1}}) == :unknown
  end

  test "a quiet shell prints nothing" do
    Mix.shell(Mix.Shell.Quiet)

    assert capture_io(fn ->
             for event <- [{:headline, "a"}, {:log, "b"}, {:warning, "c"}] do
               Console.new() |> Console.show(event)
             end

             {:ok, console} = Console.show(Console.new(columns: 80), pulling(1, 2))
             {:ok, console} = Console.show(console, {:stage, :pull, {:finished, 1}})
             console |> Console.idle() |> Console.end_line()
           end) == ""
  end

  test "no text from outside controls the terminal" do
    hostile = [
      {"\e]52;c;ZXZpbA==\a", ""},
      {"\e]0;title\e\\shown", "shown"},
      {"\e[2J\e[1;31mred\e[0m", "red"},
      {"\u009B31m\u009D0;title\u009Cred", "red"},
      {"\e]0;without an end", "0;without an end"},
      {"\e\e[31m[2J", "\uFFFD[2J"},
      {"gone\r\bshown", "gone\uFFFD\uFFFDshown"},
      {"a\u202Eb\u2066c\u200F\u061C\u0085", "a\uFFFDb\uFFFDc\uFFFD\uFFFD\uFFFD"},
      {<<"a", 0x9B, "31m">>, "a\uFFFD31m"},
      {"one\r\n\ttwo \u00E9", "one\n\ttwo \u00E9"}
    ]

    for {text, shown} <- hostile do
      assert Console.printable(text) == shown

      for event <- [{:headline, text}, {:log, text}, {:warning, text}] do
        assert seen([event], colours: false) =~ shown
        refute seen([event], colours: false) =~ ~r/[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80\xae/
      end
    end
  end

  test "patience ends, and begins again after a dot" do
    Mix.shell(Mix.Shell.Process)
    console = Console.new(dot_every: 1)
    Process.sleep(10)
    assert Console.patience(console) == 0
    console = %{Console.new(dot_every: 60_000) | dot_at: System.monotonic_time(:millisecond)}
    assert Console.patience(console) == 0
    assert Console.patience(Console.idle(console)) in 1..60_000
  end

  test "text that is not UTF-8 becomes UTF-8" do
    assert Console.printable("é") == "é"
    assert Console.printable(<<"a", 0xFF, 0xFE, "b">>) == "a\uFFFD\uFFFDb"
    assert Console.printable(<<"a", 0xC3>>) == "a\uFFFD"

    # The time must be proportional to the length, because a log may contain anything.
    long = :binary.copy(<<0xFF>>, 2_000_000)
    assert byte_size(Console.printable(long)) == 6_000_000
  end

  test "a term that is no event is reported as unknown" do
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

  test "in a CI the terminal is not interactive" do
    saved = System.get_env("CI")
    System.put_env("CI", "true")
    on_exit(fn -> if saved, do: System.put_env("CI", saved), else: System.delete_env("CI") end)

    assert %{interactive: false, columns: columns, ansi: ansi} = Console.terminal()
    assert columns > 0 and is_boolean(ansi)
  end
end
