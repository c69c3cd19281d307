defmodule NervesDockerPort.Connection do
  @moduledoc """
  Owns the port to one helper, and holds the messages that wait until they are asked for.

  A process of its own, for three reasons. A helper that dies while it is written to ends its port with an exit signal,
  which must not end Mix. A port cannot be slowed down, so where the terminal is slower than the build, the events that
  wait have to be bounded somewhere. And the caller's mailbox stays its own.

  The process that opened the connection is watched: when it dies, however it dies, the port is closed, and the helper
  finds the end of its input and cancels what it does.
  """

  # Temporary: a connection is never restarted, and `start/2` links it to nobody.
  use GenServer, restart: :temporary

  alias NervesDockerPort.{Command, Protocol}

  # Events that wait before `:log` and `:progress` are dropped: some screens full of headlines.
  @max_waiting 1_000

  defstruct [:port, :owner, :asker, :ended, :parked, waiting: :queue.new(), dropped: 0]

  @typedoc """
  What there is to know next:

    * `{:message, term}` - the helper said this
    * `{:malformed, reason}` - it sent what is not in the protocol; nothing more is read
    * `{:exited, status}` - it is gone; 128 and above: ended by the signal `status - 128`; `nil`: unknown
    * `:timeout` - nothing so far
  """
  @type next ::
          {:message, term()}
          | {:malformed, String.t()}
          | {:exited, non_neg_integer() | nil}
          | :timeout

  @doc """
  Starts the helper, for the calling process.

  The error is a POSIX code such as `:eacces`.
  """
  @spec open(Command.t()) :: {:ok, pid()} | {:error, atom()}
  def open(%Command{} = command) do
    case GenServer.start(__MODULE__, {command, self()}) do
      {:ok, connection} -> {:ok, connection}
      {:error, {:shutdown, reason}} -> {:error, reason}
    end
  end

  @doc """
  Sends the helper a message. Where it is gone already, `next/2` says so.
  """
  @spec send_message(pid(), term()) :: :ok
  def send_message(connection, message) do
    GenServer.call(connection, {:send, Protocol.encode(message)}, :infinity)
  end

  @doc """
  Waits for what comes next, at most `timeout` milliseconds. Nothing is lost by a timeout.
  """
  @spec next(pid(), timeout()) :: next()
  def next(connection, timeout) do
    GenServer.call(connection, {:next, timeout}, :infinity)
  end

  @doc """
  Keeps the helper for a next request, which has to come within `timeout` milliseconds: then the port is closed.
  """
  @spec park(pid(), timeout()) :: :ok
  def park(connection, timeout), do: GenServer.call(connection, {:park, timeout}, :infinity)

  @doc """
  Takes a parked connection up again. `:gone` where that is too late, or where the helper has ended or said something since.
  """
  @spec take_up(pid()) :: :ok | :gone
  def take_up(connection) do
    GenServer.call(connection, :take_up, :infinity)
  catch
    :exit, _gone -> :gone
  end

  @doc """
  Closes the port, which tells the helper to stop. Closing twice is fine.
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
    {:noreply, answer(%{state | asker: {from, start_timer(timeout)}})}
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
    {:noreply, frame |> Protocol.decode() |> take(state) |> answer()}
  end

  def handle_info({port, {:exit_status, status}}, %{port: port} = state) do
    {:noreply, state |> ended({:exited, status}) |> answer()}
  end

  def handle_info({:EXIT, port, _reason}, %{port: port} = state) do
    {:noreply, state |> ended({:exited, nil}) |> answer()}
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

  # Frames after a malformed one, or a timer that fired as it was cancelled.
  def handle_info(_message, state), do: {:noreply, state}

  # The port is gone with the helper; its `:exit_status` is here or on its way.
  defp write(port, bytes) do
    Port.command(port, bytes)
    :ok
  rescue
    ArgumentError -> :ok
  end

  defp take({:ok, {:event, id, {kind, _}} = message}, state) when kind in [:log, :progress] do
    if :queue.len(state.waiting) < @max_waiting do
      enqueue(state, {:message, message})
    else
      drop(state, id, lines(message))
    end
  end

  defp take({:ok, message}, state), do: enqueue(state, {:message, message})
  defp take({:error, reason}, state), do: ended(state, {:malformed, reason})

  # A mark keeps the place where lines are missing; what is dropped until it is reached is counted under it.
  defp drop(%{dropped: 0} = state, id, lines) when lines > 0 do
    enqueue(%{state | dropped: lines}, {:dropped, id})
  end

  defp drop(state, _id, lines), do: %{state | dropped: state.dropped + lines}

  defp lines({:event, _id, {:log, bytes}}) when is_binary(bytes) do
    length(:binary.matches(bytes, "\n")) + 1
  end

  defp lines(_progress), do: 0

  defp enqueue(state, item), do: %{state | waiting: :queue.in(item, state.waiting)}

  # The first reason stays.
  defp ended(%{ended: nil} = state, reason), do: %{state | ended: reason}
  defp ended(state, _reason), do: state

  # Gives whoever waits the next item, if there is one.
  defp answer(%{asker: nil} = state), do: state

  defp answer(%{asker: {from, timer}} = state) do
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

      {{:value, item}, waiting} ->
        {item, %{state | waiting: waiting}}
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
