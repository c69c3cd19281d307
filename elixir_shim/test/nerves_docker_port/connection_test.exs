defmodule NervesDockerPort.ConnectionTest do
  use NervesDockerPort.HelperCase, async: false

  alias NervesDockerPort.Connection

  setup %{directory: directory} do
    {:ok, open: fn steps -> open(fake_helper(directory, steps)) end}
  end

  defp open(command) do
    {:ok, connection} = Connection.open(command)
    on_exit(fn -> Connection.close(connection) end)
    connection
  end

  defp drain(connection, messages \\ []) do
    case Connection.next(connection, 60_000) do
      {:message, message} -> drain(connection, [message | messages])
      last -> Enum.reverse([last | messages])
    end
  end

  test "nothing is lost by a timeout", %{open: open} do
    connection = open.([{:read, nil}, say(hello()), {:exit, 0}])
    assert Connection.next(connection, 0) == :timeout
    assert Connection.next(connection, 10) == :timeout
    :ok = Connection.send_message(connection, :go)
    assert Connection.next(connection, 60_000) == {:message, hello()}
    assert Connection.next(connection, 60_000) == {:exited, 0}
    assert Connection.next(connection, 60_000) == {:exited, 0}
  end

  test "messages before the end are returned before the end", %{open: open, directory: directory} do
    pid = Path.join(directory, "pid")
    connection = open.([say(hello()), say({:done, 1, {:ok, 1}}), {:pid, pid}, {:exit, 5}])
    os_pid = await_file(pid)
    await("the helper to go", fn -> not os_process_alive?(os_pid) end)
    assert drain(connection) == [hello(), {:done, 1, {:ok, 1}}, {:exited, 5}]
  end

  test "log that is not read is dropped and counted, and no other message is dropped", %{
    open: open,
    directory: directory
  } do
    written = Path.join(directory, "pid")
    log = {:event, 1, {:log, ">>> one\n>>> two"}}

    connection =
      open.([
        say(hello()),
        {:flood, [3_000, Base.encode64(:erlang.term_to_binary(log))]},
        say({:event, 1, {:headline, "After"}}),
        {:flood, [100, Base.encode64(:erlang.term_to_binary(log))]},
        say({:done, 1, {:ok, 1}}),
        {:pid, written},
        {:exit, 0}
      ])

    os_pid = await_file(written)
    await("the helper to go", fn -> not os_process_alive?(os_pid) end)
    assert [first | rest] = drain(connection)
    assert first == hello()
    {shown, rest} = Enum.split_while(rest, &(&1 == log))
    # The limit counts lines and not events.
    assert length(shown) == 500
    lines = 2 * (3_000 - 500 + 100)

    assert [
             {:event, 1, {:warning, warning}},
             {:event, 1, {:headline, "After"}},
             {:done, 1, {:ok, 1}},
             {:exited, 0}
           ] = rest

    assert warning =~ "#{lines} lines were not shown"
  end

  test "log is shown again after the reader has caught up", %{open: open, directory: directory} do
    [go, pid] = Enum.map(["go", "pid"], &Path.join(directory, &1))
    log = {:event, 1, {:log, ">>> one"}}
    flood = {:flood, [2_000, Base.encode64(:erlang.term_to_binary(log))]}
    connection = open.([flood, {:pid, pid}, {:read, go}, say(log), {:exit, 0}])
    await_file(pid)
    await("the flood to be taken", fn -> :sys.get_state(connection).dropped == 1_000 end)
    for _ <- 1..1_000, do: assert(Connection.next(connection, 60_000) == {:message, log})

    assert {:message, {:event, 1, {:warning, "1000 lines" <> _}}} = Connection.next(connection, 60_000)

    :ok = Connection.send_message(connection, :go)
    assert Connection.next(connection, 60_000) == {:message, log}
  end

  test "after a message to a helper that has ended, next/2 returns the end", %{open: open} do
    connection = open.([{:exit, 9}])
    assert Connection.next(connection, 60_000) == {:exited, 9}
    assert Connection.send_message(connection, :hello) == :ok
    assert Connection.next(connection, 60_000) == {:exited, 9}
  end

  test "a request that is larger than a pipe arrives complete", %{open: open, directory: directory} do
    sent = Path.join(directory, "sent")
    connection = open.([{:sleep, 0.3}, {:read, sent}, say(:ok), {:exit, 0}])
    message = {:request, 1, :build, %{package: List.duplicate("some text", 100_000)}}
    :ok = Connection.send_message(connection, message)
    assert Connection.next(connection, 60_000) == {:message, :ok}
    assert saved_term(sent) == message
  end

  test "close/1 may be called twice", %{open: open} do
    connection = open.([say(hello()), {:sleep, 5}])
    assert Connection.next(connection, 60_000) == {:message, hello()}
    assert Connection.close(connection) == :ok
    assert Connection.close(connection) == :ok
  end
end
