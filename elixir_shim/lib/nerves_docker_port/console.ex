defmodule NervesDockerPort.Console do
  @moduledoc """
  What the person sees of a build. Everything goes through `Mix.shell/0`, so `Mix.Shell.Quiet` is quiet and a test can
  read it with `Mix.Shell.Process`.

  Dots are no lines: they are written as they are, as Nerves' own runner does it, and only where the shell is
  `Mix.Shell.IO`. So is progress on a terminal: one line that is drawn anew and vanishes when it is over. A line that was
  begun so is ended before the next one is printed.

  Where there is no terminal, progress is plain lines: one now and then, and the last. What is over before that was
  quick, and is one line.
  """

  # A build that says nothing for so long gets a dot, as from the stock runner.
  @dot_every 10_000

  # Without a terminal, progress is said so often: a pull of an hour is 120 lines in the log of a CI.
  @line_every 30_000

  # The widest bar; beyond, it is no easier to read.
  @bar 30

  defstruct open: nil,
            dot_every: @dot_every,
            dot_at: 0,
            line_every: @line_every,
            line_at: nil,
            unsaid: nil,
            columns: :ask

  @typedoc """
  What was printed last, when the next dot and the next plain line of progress are due, and progress that was not said
  yet. Times are in milliseconds.
  """
  @opaque t :: %__MODULE__{
            open: nil | :dots | :progress,
            dot_every: pos_integer(),
            dot_at: integer(),
            line_every: non_neg_integer(),
            line_at: integer() | nil,
            unsaid: String.t() | nil,
            columns: pos_integer() | nil | :ask
          }

  @typedoc "What the terminal can do: whether a person can answer, its width, and whether it has colours."
  @type terminal :: %{interactive: boolean(), columns: pos_integer(), ansi: boolean()}

  @typedoc "An event, as in `docs/protocol.md`."
  @type event ::
          {:headline, String.t()}
          | {:log, binary()}
          | {:stage, atom(), :started | {:finished, non_neg_integer()}}
          | {:progress, map()}
          | {:warning, String.t()}

  defguardp is_count(value) when is_integer(value) and value >= 0

  @doc """
  A console on which nothing has been printed.

  Options:

    * `:dot_every` - the milliseconds of silence before a dot (10 000)
    * `:line_every` - the milliseconds between two plain lines of progress (30 000)
    * `:columns` - the terminal's width, `nil` where there is none; otherwise it is asked for whenever it matters
  """
  @spec new(keyword()) :: t()
  def new(options \\ []) do
    renew(struct!(__MODULE__, Keyword.take(options, [:dot_every, :line_every, :columns])))
  end

  @doc """
  Shows an event; `:unknown` where it is none.
  """
  @spec show(t(), event() | term()) :: {:ok, t()} | :unknown
  def show(console, {:headline, text}) when is_binary(text) do
    console = end_line(console)
    Mix.shell().info([:inverse, "|Docker| " <> printable(text), :reset])
    Mix.shell().info("")
    {:ok, renew(console)}
  end

  def show(console, {:log, bytes}) when is_binary(bytes) do
    console = end_line(console)
    Mix.shell().info(printable(bytes))
    {:ok, renew(console)}
  end

  def show(console, {:warning, text}) when is_binary(text) do
    console = end_line(console)
    Mix.shell().info([:yellow, printable(text), :reset])
    {:ok, renew(console)}
  end

  def show(console, {:progress, %{what: what, current: current, unit: unit} = progress})
      when is_binary(what) and is_count(current) do
    {:ok, progress(console, printable(what), current, Map.get(progress, :total), unit)}
  end

  # The headlines say what is being done; stages are there to be measured.
  def show(console, {:stage, stage, :started}) when is_atom(stage), do: {:ok, console}

  def show(console, {:stage, stage, {:finished, milliseconds}})
      when is_atom(stage) and is_count(milliseconds) do
    # Its progress is over, and the last of it is worth a line.
    {:ok, %{say(console) | line_at: nil}}
  end

  def show(_console, _event), do: :unknown

  @doc """
  Asks a yes or no question.
  """
  @spec yes?(t(), String.t(), boolean()) :: {boolean(), t()}
  def yes?(console, text, default) do
    console = end_line(console)
    answer = Mix.shell().yes?(printable(text), default: if(default, do: :yes, else: :no))
    {answer, renew(console)}
  end

  @doc """
  The milliseconds until `idle/1` is due.
  """
  @spec patience(t()) :: non_neg_integer()
  def patience(console), do: max(0, console.dot_at - now())

  @doc """
  To be called when nothing was printed for a while: writes a dot, or the progress that was not said yet.
  """
  @spec idle(t()) :: t()
  # What is drawn stays to be seen.
  def idle(%__MODULE__{open: :progress} = console), do: renew(console)
  def idle(%__MODULE__{unsaid: text} = console) when text != nil, do: console |> say() |> renew()

  def idle(console) do
    if Mix.shell() == Mix.Shell.IO do
      IO.write(".")
      renew(%{console | open: :dots})
    else
      renew(console)
    end
  end

  @doc """
  Ends the line that dots or progress have begun, if there is one.
  """
  @spec end_line(t()) :: t()
  def end_line(%__MODULE__{open: nil} = console), do: console

  def end_line(%__MODULE__{open: :dots} = console) do
    IO.write("\n")
    %{console | open: nil}
  end

  # Progress that is over is of no interest: the next line takes its place.
  def end_line(%__MODULE__{open: :progress} = console) do
    IO.write("\r\e[K")
    %{console | open: nil}
  end

  @doc ~S"""
  Text that any terminal device takes and that no terminal obeys: without escape sequences, and with `U+FFFD` for a byte that
  is not UTF-8, for every other control character but tab and newline, and for what changes the direction of writing.

  The helper has done the same with what it sends. This is the one place that everything passes on its way to the person.

  ## Examples

      iex> NervesDockerPort.Console.printable("caf" <> <<0xE9>> <> "!")
      "caf\uFFFD!"

      iex> NervesDockerPort.Console.printable("\e]0;title\a\e[1mno\e[0m such image\b\r\n")
      "no such image\uFFFD\n"
  """
  @spec printable(binary()) :: String.t()
  def printable(bytes) do
    text = if String.valid?(bytes), do: bytes, else: replace_invalid(bytes, "")
    if controls?(text), do: without_controls(text), else: text
  end

  # On bytes, because nearly no text has any, and lines are many: C0, DEL, C1, and what changes the direction of writing
  # (Unicode Standard Annex 9).
  defp controls?(text) do
    text =~
      ~r/[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xaa-\xae]|\xe2\x81[\xa6-\xa9]/
  end

  # Control sequences, control strings with their end, and other escape sequences (ECMA-48) go; of the rest one sees that
  # something was there.
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
  What the terminal of this Mix can do.

  A person can answer where both standard input and standard output are a terminal, and `CI` is not set.
  """
  @spec terminal() :: terminal()
  def terminal do
    %{interactive: interactive?(), columns: columns() || 80, ansi: IO.ANSI.enabled?()}
  end

  @doc """
  The device file of the terminal at standard input, `nil` where it is not known.
  """
  @spec device() :: Path.t() | nil
  def device do
    case File.read_link("/proc/self/fd/0") do
      {:ok, "/dev/" <> _ = device} -> device
      {:ok, _other} -> nil
      {:error, _reason} -> device_of_process()
    end
  end

  # Without a /proc (macOS): what ps has in its column TTY is a name below /dev, or `??`.
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

  defp progress(console, what, current, total, unit) do
    columns = if console.columns == :ask, do: columns(), else: console.columns

    if Mix.shell() == Mix.Shell.IO and IO.ANSI.enabled?() and columns != nil do
      console = if console.open == :dots, do: end_line(console), else: console
      IO.write("\r" <> drawn(what, current, total, unit, columns - 1) <> "\e[K")
      renew(%{console | open: :progress})
    else
      console = %{console | unsaid: "#{what}: #{amount(current, total, unit)}"}

      cond do
        console.line_at == nil -> %{console | line_at: now() + console.line_every}
        console.line_at <= now() -> console |> say() |> renew()
        true -> console
      end
    end
  end

  defp say(%__MODULE__{unsaid: nil} = console), do: console

  defp say(console) do
    console = end_line(console)
    Mix.shell().info(console.unsaid)
    %{console | unsaid: nil, line_at: now() + console.line_every}
  end

  # As much as there is room for: the words first, then the bar.
  defp drawn(what, current, total, unit, width) do
    amount = amount(current, total, unit)
    room = min(width - String.length("#{what}: [] #{amount}"), @bar)

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

  defp renew(console), do: %{console | dot_at: now() + console.dot_every}

  defp now, do: System.monotonic_time(:millisecond)

  defp interactive? do
    System.get_env("CI", "") in ["", "false"] and terminal?(:stdin) and terminal?(:stdout)
  end

  # OTP 26 and later know. Before, Linux does; elsewhere, that there is a width says so of one of the two.
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
