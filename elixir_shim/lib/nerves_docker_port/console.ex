defmodule NervesDockerPort.Console do
  @moduledoc """
  Prints what the person sees of a build. Lines are printed with `Mix.shell/0`, so `Mix.Shell.Quiet` prints nothing, and a
  test can read the lines with `Mix.Shell.Process`.

  Dots and the progress bar are not whole lines. So they are written to standard output directly, as Nerves' own runner
  writes its dots, and only if the shell is `Mix.Shell.IO`. The progress bar is one line of the terminal that is drawn
  again with every change, and erased before the next output. A line of dots is ended before the next line is printed.

  Without a terminal, progress is printed as plain lines: one every 30 seconds, and the last one when the stage has
  finished. A short stage prints only the last one.

  In a CI (`NervesDockerPort.CI`) there is no terminal, whatever standard output is: nothing is coloured, and each stage is
  a group of lines.

  While a build runs, the last line of the terminal is the live line: the elapsed time, what is under way, how many packages
  are built, and the time left (`NervesDockerPort.LiveLine`). It is drawn again every second, always for the width that the
  terminal has then. Other output goes above it. Where there is a live line, there are no dots. Without a terminal, the same
  is a plain line every minute. If `NO_COLOR` is set, nothing has a colour.
  """

  alias NervesDockerPort.{CI, LiveLine}

  # Milliseconds without output after which a dot is printed, as the stock runner does.
  @dot_every 10_000

  # Milliseconds between two lines of progress without a terminal: a pull of one hour prints 120 lines in the log of a CI.
  @line_every 30_000

  # Milliseconds between two drawings of the live line: it shows seconds.
  @draw_every 1_000

  # The least number of milliseconds between two writes to a terminal with a live line. If a terminal becomes narrower
  # while the line is drawn, a part of the line remains. This is less likely if the line is drawn less often.
  @write_every 50

  # Milliseconds between two lines with the status, without a terminal.
  @status_every 60_000

  # The cursor stays at the beginning of the live line. If the terminal becomes narrower, it wraps the line, and the cursor
  # is still where the line begins: so everything from there on is erased, and no part of the line remains.
  @erase "\r\e[J"
  @erase_rest "\e[J\r"

  # Without automatic wrapping (DECAWM), a line that is too long is cut off at the edge of the terminal. A line can be
  # too long if the terminal becomes narrower after its width was read.
  @no_wrap "\e[?7l"
  @wrap "\e[?7h"

  # The largest width of the progress bar, in columns. A wider bar is not easier to read.
  @max_bar 30

  defstruct open: nil,
            dot_every: @dot_every,
            dot_at: 0,
            line_every: @line_every,
            line_at: nil,
            unprinted: nil,
            status: nil,
            status_every: @status_every,
            status_at: nil,
            written_at: nil,
            waiting: [],
            columns: :ask,
            ci: nil

  @typedoc """
  The state of the console: which line is open on the terminal, when the next dot and the next line of progress are due,
  and the last progress that was not printed yet. `status` is the last status and when it came. `status_at` says when it is
  shown again. `waiting` is the text that is printed with the next write to the terminal, the latest first. Times are in
  milliseconds.
  """
  @opaque t :: %__MODULE__{
            open: nil | :dots | :progress | :status,
            dot_every: pos_integer(),
            dot_at: integer(),
            line_every: non_neg_integer(),
            line_at: integer() | nil,
            unprinted: String.t() | nil,
            status: {LiveLine.status(), integer()} | nil,
            status_every: pos_integer(),
            status_at: integer() | nil,
            written_at: integer() | nil,
            waiting: [IO.chardata()],
            columns: pos_integer() | nil | :ask,
            ci: CI.t() | nil
          }

  @typedoc """
  Whether a person can answer questions, the width of the terminal in columns, whether it shows colours, and whether a status
  can be shown, which is always true.
  """
  @type terminal :: %{
          interactive: boolean(),
          columns: pos_integer(),
          ansi: boolean(),
          status: boolean()
        }

  @typedoc "An event, as in `docs/protocol.md`."
  @type event ::
          {:headline, String.t()}
          | {:log, binary()}
          | {:stage, atom(), :started | {:finished, non_neg_integer()}}
          | {:progress, map()}
          | {:status, LiveLine.status()}
          | {:warning, String.t()}

  defguardp is_count(value) when is_integer(value) and value >= 0

  @doc """
  Returns a console on which nothing has been printed.

  Options:

    * `:dot_every` - the milliseconds without output before a dot (default: 10 000)
    * `:line_every` - the milliseconds between two lines of progress without a terminal (default: 30 000)
    * `:status_every` - the milliseconds between two lines with the status without a terminal (default: 60 000)
    * `:columns` - the width of the terminal in columns, or `nil` if there is no terminal; by default, the width is read from
      the terminal each time progress is shown
  """
  @spec new(keyword()) :: t()
  def new(options \\ []) do
    console = struct!(__MODULE__, Keyword.take(options, [:dot_every, :line_every, :status_every, :columns]))

    case CI.new() do
      nil -> restart_silence(console)
      ci -> restart_silence(%{console | ci: ci, columns: nil})
    end
  end

  @doc """
  Shows an event. Returns `:unknown` if the term is not an event of the protocol.
  """
  @spec show(t(), event() | term()) :: {:ok, t()} | :unknown
  def show(console, {:headline, text}) when is_binary(text) do
    {:ok, print(console, [coloured(console, :inverse, "|Docker| " <> printable(text)), ""])}
  end

  def show(console, {:log, bytes}) when is_binary(bytes) do
    {:ok, print(console, [printable(bytes)])}
  end

  def show(console, {:warning, text}) when is_binary(text) do
    {:ok, print(console, [coloured(console, :yellow, printable(text))])}
  end

  def show(console, {:progress, %{what: what, current: current, unit: unit} = progress})
      when is_binary(what) and is_count(current) do
    {:ok, progress(console, printable(what), current, Map.get(progress, :total), unit)}
  end

  def show(console, {:status, status}) do
    if LiveLine.status?(status) do
      {:ok, show_status(%{console | status: {status, now()}})}
    else
      :unknown
    end
  end

  # Outside of a CI the start of a stage is not printed, because the headlines already say what is being done.
  def show(console, {:stage, stage, :started}) when is_atom(stage) do
    {:ok, group(console, &CI.open(&1, stage))}
  end

  def show(console, {:stage, stage, {:finished, milliseconds}})
      when is_atom(stage) and is_count(milliseconds) do
    # Print the last progress of the stage. The next stage begins with its own progress and its own status.
    console = if console.open == :status, do: end_line(console), else: console
    console = %{print_progress(console) | line_at: nil, status: nil}
    {:ok, group(console, &CI.close(&1, stage, milliseconds))}
  end

  def show(_console, _event), do: :unknown

  @doc """
  Asks a yes or no question, and returns the answer.
  """
  @spec yes?(t(), String.t(), boolean()) :: {boolean(), t()}
  def yes?(console, text, default) do
    console = end_line(console)
    answer = Mix.shell().yes?(printable(text), default: if(default, do: :yes, else: :no))
    {answer, restart_silence(console)}
  end

  @doc """
  Returns the milliseconds until `idle/1` is due.
  """
  @spec patience(t()) :: non_neg_integer()
  def patience(%__MODULE__{open: :status, waiting: []} = console),
    do: max(0, console.status_at - now())

  def patience(%__MODULE__{open: :status} = console),
    do: max(0, console.written_at + @write_every - now())

  def patience(%__MODULE__{status: {_status, _at}, open: open} = console) when open != :progress,
    do: max(0, min(console.dot_at, console.status_at) - now())

  def patience(console), do: max(0, console.dot_at - now())

  @doc """
  Writes a dot, or the progress that was not printed yet, or the status again. The caller calls it when `patience/1` is over.
  """
  @spec idle(t()) :: t()
  def idle(%__MODULE__{open: open, status: {_status, _at}} = console) when open != :progress do
    if open == :status or console.status_at <= now(), do: show_status(console), else: silent(console)
  end

  def idle(console), do: silent(console)

  # An open progress bar stays on the terminal, so there is no dot.
  defp silent(%__MODULE__{open: :progress} = console), do: restart_silence(console)

  defp silent(%__MODULE__{unprinted: text} = console) when text != nil,
    do: console |> print_progress() |> restart_silence()

  defp silent(console) do
    if Mix.shell() == Mix.Shell.IO do
      IO.write(".")
      restart_silence(%{console | open: :dots})
    else
      restart_silence(console)
    end
  end

  @doc """
  Ends what is open on the terminal after the last event, also where the flow has failed within a stage.
  """
  @spec finish(t()) :: t()
  def finish(console), do: console |> end_line() |> group(&CI.close/1)

  @doc """
  Ends an open line of dots, or erases an open progress bar or the live line.
  """
  @spec end_line(t()) :: t()
  def end_line(%__MODULE__{open: nil} = console), do: console

  def end_line(%__MODULE__{open: :dots} = console) do
    IO.write("\n")
    %{console | open: nil}
  end

  # The person does not need the progress of a finished task, so the next line replaces it.
  def end_line(%__MODULE__{open: :progress} = console) do
    IO.write("\r\e[K")
    %{console | open: nil}
  end

  def end_line(%__MODULE__{open: :status} = console) do
    IO.write([@erase, Enum.reverse(console.waiting)])
    %{console | open: nil, waiting: []}
  end

  @doc ~S"""
  Returns the text as valid UTF-8 that cannot control a terminal. Escape sequences are removed. `U+FFFD` replaces each byte
  that is not UTF-8, each control character other than tab and newline, and each character that changes the direction of
  writing.

  The helper does the same with every text that it sends. This function is the last check before text is printed. In a CI
  no line of the text is a command to the service (`NervesDockerPort.CI.harmless/1`).

  ## Examples

      iex> NervesDockerPort.Console.printable("caf" <> <<0xE9>> <> "!")
      "caf\uFFFD!"

      iex> NervesDockerPort.Console.printable("\e]0;title\a\e[1mno\e[0m such image\b\r\n")
      "no such image\uFFFD\n"
  """
  @spec printable(binary()) :: String.t()
  def printable(bytes) do
    text = if String.valid?(bytes), do: bytes, else: replace_invalid(bytes, "")
    text = if controls?(text), do: without_controls(text), else: text
    if CI.service(), do: CI.harmless(text), else: text
  end

  # A fast search on bytes, because there are many lines, and nearly none contains such a character: C0, DEL, C1, and the
  # characters that change the direction of writing (Unicode Standard Annex 9).
  defp controls?(text) do
    text =~
      ~r/[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xaa-\xae]|\xe2\x81[\xa6-\xa9]/
  end

  # Removes control sequences, control strings with their terminator, and other escape sequences (ECMA-48). Replaces all
  # other control characters, so that the person sees that something was there.
  defp without_controls(text) do
    text
    |> String.replace("\r\n", "\n")
    |> String.replace(
      ~r"(?:\x1b\[|\x{9b})[0-?]*[ -/]*[@-~]|(?:\x1b[\]PX^_]|[\x{90}\x{98}\x{9d}-\x{9f}])[^\x07\x1b\x{9c}\n]*(?:\x07|\x1b\\|\x{9c})|\x1b[ -/]*[0-~]"u,
      ""
    )
    |> String.replace(
      ~r/[\x{00}-\x{08}\x{0b}-\x{1f}\x{7f}-\x{9f}\x{61c}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2066}-\x{2069}]/u,
      "\uFFFD"
    )
  end

  @doc """
  Returns what the terminal of Mix can do.

  A person can answer if standard input and standard output are both a terminal, and this is no CI.
  """
  @spec terminal() :: terminal()
  def terminal do
    ci? = CI.service() != nil

    %{
      interactive: not ci? and interactive?(),
      columns: columns() || 80,
      ansi: not ci? and IO.ANSI.enabled?(),
      status: true
    }
  end

  @doc """
  Returns the device file of the terminal at standard input, or `nil` if it is not known.
  """
  @spec device() :: Path.t() | nil
  def device do
    case File.read_link("/proc/self/fd/0") do
      {:ok, "/dev/" <> _ = device} -> device
      {:ok, _other} -> nil
      {:error, _reason} -> device_of_process()
    end
  end

  # On a system without /proc (macOS), `ps` prints the name of the terminal's device file in /dev, or `??`.
  defp device_of_process do
    with ps when is_binary(ps) <- System.find_executable("ps"),
         {name, 0} <- System.cmd(ps, ["-o", "tty=", "-p", System.pid()], stderr_to_stdout: true),
         path = Path.join("/dev", String.trim(name)),
         true <- File.exists?(path) and not File.dir?(path) do
      path
    else
      _unknown -> nil
    end
  end

  defp group(%__MODULE__{ci: nil} = console, _change), do: console

  defp group(console, change) do
    {lines, ci} = change.(console.ci)
    console = if lines == [], do: console, else: end_line(console)
    Enum.each(lines, &Mix.shell().info/1)
    restart_silence(%{console | ci: ci})
  end

  # Prints whole lines. If there is a live line, they are printed above it in the same write, so that it does not
  # flicker.
  defp print(%__MODULE__{open: :status} = console, lines) do
    text = for line <- lines, do: [IO.ANSI.format(line), "\n"]
    console = restart_silence(%{console | waiting: [text | console.waiting]})
    if now() - console.written_at >= @write_every, do: show_status(console), else: console
  end

  defp print(console, lines) do
    console = end_line(console)
    Enum.each(lines, &Mix.shell().info/1)
    restart_silence(console)
  end

  # See https://no-color.org. There is no colour in a CI, because its log is also read as plain text.
  defp coloured(console, colour, text) do
    if console.ci == nil and System.get_env("NO_COLOR", "") == "", do: [colour, text, :reset], else: text
  end

  # A progress bar stays in the last line until its stage has finished. Until then no status is shown.
  defp show_status(%__MODULE__{open: :progress} = console), do: console

  defp show_status(console) do
    case width(console) do
      nil ->
        show_status_without_terminal(console)

      width ->
        console = if console.open == :dots, do: end_line(console), else: console

        IO.write(
          if console.waiting == [],
            do: ["\r", live_line(console, width), @erase_rest],
            else: [@erase, Enum.reverse(console.waiting), live_line(console, width), "\r"]
        )

        now = now()
        console = %{console | open: :status, waiting: [], written_at: now, status_at: now + @draw_every}
        restart_silence(console)
    end
  end

  defp show_status_without_terminal(%__MODULE__{open: :status} = console) do
    console |> end_line() |> show_status_without_terminal()
  end

  defp show_status_without_terminal(%__MODULE__{status_at: nil} = console) do
    %{console | status_at: now() + console.status_every}
  end

  defp show_status_without_terminal(console) do
    if console.status_at <= now() do
      print(%{console | status_at: now() + console.status_every}, [status_text(console, :infinity)])
    else
      console
    end
  end

  defp live_line(console, width), do: [@no_wrap, status_text(console, width), @wrap]

  defp status_text(%__MODULE__{status: {status, at}}, width), do: LiveLine.text(status, now() - at, width)

  # The columns that a line of the terminal may take, or `nil` if no line can be drawn again there. A line that takes all
  # columns would wrap on some terminals.
  defp width(console) do
    columns = if console.columns == :ask, do: columns(), else: console.columns

    if Mix.shell() == Mix.Shell.IO and IO.ANSI.enabled?() and columns != nil, do: columns - 1
  end

  defp progress(console, what, current, total, unit) do
    width = width(console)

    if width != nil do
      console = if console.open in [:dots, :status], do: end_line(console), else: console
      IO.write("\r" <> progress_line(what, current, total, unit, width) <> "\e[K")
      restart_silence(%{console | open: :progress})
    else
      console = %{console | unprinted: "#{what}: #{amount(current, total, unit)}"}

      cond do
        console.line_at == nil -> %{console | line_at: now() + console.line_every}
        console.line_at <= now() -> console |> print_progress() |> restart_silence()
        true -> console
      end
    end
  end

  defp print_progress(%__MODULE__{unprinted: nil} = console), do: console

  defp print_progress(console) do
    console = end_line(console)
    Mix.shell().info(console.unprinted)
    %{console | unprinted: nil, line_at: now() + console.line_every}
  end

  # Returns the text, with a progress bar if there is room for it.
  defp progress_line(what, current, total, unit, width) do
    amount = amount(current, total, unit)
    room = min(width - String.length("#{what}: [] #{amount}"), @max_bar)

    if is_count(total) and total > 0 and room >= 8 do
      done = div(room * min(current, total), total)
      "#{what}: [#{String.duplicate("=", done)}#{String.duplicate(" ", room - done)}] #{amount}"
    else
      String.slice("#{what}: #{amount}", 0, width)
    end
  end

  defp amount(current, total, unit) when is_count(total) do
    percent = if total > 0, do: " (#{min(100, div(100 * current, total))}%)", else: ""
    current = if unit == :bytes, do: quantity(current, unit), else: current
    "#{current} of #{quantity(total, unit)}#{percent}"
  end

  defp amount(current, _not_known, unit), do: quantity(current, unit)

  defp quantity(count, :bytes) when count >= 1_000_000_000 do
    "#{:erlang.float_to_binary(count / 1_000_000_000, decimals: 2)} GB"
  end

  defp quantity(count, :bytes), do: "#{:erlang.float_to_binary(count / 1_000_000, decimals: 1)} MB"
  defp quantity(count, unit), do: "#{count} #{unit}"

  defp replace_invalid(<<char::utf8, rest::binary>>, text) do
    replace_invalid(rest, <<text::binary, char::utf8>>)
  end

  defp replace_invalid(<<_byte, rest::binary>>, text) do
    replace_invalid(rest, <<text::binary, "\uFFFD">>)
  end

  defp replace_invalid(<<>>, text), do: text

  defp restart_silence(console), do: %{console | dot_at: now() + console.dot_every}

  defp now, do: System.monotonic_time(:millisecond)

  defp interactive? do
    terminal?(:stdin) and terminal?(:stdout)
  end

  # OTP 26 and later report this for both streams. With an older OTP, the link in /proc tells it on Linux. Elsewhere only
  # the width is left: if it is known, at least one of the two streams is a terminal.
  defp terminal?(stream) do
    with options when is_list(options) <- :io.getopts(),
         {:ok, terminal?} <- Keyword.fetch(options, stream) do
      terminal? == true
    else
      _unknown ->
        case File.read_link("/proc/self/fd/" <> if(stream == :stdin, do: "0", else: "1")) do
          {:ok, device} -> device =~ ~r{^/dev/(pts/|tty|console)}
          {:error, _reason} -> columns() != nil
        end
    end
  end

  defp columns do
    case :io.columns() do
      {:ok, columns} when columns > 0 -> columns
      _not_known -> nil
    end
  end
end
