# A BEAM that asks the helper for one flow through the shim, for tests that end the one or the other.
#
#     elixir -pa EBIN beam_driver.exs OP ARGS_FILE
#
# ARGS_FILE holds the request's arguments as an external term. It prints "caller" when it has begun, then "done ok" or
# "done error". The line "kill" on standard input kills the process that called the shim, and the BEAM lives on.
defmodule BeamDriver do
  def main([op, file]) do
    Mix.start()
    Mix.shell(Mix.Shell.Quiet)
    args = file |> File.read!() |> :erlang.binary_to_term()
    caller = spawn(fn -> NervesDockerPort.Helper.request(String.to_atom(op), args) end)
    monitor = Process.monitor(caller)
    IO.puts("caller")
    main = self()
    spawn_link(fn -> read(caller, main) end)
    IO.puts("done #{outcome(monitor)}")
    # The BEAM stays: what ends must end without its help.
    wait_for_end_of_input()
  end

  defp read(caller, main) do
    case IO.gets("") do
      "kill\n" ->
        Process.exit(caller, :kill)
        read(caller, main)

      _end_of_file ->
        send(main, :end_of_input)
    end
  end

  defp outcome(monitor) do
    receive do
      {:DOWN, ^monitor, :process, _pid, :normal} -> :ok
      {:DOWN, ^monitor, :process, _pid, _reason} -> :error
    end
  end

  defp wait_for_end_of_input do
    receive do
      :end_of_input -> :ok
    end
  end
end

BeamDriver.main(System.argv())
