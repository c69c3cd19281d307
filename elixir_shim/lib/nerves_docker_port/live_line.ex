defmodule NervesDockerPort.LiveLine do
  @moduledoc """
  Says where a build is in one line that fits a terminal: the elapsed time, what is under way and for how long, how many
  packages are built, and the time left.

  If the terminal is narrow, the parts become shorter, and what matters least is left out. The line has ASCII characters only,
  each of which takes one column on every terminal.
  """

  @typedoc "The status of a build, as in the event `:status` in `docs/protocol.md`."
  @type status :: %{
          :elapsed => non_neg_integer(),
          :tasks => [{String.t(), non_neg_integer()}],
          :done => non_neg_integer() | nil,
          :total => non_neg_integer() | nil,
          :left => non_neg_integer() | nil,
          optional(atom()) => term()
        }

  # The columns that the name of a task has at least. A shorter one says nothing.
  @min_task 8

  defguardp is_count(value) when is_integer(value) and value >= 0

  @doc """
  Returns whether the term is a status.
  """
  @spec status?(term()) :: boolean()
  def status?(%{elapsed: elapsed, tasks: tasks, done: done, total: total, left: left})
      when is_count(elapsed) and is_list(tasks) and (done == nil or is_count(done)) and
             (total == nil or is_count(total)) and (left == nil or is_count(left)) do
    List.improper?(tasks) == false and Enum.all?(tasks, &task?/1)
  end

  def status?(_term), do: false

  defp task?({text, time}), do: is_binary(text) and is_count(time)
  defp task?(_term), do: false

  @doc ~S"""
  Returns the line for a status that came `age` milliseconds ago. It has at most `width` characters.

  ## Examples

      iex> status = %{
      ...>   elapsed: 754_000,
      ...>   tasks: [{"linux Building", 200_000}, {"zlib Configuring", 5_000}],
      ...>   done: 45,
      ...>   total: 210,
      ...>   left: 1_490_000
      ...> }
      iex> NervesDockerPort.LiveLine.text(status, 0, 200)
      "12:34 | 2 at once: linux Building 3:20, zlib Configuring 0:05 | 45 of 210 packages | about 25 min left"
      iex> NervesDockerPort.LiveLine.text(status, 1_000, 79)
      "12:35 | linux Building 3:21, 1 more | 45 of 210 packages | about 25 min left"
      iex> NervesDockerPort.LiveLine.text(status, 0, 39)
      "12:34 | linux Bu | 45/210 | 25 min left"
  """
  @spec text(status(), non_neg_integer(), pos_integer() | :infinity) :: String.t()
  def text(status, age, width) do
    elapsed = clock(status.elapsed + age)
    tasks = for {text, time} <- status.tasks, do: {ascii(text), clock(time + age)}

    lines = [
      [elapsed, all(tasks), packages(status), time_left(status, age)],
      [elapsed, first(tasks, ", ", " more"), packages(status), time_left(status, age)],
      [elapsed, first(tasks, ", ", " more"), packages(status), time_left_short(status, age)],
      [elapsed, first(tasks, " +", ""), packages_short(status), time_left_short(status, age)],
      [
        elapsed,
        shortened(tasks, elapsed, status, age, width),
        packages_short(status),
        time_left_short(status, age)
      ],
      [elapsed, packages_short(status), time_left_short(status, age)],
      [elapsed, packages_short(status)]
    ]

    lines
    |> Enum.map(fn parts -> parts |> Enum.reject(&is_nil/1) |> Enum.join(" | ") end)
    |> Enum.find(elapsed, &fits?(&1, width))
    |> cut(width)
  end

  defp fits?(line, width), do: width == :infinity or byte_size(line) <= width

  defp cut(line, :infinity), do: line
  defp cut(line, width), do: binary_part(line, 0, min(max(width, 0), byte_size(line)))

  defp all([]), do: nil
  defp all([{text, time}]), do: "#{text} #{time}"

  defp all(tasks) do
    "#{length(tasks)} at once: " <> Enum.map_join(tasks, ", ", fn {text, time} -> "#{text} #{time}" end)
  end

  defp first([], _before, _behind), do: nil
  defp first([task], _before, _behind), do: all([task])

  defp first([task | others], before, behind), do: "#{all([task])}#{before}#{length(others)}#{behind}"

  # As much of the name of the first task as there is room for.
  defp shortened([], _elapsed, _status, _age, _width), do: nil
  defp shortened(_tasks, _elapsed, _status, _age, :infinity), do: nil

  defp shortened([{text, _time} | _others], elapsed, status, age, width) do
    others = [elapsed, packages_short(status), time_left_short(status, age)]
    taken = for part <- others, part != nil, reduce: 0, do: (sum -> sum + byte_size(part) + 3)
    room = width - taken
    if room >= @min_task, do: cut(text, room)
  end

  defp packages(%{done: done, total: total}) when done != nil and total != nil,
    do: "#{done} of #{total} packages"

  defp packages(_status), do: nil

  defp packages_short(%{done: done, total: total}) when done != nil and total != nil, do: "#{done}/#{total}"
  defp packages_short(_status), do: nil

  # Before it is known how many packages there are, nobody expects to hear how long they take.
  defp time_left(%{left: nil, total: nil}, _age), do: nil
  defp time_left(%{left: nil}, _age), do: "time left unknown"
  defp time_left(%{left: left}, age) when left - age < 60_000, do: "less than a minute left"
  defp time_left(status, age), do: "about " <> time_left_short(status, age)

  defp time_left_short(%{left: nil}, _age), do: nil

  defp time_left_short(%{left: left}, age) do
    minutes = div(max(0, left - age) + 30_000, 60_000)

    cond do
      minutes >= 60 -> "#{div(minutes, 60)} h #{rem(minutes, 60)} min left"
      minutes >= 1 -> "#{minutes} min left"
      true -> "<1 min left"
    end
  end

  # Hours, minutes and seconds; minutes and seconds below one hour.
  defp clock(milliseconds) do
    seconds = div(milliseconds, 1_000)
    minutes = div(seconds, 60)

    if minutes >= 60 do
      "#{div(minutes, 60)}:#{two(rem(minutes, 60))}:#{two(rem(seconds, 60))}"
    else
      "#{minutes}:#{two(rem(seconds, 60))}"
    end
  end

  defp two(number), do: String.pad_leading(Integer.to_string(number), 2, "0")

  defp ascii(text), do: for(<<byte <- text>>, into: "", do: if(byte in 0x20..0x7E, do: <<byte>>, else: "?"))
end
