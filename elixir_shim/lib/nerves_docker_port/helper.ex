defmodule NervesDockerPort.Helper do
  @moduledoc """
  One conversation with the helper: its hello, one request, what it says meanwhile, its outcome.

  Shows events, puts questions to the person, and raises every failure as one `Mix.Error`. Knows nothing of how the helper
  is found (`NervesDockerPort.Command`) or of what is in a request (`NervesDockerPort.Request`).
  """

  alias NervesDockerPort.{CI, Command, Connection, Console, Protocol}

  @typedoc "What the helper can be asked to do."
  @type op :: :build | :archive | :clean | :shell | :run | :copy | :doctor | :volumes | :report

  # What decides which engine it is and what it is asked for. The helper's nerves_docker_port/engine/endpoint.py says what
  # each is for; one of its tests compares the two lists.
  @engine_variables ~w(
    DOCKER_HOST DOCKER_CONTEXT DOCKER_CONFIG HOME
    DOCKER_TLS_VERIFY DOCKER_TLS DOCKER_CERT_PATH SSL_CERT_FILE SSL_CERT_DIR
    HTTP_PROXY http_proxy HTTPS_PROXY https_proxy NO_PROXY no_proxy
    DOCKER_API_VERSION DOCKER_CUSTOM_HEADERS DOCKER_DEFAULT_PLATFORM
    DOCKER_BUILDKIT BUILDX_BUILDER SSH_AUTH_SOCK
  )

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
    conversation = parked(command) || start(command)

    args = or_close(conversation, fn -> arguments(op, args) end)

    case greeted(conversation, Keyword.get(options, :hello_timeout, @hello_timeout)) do
      {:ok, conversation} ->
        conversation = %{conversation | id: conversation.id + 1}
        outcome = or_close(conversation, fn -> converse(conversation, op, args, options) end)

        if op == :build and match?({:ok, _value}, outcome) do
          park(conversation, Keyword.get(options, :park_timeout, @park_timeout))
        else
          Connection.close(conversation.connection)
        end

        value(outcome, op, args)

      {:error, message} ->
        fail(message, nil, op, args)
    end
  end

  defp arguments(op, args) when is_function(args) do
    args.()
  rescue
    error in Mix.Error ->
      fail(error.message, nil, op, %{})
  end

  defp arguments(_op, args), do: args

  defp value({:ok, value}, op, args) do
    if ci?(op), do: CI.passed(app(args), value)
    value
  end

  defp value({:error, message}, op, args), do: fail(message, nil, op, args)
  defp value({:failed, message, cause}, op, args), do: fail(message, cause, op, args)

  @spec fail(String.t(), map() | nil, op(), term()) :: no_return()
  defp fail(message, cause, op, args) do
    if ci?(op), do: CI.failed(app(args), message, cause)
    Mix.raise(message)
  end

  # A CI shows builds; the other operations are a person's.
  defp ci?(op), do: op in [:build, :archive]

  defp app(%{package: %{app: app}}), do: app
  defp app(_args), do: nil

  # Whatever goes wrong on this side, the helper goes.
  defp or_close(conversation, function) do
    function.()
  catch
    kind, reason ->
      if conversation.connection != nil, do: Connection.close(conversation.connection)
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  defp park(conversation, timeout) do
    :ok = Connection.park(conversation.connection, timeout)
    Process.put(__MODULE__, {conversation, engine_variables()})
  end

  # A helper sees the environment that it was started in. Nerves changes much of it once a system is built (the compiler's
  # variables, its own); what would lead to another engine has to be the same.
  defp engine_variables, do: Map.take(System.get_env(), @engine_variables)

  defp parked(command) do
    variables = engine_variables()

    case Process.delete(__MODULE__) do
      {%{command: ^command} = conversation, ^variables} ->
        if Connection.take_up(conversation.connection) == :ok, do: conversation

      {conversation, _other_variables} ->
        Connection.close(conversation.connection)
        nil

      nil ->
        nil
    end
  end

  # A conversation with a helper that has not said hello yet. Where it cannot even be started, that is found out when it is
  # to be greeted: another Python may do.
  defp start(command) do
    case Connection.open(command) do
      {:ok, connection} -> %{connection: connection, command: command, id: 0, reason: nil}
      {:error, reason} -> %{connection: nil, command: command, id: 0, reason: reason}
    end
  end

  # A helper says hello once.
  defp greeted(%{id: id} = conversation, _timeout) when id > 0, do: {:ok, conversation}

  defp greeted(conversation, timeout) do
    case or_close(conversation, fn -> greet(conversation, timeout) end) do
      :ok ->
        {:ok, conversation}

      {:error, message} ->
        Connection.close(conversation.connection)
        {:error, message}

      {:no_python, failure} ->
        another(Command.alternatives(conversation.command), timeout, [
          {conversation.command, failure}
        ])
    end
  end

  # Only now does it matter which other Pythons there are: most machines never come here.
  defp another([], _timeout, failures), do: {:error, no_hello(Enum.reverse(failures))}

  defp another([command | rest], timeout, failures) do
    conversation = start(command)

    case or_close(conversation, fn -> greet(conversation, timeout) end) do
      :ok ->
        :ok = Command.remember(command)
        {:ok, conversation}

      {:no_python, failure} ->
        another(rest, timeout, [{command, failure} | failures])

      {:error, _message} ->
        Connection.close(conversation.connection)
        another(rest, timeout, [{command, :silent} | failures])
    end
  end

  defp converse(%{connection: connection, id: id}, op, args, options) do
    :ok = Connection.send_message(connection, {:request, id, op, args})
    console = Console.new(Keyword.take(options, [:dot_every]))
    {outcome, console} = listen(connection, id, console)
    _console = Console.finish(console)
    outcome
  end

  # `:no_python`: the program ended, or did not start, before it was the helper.
  defp greet(%{connection: nil, reason: reason}, _timeout), do: {:no_python, {:not_started, reason}}

  defp greet(%{connection: connection, command: command}, timeout) do
    version = Protocol.version()

    case Connection.next(connection, timeout) do
      {:message, {:hello, %{protocol: ^version} = hello}} ->
        warn_of_another_release(hello, command)

      {:message, {:hello, %{protocol: other} = hello}} ->
        mismatch(other, hello, command)

      {:message, {:done, 0, {:error, error}}} ->
        failure(error)

      {:message, other} ->
        {:error, not_the_helper("It said " <> excerpt(other), command)}

      {:malformed, reason} ->
        {:error, not_the_helper("It sent " <> reason, command)}

      {:exited, status} ->
        Connection.close(connection)
        {:no_python, {:exited, status}}

      :timeout ->
        {:error, silent(timeout, command)}
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
        {failed(error), console}

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

  # With what the helper has found out about the cause, for a CI.
  defp failed(error) do
    with {:error, words} <- failure(error),
         do: {:failed, words, if(is_map(error), do: Map.get(error, "cause"))}
  end

  defp failure(%{message: message} = error) when is_binary(message), do: {:error, words(error)}
  defp failure(error), do: unknown({:error, error})

  # The two understand each other, but were not tested together. So it is no error.
  defp warn_of_another_release(hello, command) do
    ours = NervesDockerPort.version()

    case Map.get(hello, :version) do
      ^ours ->
        :ok

      theirs ->
        Mix.shell().info([
          :yellow,
          Console.printable(
            "The helper is release #{excerpt(theirs)} of nerves_docker_port, and the Mix side release #{inspect(ours)}. " <>
              "They should be the same. " <> another_release(command)
          ),
          :reset
        ])
    end
  end

  defp another_release(%Command{origin: :packaged}) do
    "The helper comes with the Mix side, so one of the two is left over. " <> Command.renewal()
  end

  defp another_release(command), do: check(command)

  defp mismatch(other, hello, command) do
    ours = Protocol.version()

    remedy =
      cond do
        is_integer(other) and other > ours ->
          "The Mix side is the older one. Update it:\n\n    mix deps.update nerves_docker_port"

        command.origin == :packaged ->
          "The helper is the older one, although it comes with the Mix side. " <> Command.renewal()

        true ->
          "The helper is the older one. " <> check(command)
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

  # What the first one did matters; the others were only tried.
  defp no_hello([{command, failure} | others]) do
    tried =
      Enum.map(others, fn {other, failure} ->
        "  #{other.executable}: #{failure_words(failure)}\n"
      end)

    """
    #{first_failure(failure, command)}
    #{if tried != [], do: ["\nThese do not run it either:\n\n", tried]}
    #{if failure == {:exited, @python_too_old}, do: Command.python_hint(), else: check(command)}
    """
  end

  defp first_failure({:not_started, reason}, command) do
    """
    The helper cannot be started: #{:file.format_error(reason)}.

      #{Command.to_line(command)}
    """
  end

  defp first_failure({:exited, @python_too_old}, command) do
    "#{command.executable} is older than Python 3.10."
  end

  defp first_failure({:exited, status} = failure, command) do
    """
    The helper ended before it said hello (#{failure_words(failure)}). What it printed is above.

      #{Command.to_line(command)}
    #{if command.origin == :packaged and status in [126, 127], do: shim(command)}
    """
  end

  defp shim(command) do
    """

    #{command.executable} is probably the shim of a version manager (pyenv, asdf, mise), and there is no Python for it here.
    """
  end

  defp failure_words({:not_started, reason}), do: "#{:file.format_error(reason)}"
  defp failure_words({:exited, @python_too_old}), do: "older than Python 3.10"
  defp failure_words({:exited, status}), do: status_words(status)
  defp failure_words(:silent), do: "it said something else than hello, or nothing"

  defp silent(timeout, command) do
    """
    The helper did not say hello within #{timeout / 1000} s.

      #{Command.to_line(command)}

    #{check(command)}
    """
  end

  defp check(%Command{origin: :packaged}), do: Command.python_hint()

  defp check(%Command{origin: :environment}) do
    """
    The command comes from the environment variable NERVES_DOCKER_PORT_COMMAND. Without it, the helper that comes with
    nerves_docker_port is used:

        unset NERVES_DOCKER_PORT_COMMAND
    """
  end

  defp check(%Command{origin: :config}) do
    "The command comes from `config :nerves_docker_port, command: ...`. Remove that line, and the helper that comes with " <>
      "nerves_docker_port is used."
  end

  defp died(status) do
    """
    The helper died before it was done (#{status_words(status)}). #{cause(status)}

    Run the command again: what was built so far is kept, and a container that was left behind is removed first.
    """
  end

  # SIGKILL is what the kernel sends when memory runs out.
  defp cause(137) do
    "If it was killed because memory ran out, let fewer jobs run at once: " <>
      "`build_runner_opts: [make_args: [\"PARALLEL_JOBS=2\"]]`."
  end

  # What ends a Python program by itself is an error that nothing has caught.
  defp cause(status) when status in 1..128 do
    "It failed with a Python error: the last line that it printed above says which. " <>
      "If it does so again, please report it with all that it printed."
  end

  defp cause(_status), do: "What it printed is above."

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
