defmodule NervesDockerPort.Connection do
  @moduledoc """
  Owns the port to one helper, and queues the helper's messages until the caller asks for them.

  It is a separate process for three reasons. If a helper dies while a message is written to it, its port ends with an exit
  signal, which must not end Mix. The BEAM reads from a port without limit, so if the terminal is slower than the build,
  this process has to limit the number of events that wait. And no message of the port is in the caller's mailbox.

  The connection monitors the process that opened it. When that process ends for any reason, the connection closes the
  port. The helper then reads the end of its input, and cancels the running request.
  """

  # `:temporary`, because a connection is never restarted. `open/1` does not link it to the caller.
  use GenServer, restart: :temporary

  alias NervesDockerPort.{Command, Protocol}

  # The number of lines that may wait before `:log`, `:progress` and `:status` events are dropped: several screens of
  # headlines. Lines are counted and not events, because one event may have thousands of lines on a busy machine.
  @max_waiting 1_000

  defstruct [:port, :owner, :asker, :ended, :parked, waiting: :queue.new(), lines: 0, dropped: 0]

  @typedoc """
  The result of `next/2`:

    * `{:message, term}` - the helper sent this message
    * `{:malformed, reason}` - the helper sent bytes that the protocol does not allow; nothing more is read
    * `{:exited, status}` - the helper has ended with this exit status; from 128 on, the signal `status - 128` ended it;
      `nil` if the status is not known
    * `:timeout` - nothing has arrived within the time
  """
  @type next ::
          {:message, term()}
          | {:malformed, String.t()}
          | {:exited, non_neg_integer() | nil}
          | :timeout

  @doc """
  Starts the helper. The calling process owns the connection.

  The error is a POSIX error code such as `:eacces`.
  """
  @spec open(Command.t()) :: {:ok, pid()} | {:error, atom()}
  def open(%Command{} = command) do
    case GenServer.start(__MODULE__, {command, self()}) do
      {:ok, connection} -> {:ok, connection}
      {:error, {:shutdown, reason}} -> {:error, reason}
    end
  end

  @doc """
  Sends the helper a message. If the helper has ended, this still returns `:ok`, and `next/2` reports the end.
  """
  @spec send_message(pid(), term()) :: :ok
  def send_message(connection, message) do
    GenServer.call(connection, {:send, Protocol.encode(message)}, :infinity)
  end

  @doc """
  Waits at most `timeout` milliseconds for the next message, or for the end of the helper. A timeout loses no message.
  """
  @spec next(pid(), timeout()) :: next()
  def next(connection, timeout) do
    GenServer.call(connection, {:next, timeout}, :infinity)
  end

  @doc """
  Keeps the helper for another request. If `take_up/1` is not called within `timeout` milliseconds, the port is closed.
  """
  @spec park(pid(), timeout()) :: :ok
  def park(connection, timeout), do: GenServer.call(connection, {:park, timeout}, :infinity)

  @doc """
  Uses a parked connection again. Returns `:gone` after its timeout, or if the helper has meanwhile ended or sent a message.
  """
  @spec take_up(pid()) :: :ok | :gone
  def take_up(connection) do
    GenServer.call(connection, :take_up, :infinity)
  catch
    :exit, _gone -> :gone
  end

  @doc """
  Closes the port, which makes the helper stop. Does nothing if the connection is already closed.
  """
  @spec close(pid()) :: :ok
  def close(connection) do
    GenServer.stop(connection)
  catch
    :exit, _gone -> :ok
  end

  @impl GenServer
  def init({command, owner}) do
    Process.flag(:trap_exit, true)
    monitor = Process.monitor(owner)

    port =
      Port.open({:spawn_executable, command.executable}, [
        :binary,
        :exit_status,
        :nouse_stdio,
        :hide,
        packet: 4,
        args: command.arguments
      ])

    {:ok, %__MODULE__{port: port, owner: monitor}}
  rescue
    error in ErlangError -> {:stop, {:shutdown, error.original}}
  end

  @impl GenServer
  def handle_call({:send, bytes}, _from, state) do
    {:reply, write(state.port, bytes), state}
  end

  def handle_call({:next, timeout}, from, state) do
    {:noreply, reply_to_asker(%{state | asker: {from, start_timer(timeout)}})}
  end

  def handle_call({:park, timeout}, _from, state) do
    {:reply, :ok, %{state | parked: :erlang.start_timer(timeout, self(), :parked)}}
  end

  def handle_call(:take_up, _from, state) do
    stop_timer(state.parked)

    if state.ended == nil and :queue.is_empty(state.waiting) do
      {:reply, :ok, %{state | parked: nil}}
    else
      {:stop, :normal, :gone, state}
    end
  end

  @impl GenServer
  def handle_info({port, {:data, frame}}, %{port: port, ended: nil} = state) do
    {:noreply, frame |> Protocol.decode() |> handle_decoded(state) |> reply_to_asker()}
  end

  def handle_info({port, {:exit_status, status}}, %{port: port} = state) do
    {:noreply, state |> put_end({:exited, status}) |> reply_to_asker()}
  end

  def handle_info({:EXIT, port, _reason}, %{port: port} = state) do
    {:noreply, state |> put_end({:exited, nil}) |> reply_to_asker()}
  end

  def handle_info({:timeout, timer, :next}, %{asker: {from, timer}} = state) do
    GenServer.reply(from, :timeout)
    {:noreply, %{state | asker: nil}}
  end

  def handle_info({:timeout, timer, :parked}, %{parked: timer} = state) do
    {:stop, :normal, state}
  end

  def handle_info({:DOWN, owner, :process, _pid, _reason}, %{owner: owner} = state) do
    {:stop, :normal, state}
  end

  # Ignored: frames after a malformed one, and the message of a timer that expired just before it was cancelled.
  def handle_info(_message, state), do: {:noreply, state}

  # `Port.command/2` raises if the port has ended with the helper. Then the port's `:exit_status` message tells the caller.
  defp write(port, bytes) do
    Port.command(port, bytes)
    :ok
  rescue
    ArgumentError -> :ok
  end

  defp handle_decoded({:ok, {:event, id, {kind, _}} = message}, state)
       when kind in [:log, :progress, :status] do
    if state.lines < @max_waiting do
      enqueue(%{state | lines: state.lines + lines(message)}, {:message, message})
    else
      drop(state, id, missing(message))
    end
  end

  defp handle_decoded({:ok, message}, state), do: enqueue(state, {:message, message})
  defp handle_decoded({:error, reason}, state), do: put_end(state, {:malformed, reason})

  # A `:dropped` item in the queue marks where lines are missing. All lines that are dropped until the caller reaches it
  # are counted together.
  defp drop(%{dropped: 0} = state, id, lines) when lines > 0 do
    enqueue(%{state | dropped: lines}, {:dropped, id})
  end

  defp drop(state, _id, lines), do: %{state | dropped: state.dropped + lines}

  defp lines({:event, _id, {:log, bytes}}) when is_binary(bytes) do
    length(:binary.matches(bytes, "\n")) + 1
  end

  # Each of these counts as one line: a log that is no binary, a progress, and a status.
  defp lines({:event, _id, {kind, _}}) when kind in [:log, :progress, :status], do: 1
  defp lines(_message), do: 0

  # Returns how many lines the user misses if the event is dropped. A dropped progress or status is not counted, because
  # the next one replaces it.
  defp missing({:event, _id, {kind, _}}) when kind in [:progress, :status], do: 0
  defp missing(log), do: lines(log)

  defp enqueue(state, item), do: %{state | waiting: :queue.in(item, state.waiting)}

  # Only the first reason is kept.
  defp put_end(%{ended: nil} = state, reason), do: %{state | ended: reason}
  defp put_end(state, _reason), do: state

  # Replies with the next item, if a caller waits and there is an item.
  defp reply_to_asker(%{asker: nil} = state), do: state

  defp reply_to_asker(%{asker: {from, timer}} = state) do
    case dequeue(state) do
      {nil, state} ->
        state

      {item, state} ->
        stop_timer(timer)
        GenServer.reply(from, item)
        %{state | asker: nil}
    end
  end

  defp dequeue(state) do
    case :queue.out(state.waiting) do
      {:empty, _waiting} ->
        {state.ended, state}

      {{:value, {:dropped, id}}, waiting} ->
        text =
          "#{state.dropped} lines were not shown: the terminal is slower than the build. The log has them all."

        {{:message, {:event, id, {:warning, text}}}, %{state | waiting: waiting, dropped: 0}}

      {{:value, {:message, message} = item}, waiting} ->
        {item, %{state | waiting: waiting, lines: state.lines - lines(message)}}
    end
  end

  defp start_timer(:infinity), do: nil
  defp start_timer(milliseconds), do: :erlang.start_timer(milliseconds, self(), :next)

  defp stop_timer(nil), do: :ok

  defp stop_timer(timer) do
    _left = Process.cancel_timer(timer)
    :ok
  end
end
