# Shows a build of COUNT headlines, about 1,000 of them a second, with the live line below. Then the build is silent for
# SECONDS. Prints "shown" at its end.
[count, seconds] = System.argv()
Application.put_env(:elixir, :ansi_enabled, true)
{:ok, _started} = Application.ensure_all_started(:mix)
alias NervesDockerPort.Console

show = fn console, event ->
  {:ok, console} = Console.show(console, event)
  console
end

console =
  Enum.reduce(1..String.to_integer(count), Console.new(), fn number, console ->
    if rem(number, 100) == 1 do
      tasks = for package <- 1..3, do: {"package-#{package} Installing to target", number * package}

      show.(console, {
        :status,
        %{elapsed: number, tasks: tasks, done: div(number, 100), total: 500, left: 3_600_000 - number}
      })
    else
      console
    end
    |> tap(fn _console -> Process.sleep(1) end)
    |> show.({:log, ">>> package-#{number} 1.0 Building"})
  end)

stop = System.monotonic_time(:millisecond) + 1_000 * String.to_integer(seconds)

console =
  fn -> System.monotonic_time(:millisecond) < stop end
  |> Stream.repeatedly()
  |> Stream.take_while(& &1)
  |> Enum.reduce(console, fn _silent, console ->
    Process.sleep(Console.patience(console))
    Console.idle(console)
  end)

Console.end_line(console)
IO.puts("shown")
