defmodule NervesDockerPort.LiveLineTest do
  use ExUnit.Case, async: true

  alias NervesDockerPort.LiveLine

  doctest LiveLine

  defp status(changes \\ %{}) do
    Map.merge(
      %{elapsed: 3_754_000, tasks: [{"linux Building", 200_000}], done: 45, total: 210, left: 5_000_000},
      changes
    )
  end

  test "has all parts if there is room" do
    assert LiveLine.text(status(), 0, :infinity) ==
             "1:02:34 | linux Building 3:20 | 45 of 210 packages | about 1 h 23 min left"
  end

  test "fits any width, and has more parts on a wider terminal" do
    many = for number <- 1..9, do: {"package-#{number} Installing to target", number * 1_000}

    for changes <- [%{}, %{left: nil}, %{done: nil, total: nil, left: nil}, %{tasks: []}, %{tasks: many}],
        width <- 1..300 do
      line = LiveLine.text(status(changes), 0, width)
      assert String.length(line) <= width
      assert line =~ ~r/^[\x20-\x7e]+$/
    end

    assert LiveLine.text(status(), 0, 39) == "1:02:34 | 45/210 | 1 h 23 min left"
    assert LiveLine.text(status(), 0, 4) == "1:02"
  end

  test "says that the time left is unknown, as soon as the number of packages is known" do
    assert LiveLine.text(status(%{left: nil}), 0, 200) =~ "| time left unknown"
    refute LiveLine.text(status(%{left: nil, done: nil, total: nil}), 0, 200) =~ "left"
  end

  test "counts the time on between two statuses" do
    assert LiveLine.text(status(%{elapsed: 59_000, left: 61_000}), 2_000, 200) ==
             "1:01 | linux Building 3:22 | 45 of 210 packages | less than a minute left"
  end

  test "a name from outside cannot be wider than its characters, nor control the terminal" do
    line = LiveLine.text(status(%{tasks: [{"café\e[2J\n Building", 0}]}), 0, 200)
    assert line =~ "caf???[2J? Building 0:00"
  end

  test "status?/1 accepts only a status" do
    assert LiveLine.status?(status())
    assert LiveLine.status?(Map.put(status(), :of_a_later_version, 1))

    for changes <- [%{elapsed: -1}, %{tasks: [:a]}, %{tasks: [{"a", 1} | 2]}, %{done: "1"}, %{left: 1.5}] do
      refute LiveLine.status?(status(changes))
    end

    refute LiveLine.status?(%{})
    refute LiveLine.status?(:status)
  end
end
