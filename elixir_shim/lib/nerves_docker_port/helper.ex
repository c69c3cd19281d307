defmodule NervesDockerPort.Helper do
  @moduledoc """
  One conversation with the helper: its hello, one request, what it says meanwhile, its outcome.

  Shows events, puts questions to the person, and raises every failure as one `Mix.Error`. Knows nothing of how the helper
  is found (`NervesDockerPort.Command`) or of what is in a request (`NervesDockerPort.Request`).
  """

  alias NervesDockerPort.{Command, Connection, Console, Protocol}

  @typedoc "What the helper can be asked to do."
  @type op :: :build | :archive | :clean | :shell | :doctor | :volumes

  # How long a helper waits for the next request. Nerves unpacks what was built before it has it packed.
  @park_timeout 60_000

  # From the start of Python to the first frame. Measured: 0.05 s; a cold disk may take seconds.
  @hello_timeout 30_000

  # The helper's own start-up ends so where Python is older than it needs; standard error has said so.
  @python_too_old 78

  @doc """
  Has the helper do `op`, and gives the value of its outcome: see `docs/protocol.md`.

  `args` are the request's, or a function that makes them, which is called while the helper starts. Returns when the helper
  is done; a build takes hours. When the calling process dies, the helper cancels and goes.

  After a build the helper stays for a minute: `mix nerves.artifact` asks for the archive next, and starting a helper takes
  as long as all that it has to do then. It goes with the calling process, and serves nobody else.

  Options:

    * `:command` - a `NervesDockerPort.Command`, instead of the one that the environment and the configuration say
    * `:hello_timeout` - milliseconds to wait for the helper's first message (30 000)
    * `:park_timeout` - milliseconds that the helper stays after a build (60 000)
    * `:dot_every` - milliseconds of silence before a dot is printed (10 000)

  Raises `Mix.Error` where the helper cannot be started, breaks the protocol or dies, and where its outcome is an error.
  """
  @spec request(op(), map() | (() -> map()), keyword()) :: term()
  def request(op, args, options \\ []) do
    command = Keyword.get_lazy(options, :command, &Command.resolve/0)
    conversation = parked(command) || %{connection: open(command), id: 0}
    conversation = %{conversation | id: conversation.id + 1}

    outcome =
      try do
        converse(conversation, command, op, args, options)
      catch
        kind, reason ->
          Connection.close(conversation.connection)
          :erlang.raise(kind, reason, __STACKTRACE__)
      end

    if op == :build and match?({:ok, _value}, outcome) do
      park(conversation, command, Keyword.get(options, :park_timeout, @park_timeout))
    else
      Connection.close(conversation.connection)
    end

    case outcome do
      {:ok, value} -> value
      {:error, message} -> Mix.raise(message)
    end
  end

  defp park(conversation, command, timeout) do
    :ok = Connection.park(conversation.connection, timeout)
    Process.put(__MODULE__, {conversation, command, engine_variables()})
  end

  # A helper sees the environment that it was started in. Nerves changes much of it once a system is built (the compiler's
  # variables, its own); what would lead to another engine has to be the same.
  defp engine_variables do
    Map.filter(System.get_env(), fn {name, _value} ->
      String.starts_with?(name, "DOCKER_") or name in ["HOME", "SSH_AUTH_SOCK"]
    end)
  end

  defp parked(command) do
    variables = engine_variables()

    case Process.delete(__MODULE__) do
      {conversation, ^command, ^variables} ->
        if Connection.take_up(conversation.connection) == :ok, do: conversation

      {conversation, _other_command, _other_variables} ->
        Connection.close(conversation.connection)
        nil

      nil ->
        nil
    end
  end

  defp open(command) do
    case Connection.open(command) do
      {:ok, connection} ->
        connection

      {:error, reason} ->
        Mix.raise("""
        The helper cannot be started: #{:file.format_error(reason)}.

          #{Command.to_line(command)}
        """)
    end
  end

  defp converse(%{connection: connection, id: id}, command, op, args, options) do
    args = if is_function(args), do: args.(), else: args

    with :ok <- greet(id, connection, command, Keyword.get(options, :hello_timeout, @hello_timeout)) do
      :ok = Connection.send_message(connection, {:request, id, op, args})
      console = Console.new(Keyword.take(options, [:dot_every]))
      {outcome, console} = listen(connection, id, console)
      _console = Console.end_line(console)
      outcome
    end
  end

  # A helper says hello once.
  defp greet(id, _connection, _command, _timeout) when id > 1, do: :ok

  defp greet(_id, connection, command, timeout) do
    version = Protocol.version()

    case Connection.next(connection, timeout) do
      {:message, {:hello, %{protocol: ^version}}} -> :ok
      {:message, {:hello, %{protocol: other} = hello}} -> mismatch(other, hello, command)
      {:message, {:done, 0, {:error, error}}} -> failure(error)
      {:message, other} -> {:error, not_the_helper("It said " <> excerpt(other), command)}
      {:malformed, reason} -> {:error, not_the_helper("It sent " <> reason, command)}
      {:exited, @python_too_old} -> {:error, python_too_old(command)}
      {:exited, status} -> {:error, no_hello(status, command)}
      :timeout -> {:error, silent(timeout, command)}
    end
  end

  defp listen(connection, id, console) do
    case Connection.next(connection, Console.patience(console)) do
      {:message, {:event, ^id, event}} ->
        case Console.show(console, event) do
          {:ok, console} -> listen(connection, id, console)
          :unknown -> {unknown({:event, id, event}), console}
        end

      {:message, {:ask, ^id, ref, {:yes_no, text, default}}}
      when is_integer(ref) and is_binary(text) and is_boolean(default) ->
        {answer, console} = Console.yes?(console, text, default)
        :ok = Connection.send_message(connection, {:answer, ref, answer})
        listen(connection, id, console)

      {:message, {:done, ^id, {:ok, value}}} ->
        {{:ok, value}, console}

      # The helper gives 0 where it could not read so far as the request's number.
      {:message, {:done, of, {:error, error}}} when of in [0, id] ->
        {failure(error), console}

      {:message, other} ->
        {unknown(other), console}

      {:malformed, reason} ->
        {{:error, "The helper sent #{reason}. " <> update_both()}, console}

      {:exited, status} ->
        {{:error, died(status)}, console}

      :timeout ->
        listen(connection, id, Console.idle(console))
    end
  end

  @doc """
  An error of the helper's in words: what failed, and what to do.

  ## Examples

      iex> NervesDockerPort.Helper.words(%{message: "No engine.", hint: "Start one."})
      "No engine.\\n\\nStart one."
  """
  @spec words(%{:message => binary(), optional(atom()) => term()}) :: String.t()
  def words(%{message: message} = error) do
    case Map.get(error, :hint) do
      hint when is_binary(hint) and hint != "" ->
        Console.printable(String.trim_trailing(message) <> "\n\n" <> hint)

      _none ->
        Console.printable(message)
    end
  end

  defp failure(%{message: message} = error) when is_binary(message), do: {:error, words(error)}
  defp failure(error), do: unknown({:error, error})

  defp mismatch(other, hello, command) do
    ours = Protocol.version()

    remedy =
      cond do
        is_integer(other) and other > ours ->
          "The Mix side is the older one. Update it:\n\n    mix deps.update nerves_docker_port"

        command.origin == :packaged ->
          "The helper is the older one, although it comes with the Mix side. Fetch both anew:\n\n" <>
            "    mix deps.clean nerves_docker_port && mix deps.get"

        true ->
          "The helper is the older one. Update it, for example with\n\n" <>
            "    pip install --upgrade nerves-docker-port"
      end

    {:error,
     """
     The helper speaks version #{inspect(other)} of the port protocol, and the Mix side version #{ours}.
     (helper #{excerpt(Map.get(hello, :version))}, Mix side #{inspect(NervesDockerPort.version())})

     #{remedy}
     """}
  end

  defp not_the_helper(what, command) do
    """
    The program that should be the helper did not say hello. #{what}.

      #{Command.to_line(command)}

    #{check(command)}
    """
  end

  defp no_hello(status, command) do
    """
    The helper ended before it said hello (#{status_words(status)}). What it printed is above.

      #{Command.to_line(command)}

    #{check(command)}
    """
  end

  defp silent(timeout, command) do
    """
    The helper did not say hello within #{timeout / 1000} s.

      #{Command.to_line(command)}

    #{check(command)}
    """
  end

  defp python_too_old(command) do
    """
    #{command.executable} is older than Python 3.10.

    #{Command.python_hint()}
    """
  end

  defp check(%Command{origin: :packaged}), do: Command.python_hint()

  defp check(%Command{origin: :environment}) do
    "The command comes from the environment variable NERVES_DOCKER_PORT_COMMAND. Without it, the helper that comes with " <>
      "nerves_docker_port is used."
  end

  defp check(%Command{origin: :config}) do
    "The command comes from `config :nerves_docker_port, command: ...`. Without it, the helper that comes with " <>
      "nerves_docker_port is used."
  end

  defp died(status) do
    """
    The helper died before it was done (#{status_words(status)}). What it printed is above.

    Run the command again: what was built so far is kept, and a container that was left behind is removed first. If the
    helper was killed for want of memory, let fewer jobs run at once: `build_runner_opts: [make_args: ["PARALLEL_JOBS=2"]]`.
    """
  end

  # A port gives 128 and the signal's number for a program that was ended by a signal.
  defp status_words(nil), do: "exit status unknown"
  defp status_words(status) when status > 128, do: "exit status #{status}: signal #{status - 128}"
  defp status_words(status), do: "exit status #{status}"

  defp unknown(message) do
    {:error, "The helper said what this version does not know: #{excerpt(message)}. " <> update_both()}
  end

  defp update_both do
    "The Mix side and the helper have to be of one version; " <>
      "`mix deps.update nerves_docker_port` brings both."
  end

  defp excerpt(term), do: inspect(term, limit: 20, printable_limit: 200)
end
